"""A training recipe: one small YAML per run, every key checked before anything loads.

recipe = load_recipe("recipes/quickstart_stage2.yaml")
"""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from rnagpt_core.errors import UserError

# arguments of trl.SFTConfig that follow from other keys, or from how the rows are made
SET_BY_RNAGPT = {
    "output_dir": "give the recipe key `output`",
    "seed": "give the recipe key `seed`",
    "max_length": "a row is never cut",
    "packing": "give the recipe key `pack`",
    "padding_free": "give the recipe key `pack`",
    "remove_unused_columns": "the collator needs every column",
    "dataset_kwargs": "the collator renders the rows",
    "prediction_loss_only": "the loss is all that is kept while training",
    "completion_only_loss": "only answers are learned, always",
    "assistant_only_loss": "only answers are learned, always",
}


@dataclass(frozen=True)
class ModelRecipe:
    """What is built: see `rnagpt.checkpoints.checkpoint.build`; quantize is "4bit" or "8bit", for QLoRA."""

    llm: str
    encoder: str
    rna_pool_size: int = 1
    template: str = "llm"
    quantize: str | None = None
    projector_hidden_size: int | None = None


@dataclass(frozen=True)
class SourceRecipe:
    """A data set to train on: RNA-QA, or conversations without RNA that keep the LLM's own skill.

    path: a folder or a Hub id, as `datasets.load_dataset` takes it.
    config: its configuration; RNA-QA's "alignment" or "qa" by the stage when absent.
    split, validation_split: splits to train on and to measure the loss on; none is measured when the latter is absent.
    weight: how often its rows come up, relative to the other sources.
    text: rows are conversations, a column "messages" of {"role", "content"}, without RNA.
    streaming: read while training instead of at first; then `sft.max_steps` must say where to end.
    """

    path: str
    config: str | None = None
    split: str = "train"
    validation_split: str | None = None
    weight: float = 1.0
    text: bool = False
    streaming: bool = False


@dataclass(frozen=True)
class DataRecipe:
    """Which RNAs are seen, how often, with how many questions at a time.

    sources: data sets to train on, mixed by weight; the packaged table of RNA facts when there is none.
    visits: rows shown in all, each an RNA with its pairs, distinct RNAs first; when absent, every RNA of the table
        once, or every row of the sources.
    pairs_per_visit: questions per visit in the instruction stage, the type of the RNA always among them.
    type_balance: exponent on a type's share of the training RNAs; 1 keeps their frequencies, 0 shows all types alike.
    scored_share: share of the visits that go to the types that the evaluation scores; absent: by type_balance.
    validation_rnas: RNAs of the validation split that the loss is measured on while training.
    """

    visits: int | None = None
    sources: list[SourceRecipe] = field(default_factory=list)
    pairs_per_visit: int = 3
    type_balance: float = 0.3
    scored_share: float | None = None
    validation_rnas: int = 32


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    stage: "alignment" trains the projector on RNA -> annotation; "instruction" trains projector and LoRA on questions;
        "preference" goes on from an instruction stage by DPO, on right answers and answers that are right for another.
    start_from: folder of parts that the projector comes from (the earlier stage's output).
    projector_start: "random", or "ridge" (closed-form; alignment stage only).
    projector_lr_scale: the projector's learning rate as a multiple of `sft.learning_rate`.
    cache_features: run the encoder once for each RNA, before training, instead of at every step.
    features_folder: keep those outputs in this folder, at most features_gb of it, instead of in memory; runs with the
        same encoder share it.
    token_budget: about how many LLM tokens make a batch, instead of a fixed number of RNAs, which differ in length by
        a factor of fifty; `sft.per_device_train_batch_size` is then 1.
    early_stopping: evaluations without a lower loss on the true RNA after which the run ends.
    attention: of the LLM, "sdpa", or "flex" (FlexAttention; CUDA only), which needs no dense mask for long rows.
    share_prefix, pack, loss_per: see `processing_rnagpt.collator.SharedPrefixCollator`.
    save_dtype: dtype of what is written, "float32" or "float16".
    lora: arguments of `peft.LoraConfig` (r, lora_alpha, ...), instruction stage only.
    sft: arguments of `trl.SFTConfig`; of `trl.DPOConfig` in the preference stage (beta, loss_type, ...).
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
    attention: str = "sdpa"
    cache_features: bool = True
    features_folder: str | None = None
    features_gb: float = 100.0
    token_budget: int | None = None
    early_stopping: int | None = None
    loss_per: str = "question"
    save_dtype: str = "float32"
    lora: dict = field(default_factory=dict)

    def __post_init__(self):
        choices = {
            "stage": ("alignment", "instruction", "preference"),
            "projector_start": ("random", "ridge"),
            "loss_per": ("question", "token"),
            "attention": ("sdpa", "flex"),
            "save_dtype": ("float32", "float16"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UserError(f"recipe key {key} must be one of {', '.join(allowed)}, got {getattr(self, key)!r}")
        if self.model.rna_pool_size < 1:
            raise UserError(f"recipe key model.rna_pool_size must be at least 1, got {self.model.rna_pool_size}")
        hidden = self.model.projector_hidden_size
        if hidden is not None and (type(hidden) is not int or hidden < 1):
            raise UserError(f"recipe key model.projector_hidden_size must be at least 1 and whole, got {hidden!r}")
        rank = self.lora.get("r", 8)
        if type(rank) is not int or rank < 1:
            raise UserError(f"recipe key lora.r must be a whole number, at least 1, got {rank!r}")
        if self.model.quantize not in (None, "4bit", "8bit"):
            raise UserError(f"recipe key model.quantize must be 4bit or 8bit, got {self.model.quantize!r}")
        if self.stage == "alignment" and self.lora:
            raise UserError("recipe key lora is for the instruction stage: alignment trains the projector alone")
        if self.stage == "preference":
            wrong = [key for key in ("lora", "pack", "token_budget") if getattr(self, key)]
            if wrong or not self.start_from:
                raise UserError(
                    f"recipe key {wrong[0]} is not for the preference stage"
                    if wrong
                    else "recipe key start_from is missing: a preference stage goes on from an instruction stage"
                )
        if self.features_folder is not None and not self.cache_features:
            raise UserError("recipe key features_folder is for cache_features: true")
        if self.features_gb <= 0:
            raise UserError(f"recipe key features_gb must be above 0, got {self.features_gb}")
        if self.token_budget is not None and self.token_budget < 1:
            raise UserError(f"recipe key token_budget must be at least 1, got {self.token_budget}")
        if self.token_budget is not None and self.sft.get("per_device_train_batch_size", 1) != 1:
            raise UserError("recipe key token_budget makes the batches: leave sft.per_device_train_batch_size out")
        if self.token_budget is not None and any(source.streaming for source in self.data.sources):
            raise UserError("recipe key token_budget: a stream's rows are not known beforehand; leave it out")
        if self.early_stopping is not None and self.early_stopping < 1:
            raise UserError(f"recipe key early_stopping must be at least 1, got {self.early_stopping}")
        if self.stage != "alignment" and self.projector_start == "ridge":
            raise UserError("recipe key projector_start: ridge is for the alignment stage; use start_from instead")
        for key in ("visits", "pairs_per_visit"):
            if getattr(self.data, key) is not None and getattr(self.data, key) < 1:
                raise UserError(f"recipe key data.{key} must be at least 1, got {getattr(self.data, key)}")
        if any(source.weight <= 0 for source in self.data.sources):
            raise UserError("recipe key data.sources: every weight must be above 0")
        if any(source.streaming for source in self.data.sources) and not self.sft.get("max_steps"):
            raise UserError("recipe key data.sources: streaming needs sft.max_steps, or the run would have no end")
        if self.data.scored_share is not None and not 0 <= self.data.scored_share <= 1:
            raise UserError(f"recipe key data.scored_share must lie between 0 and 1, got {self.data.scored_share}")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrongly typed key, which is named.
    """
    return recipe_from(read_yaml(path, "recipes/quickstart_stage1.yaml"), f"{path}: ")


def read_yaml(path: str | Path, example: str):
    """Content of a recipe's file, not checked yet.

    Args:
        example: a recipe that ships, named where this one is missing.

    Raises:
        UserError: the file is missing, or is no YAML.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no recipe at {path}: expected a YAML file such as {example}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def recipe_from(content: dict, where: str = "") -> Recipe:
    """A recipe from its keys and values; what is absent takes its default. A UserError begins by `where`."""
    return _typed(Recipe, content, where)


def changed_keys(recipe: Recipe, recorded: dict) -> list[str]:
    """Keys in which a recipe differs from one on record; where it writes, and from where it starts, do not count."""
    # by way of a recipe, so that a key which is newer than the record takes its default
    done, wanted = dataclasses.asdict(recipe_from(recorded)), dataclasses.asdict(recipe)
    return [key for key in wanted if done[key] != wanted[key] and key not in ("output", "start_from")]


def check_sft(sft: dict, stage: str = "instruction") -> None:
    """Refuse arguments that the trainer of the stage does not have, or not of this type, or that are not for a recipe.

    Raises:
        UserError: names the key.
    """
    from trl import DPOConfig, SFTConfig

    config = DPOConfig if stage == "preference" else SFTConfig
    hints = typing.get_type_hints(config)
    for key, value in sft.items():
        where = f"recipe key sft.{key}"
        if key in SET_BY_RNAGPT:
            raise UserError(f"{where} is not for a recipe: {SET_BY_RNAGPT[key]}")
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UserError(f"{where} is no argument of trl.{config.__name__}{hint}")
        allowed = typing.get_args(hints[key]) or (hints[key],)
        kinds = tuple(typing.get_origin(kind) or kind for kind in allowed)
        kinds += (int,) if float in kinds else ()
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join("nothing" if kind is types.NoneType else kind.__name__ for kind in kinds)
            number = float in kinds and isinstance(value, str)
            hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if number else ""
            raise UserError(f"{where} must be {expected}, got {value!r}{hint}")


def _typed(cls, content, where: str):
    if not isinstance(content, dict):
        raise UserError(f"{where}expected keys and values, got {type(content).__name__}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f": did you mean {near[0]}?" if near else f"; known keys are {', '.join(known)}"
            raise UserError(f"{where}unknown key {key!r}{hint}")
    for name, f in known.items():
        if name not in content and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}key {name!r} is missing")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, f"{where}key {key!r}") for key, value in content.items()})


def _value(hint, value, where: str):
    if dataclasses.is_dataclass(hint):
        return _typed(hint, value, f"{where}: ")
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise UserError(f"{where} must be a list, got {value!r}")
        (inner,) = typing.get_args(hint)
        return [_value(inner, item, f"{where}, entry {number}") for number, item in enumerate(value, start=1)]
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        value = float(value)
    if type(value) not in allowed:
        expected = " or ".join("nothing" if t is types.NoneType else t.__name__ for t in allowed)
        raise UserError(f"{where} must be {expected}, got {value!r}")
    return value
