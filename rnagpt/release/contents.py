"""What a folder may hold that goes up: no secret, no pickle, no path of this machine, no stray file.

check_contents(folder, MODEL_FILES)      # UserError that names every file and what is wrong with it
"""

import fnmatch
import json
import re
from pathlib import Path

from rnagpt_core.errors import UserError

_ANY_FILES = "README.md CHANGELOG.md LICENSE .gitattributes "
# patterns of names; "*" stands for no "/"
MODEL_FILES = tuple(
    f"""{_ANY_FILES}
    config.json generation_config.json processor_config.json adapter_config.json
    model.safetensors model-*-of-*.safetensors model.safetensors.index.json adapter_model.safetensors
    tokenizer.json tokenizer_config.json tokenizer.model special_tokens_map.json added_tokens.json
    vocab.json vocab.txt merges.txt chat_template.jinja additional_chat_templates/*.jinja
    rna_tokenizer/*.json rna_tokenizer/vocab.txt rna_tokenizer/*.py *_rnagpt.py rna_sequences.py""".split()
)
DATASET_FILES = tuple(
    f"{_ANY_FILES} statistics.json alignment/*.parquet qa/*.parquet facts/*.parquet figures/*.png".split()
)
SPACE_FILES = tuple(f"{_ANY_FILES} requirements.txt *.py".split())
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".dill")
# what a credential looks like; the names are for the message
SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "an OpenAI key": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{30,}",
    "an AWS key": rb"\bAKIA[0-9A-Z]{16}\b",
    "a Google key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": rb"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']{1,60}:[^/\s:@\"']{3,}@",
}
# folders of a person's machine, as they stand in configurations by mistake
MACHINE = rb"(?<![\w.}>/-])(?:/(?:home|root|Users|tmp|scratch|mnt|workspace|work)/[\w.-]+|[A-Z]:\\\\?Users\\\\?\w+)"
# a value of a configuration that is a path, wherever it leads; in a vocabulary such words are tokens
LOCAL = re.compile(r"(?:/|~/|\.{1,2}/|[A-Za-z]:[\\/]|\\\\|file:)[\w.@~-][\w .@~/\\-]*")
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
TEXT = (".json", ".md", ".txt", ".py", ".jinja", ".model", "")
BLOCK = 1 << 22  # bytes read at a time


def check_contents(folder: Path, allowed: tuple[str, ...], paths: bool = True) -> list[Path]:
    """Every file of the folder, once all of them may go up.

    paths: look for folders of this machine, too; not needed of a folder whose texts are written anew.

    Raises:
        UserError: a file has no business there, is or holds a pickle, a secret or a folder of this machine, or is a
            link that leads out of the folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    found = ((path.relative_to(folder), objection(path, folder, allowed, paths)) for path in files)
    if wrong := [f"{name}: {reason}" for name, reason in found if reason]:
        listed = "; ".join(wrong[:8])
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise UserError(f"{folder.name} must not be published: {listed}{more}; remove or put right, then run again")
    return files


def objection(path: Path, folder: Path, allowed: tuple[str, ...], paths: bool = True) -> str | None:
    """What speaks against publishing a file, if anything."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return "a link that leads out of the folder"
    if path.suffix in PICKLES:
        return "a pickle or an array file, which can run code when it is loaded"
    name = path.relative_to(folder).as_posix()
    if not any(fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in allowed):
        return "a stray file"
    with open(path, "rb") as file:
        head = file.read(BLOCK)
        # protocol 2 and later; torch.save's zip
        if re.match(rb"\x80[\x02-\x05]", head) or (head.startswith(b"PK\x03\x04") and b"data.pkl" in head[:4096]):
            return "a pickle, which can run code when it is loaded"
        before, block = b"", head
        while block:
            text = before[-200:] + block
            for named, pattern in SECRETS.items():
                if re.search(pattern, text):
                    return f"it holds {named}"
            if path.suffix not in TEXT:
                break  # of weights and tables the head: their metadata is there
            if paths and (found := re.search(MACHINE, text)):
                return f"it names a folder of this machine ({found.group().decode(errors='replace')})"
            before, block = block, file.read(BLOCK)
    if paths and path.suffix == ".json" and path.name not in VOCABULARIES:
        return local_value(path)
    return None


def local_value(path: Path) -> str | None:
    """What speaks against a JSON file with a path of this machine among its values, or that is no JSON at all."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return "no JSON"
    values = [("", found)]
    while values:
        key, value = values.pop()
        if isinstance(value, dict):
            values += value.items()
        elif isinstance(value, list):
            values += [(key, part) for part in value]
        elif isinstance(value, str) and LOCAL.fullmatch(value):
            return f"its {key or 'value'} is a path of this machine ({value[:80]})"
    return None


def listing(folder: Path, files: list[Path]) -> str:
    """The files with their sizes, one a line, and the sum."""
    rows = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {size:>15,} bytes" for name, size in rows]
    return "\n".join([*lines, f"  {'all':<{width}}  {sum(size for _, size in rows):>15,} bytes"])
