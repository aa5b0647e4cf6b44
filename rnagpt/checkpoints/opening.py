"""Open the checkpoint that a command was given: `rnagpt chat`, `serve` and `export-llm`.

transformers is imported without what they never call, which takes longer to import than all that they do call:
torch's compiler (1.5 s on an idle core) for decorators that do nothing until something is compiled, torch's
distributed tensors (0.5 s), and scipy for object detection (0.5 s).
"""

import argparse
import contextlib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from rnagpt.checkpoints import kept_demo
from rnagpt.checkpoints.forms import checkpoint_form
from rnagpt_core.errors import UserError

DEMO_NOTE = "small demo model: it tells RNA types and groups apart, it has not read the literature"
COMPILER = "torch._dynamo"
INDEXING = f"{COMPILER}._trace_wrapped_higher_order_op"


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """What `chosen_checkpoint` reads."""
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="folder of a checkpoint, or a Hub id")
    parser.add_argument("--demo", action="store_true", help="use the small checkpoint that comes with RNA-GPT")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that its encoder brings (default: refuse)",
    )


def chosen_checkpoint(args: argparse.Namespace) -> str:
    """The folder or Hub id that CHECKPOINT and --demo stand for."""
    if args.demo == (args.checkpoint is not None):
        place = " (before --question, if there is one)" if hasattr(args, "question") else ""
        raise UserError(f"give either a CHECKPOINT{place} or --demo")
    if args.demo:
        if not kept_demo.DEMO.is_dir():
            raise UserError("this installation has no demo checkpoint: give a CHECKPOINT, or make one by `make demo`")
        return str(kept_demo.DEMO)
    path = Path(args.checkpoint).expanduser()
    checkpoint_form(path)
    return str(path)


def share_processors() -> None:
    """Have torch's threads sleep while they wait for each other; for libgomp to see it, before torch is imported.

    By default they spin, and whatever else runs on the machine then delays each of a token's hundreds of products: on
    two cores with one other process at work a token took 300 to 660 ms, with this 60 to 90 (EXPERIMENTS.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load(checkpoint: str, dtype: str | None = None, trust_remote_code: bool = False):
    """Model and processor of a checkpoint; what libraries print meanwhile goes to standard error.

    Args:
        dtype, trust_remote_code: see `rnagpt.checkpoints.checkpoint.load`.
    """
    check_tokenizers(checkpoint)
    with contextlib.redirect_stdout(sys.stderr):
        import_classes()
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if checkpoint == str(kept_demo.DEMO) and dtype is None:
            return kept_demo.load_demo()
        from rnagpt.checkpoints import checkpoint as checkpoints

        return checkpoints.load(checkpoint, dtype, trust_remote_code)


def check_tokenizers(checkpoint: str) -> None:
    """UserError for a damaged tokenizer: transformers would take the LLM's in the place of a damaged RNA tokenizer."""
    from tokenizers import Tokenizer

    for path in (Path(checkpoint) / "tokenizer.json", Path(checkpoint) / "rna_tokenizer" / "tokenizer.json"):
        if path.is_file():
            try:
                Tokenizer.from_file(str(path))
            except Exception as error:  # `tokenizers` raises nothing more special
                raise UserError(f"the tokenizer {path} is damaged ({error}): copy or download it again") from None


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
        importlib.import_module("rnagpt.registration")
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
        importlib.import_module("rnagpt.registration")
        importlib.import_module("transformers.models.llama.modeling_llama")
        importlib.import_module("transformers.models.esm.modeling_esm")
    finally:
        step_back()
        torch.compiler.disable, torch.distributed.is_available, scipy = before
        del sys.modules["scipy"]
        if scipy is not None:
            sys.modules["scipy"] = scipy
