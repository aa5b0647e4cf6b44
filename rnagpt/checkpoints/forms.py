"""What the folders of RNA-GPT are called and hold: all that can be told of a checkpoint before torch is imported.

whole      config.json, model.safetensors, processor, code and card: AutoModelForCausalLM loads it anywhere
projector  the same with the projector's weights alone (5 MB for Llama-3-8B); from_pretrained fetches LLM and
           encoder from the Hub ids or folders in its config.json (weights_from)
adapter    a PEFT adapter with projector, and the processor; from_pretrained fetches the RNA-GPT it belongs to
parts      parts.json and a projector or adapter: what training writes; joined to LLM and encoder on load
"""

import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from rnagpt_core.errors import UserError

PARTS = "parts.json"
PROJECTOR = "projector.safetensors"
ADAPTER = "adapter_model.safetensors"  # PEFT's name, as is adapter_config.json
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PACKAGED_ENCODER = "packaged"


def assets() -> Path:
    """Folder of what ships inside the package: encoder/ and demo/."""
    return Path(str(resources.files("rnagpt"))) / "assets"


@dataclass(frozen=True)
class Description:
    """What the files of a checkpoint tell of it.

    Attributes:
        form: one of the four above, or "hub" for what can only be a Hub id, of which nothing more is known here.
        built_from: names of "llm" and "encoder", as far as they are told.
        base: of an adapter, the RNA-GPT that it belongs to.
        parts: content of parts.json.
        own_code: the encoder's class is no part of transformers.
    """

    form: str
    built_from: dict = field(default_factory=dict)
    base: str = ""
    parts: dict = field(default_factory=dict)
    own_code: bool = False


def describe(path: str | Path) -> Description:
    """Which form of a checkpoint `path` is, and what it was built from.

    Raises:
        UserError: nothing is there, it is of no form or incomplete; says what was expected.
    """
    folder = Path(path)
    if not folder.exists():
        # "runs/stage2" has the form of a Hub id; where there is a folder "runs", a folder is meant
        if len(folder.parts) == 2 and not folder.parent.is_dir():
            return Description("hub")
        raise UserError(f"no checkpoint at {path}: give a folder written by RNA-GPT's training, or a Hub id")
    refuse_pointers(folder)
    if (folder / PARTS).is_file():
        if not any((folder / name).is_file() for name in (PROJECTOR, ADAPTER)):
            raise UserError(f"{path} holds {PARTS} but no weights ({PROJECTOR} or {ADAPTER}): it is incomplete")
        parts = _read(folder / PARTS)
        build = parts.get("build", {})
        return Description("parts", build, parts=parts, own_code=bool(build.get("trust_remote_code")))
    config = _read(folder / "config.json")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        base = _read(folder / "adapter_config.json").get("base_model_name_or_path")
        if not base:
            raise UserError(
                f"{path} holds an adapter and no {PARTS}, and does not say which RNA-GPT it belongs to "
                "(base_model_name_or_path): give the folder that the training stage wrote at its end"
            )
        return Description("adapter", base=base)
    if config.get("model_type") != "rnagpt":
        inside = sorted(child.name for child in folder.iterdir() if is_checkpoint(child)) if folder.is_dir() else []
        hint = f"; there is one inside: {folder / inside[0]}" if inside else ""
        raise UserError(
            f"{path} is no RNA-GPT checkpoint: expected a folder with {PARTS}, or with a config.json whose model_type "
            f"is 'rnagpt'{hint}"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise UserError(f"{path} holds a configuration but no weights ({WEIGHTS[0]}): it is incomplete")
    if config.get("weights_from"):
        return Description("projector", config["weights_from"])
    configs = {"llm": config.get("text_config", {}), "encoder": config.get("rna_config", {})}
    names = {part: values.get("_name_or_path") for part, values in configs.items()}
    return Description("whole", names, own_code="auto_map" in configs["encoder"])


def checkpoint_form(path: str | Path) -> str:
    """The form alone, see `describe`."""
    return describe(path).form


def _read(path: Path) -> dict:
    """A JSON object; {} where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def refuse_pointers(folder: Path) -> None:
    """UserError for files that git left out: a clone without git-lfs holds some lines about each in its place."""
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]):
        with open(path, "rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f"{path} is a git-lfs pointer, not the file: run `git lfs pull` in {folder}, or fetch it with "
                    "`hf download`"
                )


def is_checkpoint(path: Path) -> bool:
    """Whether a checkpoint of any form is there."""
    try:
        return path.is_dir() and checkpoint_form(path) != "hub"
    except UserError:
        return False
