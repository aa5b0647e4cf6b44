"""Import transformers without what a chat never calls, which takes longer to import than all that it does call.

transformers imports torch's compiler (1.5 s on an idle core) for decorators that do nothing until something is
compiled, torch's distributed tensors (0.5 s), and scipy for object detection (0.5 s).
"""

import importlib
import sys
from types import ModuleType

COMPILER = "torch._dynamo"
INDEXING = f"{COMPILER}._trace_wrapped_higher_order_op"


class StandIn(ModuleType):
    """In the place of torch's compiler while transformers is imported; steps back when asked for more than it has."""

    __path__: list[str] = []

    def __getattr__(self, name: str):
        step_back()
        return getattr(importlib.import_module(self.__name__), name)


def step_back() -> None:
    """From now on the compiler is imported by whoever names it."""
    for name in (COMPILER, INDEXING):
        if isinstance(sys.modules.get(name), StandIn):
            del sys.modules[name]


def unchanged(function=None, *_, **__):
    """A decorator without effect, with or without arguments."""
    return function if function is not None else unchanged


def import_classes() -> None:
    """Import RNA-GPT's classes, and transformers so; where it or the compiler is there already, as usual."""
    if COMPILER in sys.modules or "transformers" in sys.modules:
        importlib.import_module("rnagpt.checkpoints.registration")
        return
    import torch

    compiler, indexing = StandIn(COMPILER), StandIn(INDEXING)
    compiler.assume_constant_result = compiler.allow_in_graph = unchanged
    # a context manager of the masks that no model of ours makes; the real one is imported when it is called
    indexing.TransformGetItemToIndex = lambda: importlib.import_module(INDEXING).TransformGetItemToIndex()
    sys.modules |= {COMPILER: compiler, INDEXING: indexing}
    before = torch.compiler.disable, torch.distributed.is_available, sys.modules.get("scipy")
    torch.compiler.disable, torch.distributed.is_available = unchanged, lambda: False
    sys.modules["scipy"] = None  # Python's way to say that a package is not installed
    try:
        importlib.import_module("rnagpt.checkpoints.registration")
        importlib.import_module("transformers.models.llama.modeling_llama")
        importlib.import_module("transformers.models.esm.modeling_esm")
    finally:
        step_back()
        torch.compiler.disable, torch.distributed.is_available, scipy = before
        del sys.modules["scipy"]
        if scipy is not None:
            sys.modules["scipy"] = scipy
