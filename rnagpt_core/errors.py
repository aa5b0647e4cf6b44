"""What a person reads when a command cannot go on: one sentence, not a traceback.

Raise `UserError` for what the user can put right. `explain` covers the failures that come from the machine and from
libraries; everything else is a bug, and keeps its traceback.
"""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from rnagpt_core.safe_text import one_line

USER_MISTAKE = 2
MACHINE_TROUBLE = 1
INTERRUPTED = 130

# the packages that a command needs and `pip install rnagpt` alone does not bring, by the extra that does
PACKAGES_OF_EXTRA = {
    "train": ("datasets", "trl"),
    "dataset": ("datatrove", "openai"),
    "eval": ("edlib", "evaluate", "matplotlib", "rouge_score", "scipy", "sklearn"),
    "encoder": ("fm",),
    "quickstart": ("gguf",),
    "chat": ("gradio", "RNA"),
    "serve": ("fastapi", "prometheus_client", "uvicorn"),
}
EXTRA_OF_PACKAGE = {package: extra for extra, packages in PACKAGES_OF_EXTRA.items() for package in packages}

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# Class names, because the Hub's client and its HTTP library must not be imported to read an error:
# huggingface_hub's "not here, and could not be fetched"; httpx's connection failures and time-outs.
UNREACHABLE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "TransportError"}


class UserError(Exception):
    """A user's mistake. The message is one sentence: what was expected, what came, what to do."""


def explain(error: BaseException) -> tuple[str, int] | None:
    """Exception -> (one sentence, exit code), or None for a bug.

    >>> explain(UserError("--fasta rna.fa holds no sequence"))
    ('--fasta rna.fa holds no sequence', 2)
    >>> explain(FileNotFoundError(2, "No such file or directory", "rna.fa"))
    ('rna.fa: no such file or directory', 2)
    >>> explain(OSError(28, "No space left on device", "runs/demo"))
    ('runs/demo: no space left on the device; free some and run the same command again', 1)
    >>> explain(KeyboardInterrupt())
    ('interrupted; run the same command to go on', 130)
    >>> explain(ZeroDivisionError()) is None
    True
    """
    if isinstance(error, UserError):
        return one_line(error), USER_MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command to go on", INTERRUPTED
    if disk_is_full(error):
        sentence = f"{named_path(error) or fullest_folder()}: no space left on the device"
        return f"{sentence}; free some and run the same command again", MACHINE_TROUBLE
    if hub_is_unreachable(error):
        if offline := [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]:
            return (
                f"the Hugging Face Hub could not be reached because {offline[0]} is set: unset it, or give a local "
                "folder where a name was given"
            ), MACHINE_TROUBLE
        return (
            "the Hugging Face Hub could not be reached; connect and run the command again, or give a local folder "
            "where a name was given (--debug shows what was asked of it)"
        ), MACHINE_TROUBLE
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF_PACKAGE:
        extra = EXTRA_OF_PACKAGE[error.name]
        return f"the package {error.name} is not installed; pip install 'rnagpt[{extra}]' brings it", USER_MISTAKE
    if isinstance(error, OSError):
        if error.filename is not None and error.strerror is not None:
            return f"{named_path(error)}: {error.strerror[0].lower()}{error.strerror[1:]}", USER_MISTAKE
        # transformers raises a bare OSError for a model name or folder it cannot load, its message says which
        return one_line(error), USER_MISTAKE
    return None


def disk_is_full(error: BaseException) -> bool:
    """True for ENOSPC; safetensors and torch report it in words, as errors of their own.

    >>> disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    True
    """
    return any(
        (isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(link)
        for link in causes(error)
    )


def hub_is_unreachable(error: BaseException) -> bool:
    """True when the Hub, or the way to it, did not answer: looked for in the error and in what caused it."""
    library = type(error).__module__.split(".")[0]
    if not isinstance(error, OSError) and library not in ("huggingface_hub", "httpx", "httpx2"):
        return False
    return any(
        isinstance(link, ConnectionError) or UNREACHABLE & {kind.__name__ for kind in type(link).__mro__}
        for link in causes(error)
    )


def causes(error: BaseException):
    """The error, then what it was raised from or while handling, and so on."""
    seen = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def named_path(error: BaseException) -> str | None:
    """The path that an error or one of its causes names."""
    for link in causes(error):
        if isinstance(link, OSError) and link.filename is not None:
            return str(link.filename)
    return None


def fullest_folder() -> str:
    """Where to look when a full disk is reported without a path: the folder with the least space of those in use."""
    named = (os.environ.get(name, "") for name in ("RNAGPT_CACHE", "XDG_CACHE_HOME", "HF_HOME"))
    folders = {os.getcwd(), tempfile.gettempdir(), os.path.expanduser("~"), *filter(os.path.isdir, named)}
    free, folder = min((shutil.disk_usage(folder).free, folder) for folder in folders)
    return f"{folder} ({free / 1e9:.1f} GB free)"


def explained(work: Callable[[], int], debug: bool = False) -> int:
    """Exit code of `work`; an error that `explain` knows becomes one sentence on standard error, unless `debug`."""
    try:
        try:
            return work()
        finally:
            flush_output()
    except BrokenPipeError:
        discard_output()  # the reader, `head` say, has what it wanted
        return 1
    except (Exception, KeyboardInterrupt) as error:
        known = None if debug else explain(error)
        if known is None:
            raise
        sentence, code = known
        discard_output()
        print(f"rnagpt: error: {sentence}", file=sys.stderr)
        return code


def flush_output() -> None:
    """Write out what was printed while an error can still be reported: at exit Python would only grumble."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def discard_output() -> None:
    """Point a standard output that cannot be written at the null device, or its flush at exit would fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
