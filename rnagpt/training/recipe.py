"""A training recipe: one small YAML per run, every key checked before anything loads.

recipe = load_recipe("recipes/quickstart_stage2.yaml")
"""

import dataclasses
import difflib
import types
import typing
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rnagpt_core.errors import UserError
from rnagpt_core.typed_yaml import checked, read_yaml, settings

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
RENAMED = {"data.visits": "data.samples", "data.pairs_per_visit": "data.pairs_per_sample"}
# keys of earlier versions that are gone -> what they stood at when left out, and stand for now
GONE = {"ridge_gain": 1.0, "attention": "sdpa", "features_gb": 100.0, "loss_per": "question"}
GONE_OF_SOURCES = {"split": "train", "streaming": False}

AtLeast1 = Annotated[int, Field(ge=1)]


@settings
class ModelRecipe:
    """What is built: see `rnagpt.checkpoints.checkpoint.build`; quantize is for QLoRA, trust_remote_code for an
    encoder that brings its own Python code."""

    llm: str
    encoder: str
    rna_pool_size: AtLeast1 = 1
    template: str = "llm"
    quantize: Literal["4bit", "8bit"] | None = None
    projector_hidden_size: AtLeast1 | None = None
    trust_remote_code: bool = False


@settings
class SourceRecipe:
    """A data set to train on: RNA-QA, or conversations without RNA that keep the LLM's own skill.

    path: a folder or a Hub id, as `datasets.load_dataset` takes it.
    config: its configuration; RNA-QA's "alignment" or "qa" by the stage when absent.
    validation_split: the split to measure the loss on; none is measured when it is absent.
    weight: how often its rows come up, relative to the other sources.
    text: rows are conversations, a column "messages" of {"role", "content"}, without RNA.
    """

    path: str
    config: str | None = None
    validation_split: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    text: bool = False


@settings
class DataRecipe:
    """Which RNAs are seen, how often, with how many questions at a time.

    sources: data sets to train on, mixed by weight; the packaged table of RNA facts when there is none.
    samples: rows seen in all, each an RNA with its pairs, distinct RNAs first; when absent, every RNA of the table
        once, or every row of the sources.
    pairs_per_sample: questions in a row of the instruction stage, the type of the RNA always among them.
    type_balance: exponent on a type's share of the training RNAs; 1 keeps their frequencies, 0 makes all alike.
    scored_share: share of the rows that go to the types that the evaluation scores; absent: by type_balance.
    validation_rnas: RNAs of the validation split that the loss is measured on while training.
    """

    samples: AtLeast1 | None = None
    sources: list[SourceRecipe] = field(default_factory=list)
    pairs_per_sample: AtLeast1 = 3
    type_balance: float = 0.3
    scored_share: Annotated[float, Field(ge=0, le=1)] | None = None
    validation_rnas: int = 32


@settings
class Recipe:
    """One stage of training.

    stage: "alignment" trains the projector on RNA -> annotation; "instruction" trains projector and LoRA on questions;
        "preference" goes on from an instruction stage by DPO, on right answers and answers that are right for another.
    start_from: folder of parts that the projector comes from (the earlier stage's output).
    projector_start: "ridge" is closed-form, for the alignment stage only.
    projector_lr_scale: the projector's learning rate as a multiple of `sft.learning_rate`.
    share_prefix, pack: see `processing_rnagpt.collator.SharedPrefixCollator`.
    cache_features: run the encoder once for each RNA, before training, instead of at every step.
    features_folder: keep those outputs in this folder, at most 100 GB, instead of in memory; runs with the same
        encoder share it.
    token_budget: about how many LLM tokens make a batch, instead of a fixed number of RNAs, which differ in length by
        a factor of fifty; `sft.per_device_train_batch_size` is then 1.
    early_stopping: evaluations without a lower loss on the true RNA after which the run ends.
    save_dtype: dtype of what is written.
    lora: arguments of `peft.LoraConfig` (r, lora_alpha, ...), instruction stage only.
    sft: arguments of `trl.SFTConfig`; of `trl.DPOConfig` in the preference stage (beta, loss_type, ...).
    """

    stage: Literal["alignment", "instruction", "preference"]
    output: str
    model: ModelRecipe
    data: DataRecipe
    sft: dict
    seed: int = 0
    start_from: str | None = None
    projector_start: Literal["random", "ridge"] = "random"
    projector_lr_scale: float = 1.0
    share_prefix: bool = True
    pack: bool = False
    cache_features: bool = True
    features_folder: str | None = None
    token_budget: AtLeast1 | None = None
    early_stopping: AtLeast1 | None = None
    save_dtype: Literal["float32", "float16"] = "float32"
    lora: dict = field(default_factory=dict)

    def __post_init__(self):
        rank = self.lora.get("r", 8)
        if type(rank) is not int or rank < 1:
            raise ValueError(f"recipe key lora.r must be a whole number, at least 1, got {rank!r}")
        if self.stage == "alignment" and self.lora:
            raise ValueError("recipe key lora is for the instruction stage: alignment trains the projector alone")
        wrong = [key for key in ("lora", "pack", "token_budget") if self.stage == "preference" and getattr(self, key)]
        if wrong:
            raise ValueError(f"recipe key {wrong[0]} is not for the preference stage")
        if self.stage == "preference" and not self.start_from:
            raise ValueError("recipe key start_from is missing: a preference stage goes on from an instruction stage")
        if self.features_folder is not None and not self.cache_features:
            raise ValueError("recipe key features_folder is for cache_features: true")
        if self.token_budget is not None and self.sft.get("per_device_train_batch_size", 1) != 1:
            raise ValueError("recipe key token_budget makes the batches: leave sft.per_device_train_batch_size out")
        if self.stage != "alignment" and self.projector_start == "ridge":
            raise ValueError("recipe key projector_start: ridge is for the alignment stage; use start_from instead")
        if self.projector_start == "ridge" and not self.cache_features:
            raise ValueError("recipe key projector_start: ridge needs cache_features: true")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrong key, which is named.
    """
    return recipe_from(read_yaml(path, "recipes/quickstart_stage1.yaml"), f"{path}: ")


def recipe_from(content, where: str = "") -> Recipe:
    """A recipe from its keys and values, those of an earlier version too. A UserError begins by `where`."""
    if isinstance(content, dict):
        content = _without(content, GONE, where)
        data = content.get("data")
        if isinstance(data, dict) and isinstance(data.get("sources"), list):
            sources = [_without(source, GONE_OF_SOURCES, where) for source in data["sources"]]
            content = content | {"data": data | {"sources": sources}}
    return checked(Recipe, content, where, RENAMED)


def _without(content, gone: dict, where: str):
    """Keys and values without the keys that are gone; UserError where one asks for something else."""
    for key, value in gone.items() if isinstance(content, dict) else ():
        if content.get(key, value) != value:
            raise UserError(f"{where}key {key!r} is gone: it is always {value!r} now; leave it out")
    return {key: value for key, value in content.items() if key not in gone} if isinstance(content, dict) else content


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
