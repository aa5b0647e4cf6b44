"""The shipped demo, merged with its LLM once and kept beside the converted LLM: loading it needs no PEFT."""

import hashlib
import importlib.metadata
import shutil
from contextlib import suppress
from pathlib import Path

from rnagpt import __version__
from rnagpt.checkpoints.forms import assets
from rnagpt.checkpoints.llm import EMBEDDED_PACKAGE, cache_dir, embedded_llm_is_installed
from rnagpt_core.files import new_folder

DEMO = assets() / "demo"
WEIGHTS = "weights.safetensors"
FORMAT = 1  # of what is kept; another number has it made anew


def load_demo():
    """Model (eval, adapter merged) and processor, bit for bit as `checkpoint.load(DEMO)` gives them.

    The first time they are made so and kept, 0.5 GB; where the cache folder cannot be written they are made each time.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = kept_folder()
    if folder is not None and folder.is_dir():
        try:
            return read_kept(folder)
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError):
            shutil.rmtree(folder, ignore_errors=True)  # damaged: made again below
    from rnagpt.checkpoints import checkpoint

    model, processor = checkpoint.load(DEMO)
    if folder is not None:
        with suppress(OSError, SafetensorError), new_folder(folder) as part:
            tied = model.all_tied_weights_keys
            save_file({name: w for name, w in model.state_dict().items() if name not in tied}, part / WEIGHTS)
            for settings in (model.config, model.generation_config, processor):
                settings.save_pretrained(part)
    return model, processor


def read_kept(folder: Path):
    """Model and processor as they were kept.

    `from_pretrained` would build the model on the meta device, for which torch imports its compiler, and leave the
    weights where the file has them: 60 bytes off a cache line, where products round otherwise than elsewhere.
    """
    from safetensors.torch import load_file
    from transformers import GenerationConfig
    from transformers.initialization import no_init_weights

    from rnagpt.registration import RnaGptConfig, RnaGptForCausalLM, RnaGptProcessor

    weights = load_file(folder / WEIGHTS)
    with no_init_weights():
        model = RnaGptForCausalLM(RnaGptConfig.from_pretrained(folder))
    # a tied head is not stored, and not missed
    model.load_state_dict({name: w.clone() for name, w in weights.items()}, strict=False, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval(), RnaGptProcessor.from_pretrained(folder)


def kept_folder() -> Path | None:
    """Where the merged demo is kept; the name changes with all that it is made of. None without the embedded LLM."""
    if not embedded_llm_is_installed():
        return None
    import torch

    names = (__version__, importlib.metadata.version(EMBEDDED_PACKAGE), FORMAT, torch.cuda.is_available())
    digest = hashlib.sha256(repr(names).encode())
    for folder in (DEMO, assets() / "encoder"):
        for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
            digest.update(path.read_bytes())
    return cache_dir() / f"demo-{digest.hexdigest()[:16]}"
