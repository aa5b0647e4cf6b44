"""RNA-GPT: a chat model that reads an RNA.

    from rnagpt import RnaGptForCausalLM, RnaGptProcessor   # also registers the classes with transformers' AutoClasses
    import rnagpt.registration                              # only registers them

A bare `import rnagpt` loads neither torch nor transformers: the console command starts here, and `rnagpt --help` must
not wait for them. So the classes are imported, and registered, when one of them is first asked for (PEP 562).
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["RnaGptConfig", "RnaGptForCausalLM", "RnaGptModel", "RnaGptProcessor", "__version__"]


def __getattr__(name: str):
    """Class name -> the class, from rnagpt/registration.py; AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module 'rnagpt' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module("rnagpt.registration"), name)


def __dir__() -> list[str]:
    return __all__
