"""A training recipe: one small YAML per run, every key checked before anything loads.

    recipe = load_recipe("recipes/quickstart_stage2.yaml")
"""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from rnagpt.errors import UserError


@dataclass(frozen=True)
class ModelRecipe:
    """What is built: see `rnagpt.checkpoint.build`."""

    llm: str
    encoder: str
    rna_pool_size: int = 1
    template: str = "llm"


@dataclass(frozen=True)
class DataRecipe:
    """Which RNAs are seen, how often, with how many questions at a time.

    visits: how many times an RNA (with its pairs) is shown in all; distinct RNAs first.
    pairs_per_visit: questions per visit in the instruction stage, the type of the RNA always among them.
    type_balance: exponent on a type's share of the training RNAs; 1 keeps their frequencies, 0 shows all types alike.
    scored_share: share of the visits that go to the types that the evaluation scores; absent: by type_balance.
    validation_rnas: RNAs of the validation split that the loss is measured on while training.
    """

    visits: int
    pairs_per_visit: int = 3
    type_balance: float = 0.3
    scored_share: float | None = None
    validation_rnas: int = 32


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    stage: "alignment" trains the projector on RNA -> annotation; "instruction" trains projector and LoRA on questions.
    start_from: folder of parts that the projector comes from (the earlier stage's output).
    projector_start: "random", or "ridge" (closed-form; alignment stage only).
    projector_lr_scale: the projector's learning rate as a multiple of `sft.learning_rate`.
    share_prefix, pack, loss_per: see `processing_rnagpt.collator.SharedPrefixCollator`.
    save_dtype: dtype of what is written, "float32" or "float16".
    lora: arguments of `peft.LoraConfig` (r, lora_alpha, ...), instruction stage only.
    sft: arguments of `trl.SFTConfig`.
    """

    stage: str
    output: str
    model: ModelRecipe
    data: DataRecipe
    sft: dict
    seed: int = 0
    start_from: str | None = None
    projector_start: str = "random"
    ridge_gain: float = 1.0
    projector_lr_scale: float = 1.0
    share_prefix: bool = True
    pack: bool = False
    loss_per: str = "question"
    save_dtype: str = "float32"
    lora: dict = field(default_factory=dict)

    def __post_init__(self):
        choices = {
            "stage": ("alignment", "instruction"),
            "projector_start": ("random", "ridge"),
            "loss_per": ("question", "token"),
            "save_dtype": ("float32", "float16"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UserError(f"recipe key {key} must be one of {', '.join(allowed)}, got {getattr(self, key)!r}")
        if self.stage == "alignment" and self.lora:
            raise UserError("recipe key lora is for the instruction stage: alignment trains the projector alone")
        if self.stage == "instruction" and self.projector_start == "ridge":
            raise UserError("recipe key projector_start: ridge is for the alignment stage; use start_from instead")
        for key in ("visits", "pairs_per_visit"):
            if getattr(self.data, key) < 1:
                raise UserError(f"recipe key data.{key} must be at least 1, got {getattr(self.data, key)}")
        if self.data.scored_share is not None and not 0 <= self.data.scored_share <= 1:
            raise UserError(f"recipe key data.scored_share must lie between 0 and 1, got {self.data.scored_share}")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrongly typed key, which is named.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no recipe at {path}: expected a YAML file such as recipes/quickstart_stage1.yaml")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    return _typed(Recipe, content, f"{path}: ")


def _typed(cls, content, where: str):
    if not isinstance(content, dict):
        raise UserError(f"{where}expected keys and values, got {type(content).__name__}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in content:
        if key not in known:
            raise UserError(f"{where}unknown key {key!r}; known keys are {', '.join(known)}")
    for name, f in known.items():
        if name not in content and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}key {name!r} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, f"{where}key {key!r}") for key, value in content.items()})


def _value(hint, value, where: str):
    if dataclasses.is_dataclass(hint):
        return _typed(hint, value, f"{where}: ")
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        value = float(value)
    if type(value) not in allowed:
        expected = " or ".join("nothing" if t is types.NoneType else t.__name__ for t in allowed)
        raise UserError(f"{where} must be {expected}, got {value!r}")
    return value
