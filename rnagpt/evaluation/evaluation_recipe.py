"""What an evaluation compares and measures: one small YAML, every key checked before anything loads.

recipe = load_evaluation("recipes/evaluate_facts.yaml")
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from dataset_builder.facts_table.facts import SPLITS
from rnagpt.evaluation.asking.controls import CONTROLS
from rnagpt.evaluation.scoring.text_encoders import PRESETS, TextEncoder
from rnagpt_core.errors import UserError
from rnagpt_core.typed_yaml import checked as _typed
from rnagpt_core.typed_yaml import read_yaml

FACTS = "facts"
FLOOR_NAMES = ("majority", "question_only", "length_only", "kmer_length", "nearest_train", "nearest_identity")
KINDS = ("rna", "llm_text", "endpoint", "file")


@dataclass(frozen=True)
class DataPart:
    """The held-out questions.

    source: "facts" (the packaged RNA facts), or RNA-QA: a folder of train and test files (see `qa_items.read_qa`).
    rnas: how many RNAs of the split; of each type for facts; absent: 26 of each type, or all.
    train: where the training split is, if it is not in `source`; floors and the check for leaks need it.
    """

    source: str
    split: str = "test"
    rnas: int | None = None
    closed_per_rna: int = 1
    train: str | None = None


@dataclass(frozen=True)
class SystemPart:
    """One system.

    name: its key in every table; stage2, stage1 and llm_text are the paper's three.
    kind: "rna" (a checkpoint that reads the RNA), "llm_text" (an LLM, or a checkpoint's LLM, that reads the letters),
        "endpoint" (OpenAI's chat API; letters as text) or "file" (JSON lines of rna_id, question, answer).
    model: a checkpoint ("demo" is the one that ships), an LLM (see `rnagpt.checkpoints.llm.load_llm`), the endpoint's
        name of a model, or the file.
    controls: of "swapped", "swapped_same", "shuffled" and "no_rna".
    usd_per_million_in, usd_per_million_out: an endpoint's prices per million tokens.
    """

    name: str
    kind: str
    model: str
    controls: list = field(default_factory=list)
    likelihood: bool = True
    batch_size: int = 32
    max_new_tokens: int = 128
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    usd_per_million_in: float = 0.0
    usd_per_million_out: float = 0.0


@dataclass(frozen=True)
class JudgePart:
    """An LLM as judge behind OpenAI's chat API, by a full name that does not move."""

    model: str
    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    parallel: int = 8


@dataclass(frozen=True)
class EvaluationRecipe:
    """One evaluation. encoders: presets (bert, pubmedbert, openai, minilm) or the fields of `TextEncoder`.
    sentence_mode: also match the sentences of long answers. usd_limit: more than this is not spent."""

    data: DataPart
    systems: list
    floors: bool = True
    encoders: list = field(default_factory=list)
    sentence_mode: bool = False
    judge: dict = field(default_factory=dict)
    usd_limit: float = 1.0
    seed: int = 0


def load_evaluation(path: str | Path) -> EvaluationRecipe:
    """Read and check a recipe; `systems`, `encoders` and `judge` become `SystemPart`s,
    `TextEncoder`s and a `JudgePart`.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrongly typed key, which is named.
    """
    content = read_yaml(path, "recipes/evaluate_facts.yaml")
    recipe = _typed(EvaluationRecipe, content, f"{path}: ")
    if recipe.data.rnas is not None and recipe.data.rnas < 1:
        raise UserError(f"{path}: key 'data': rnas must be at least 1 (leave it out for all), got {recipe.data.rnas}")
    if recipe.data.closed_per_rna < 1:
        raise UserError(f"{path}: key 'data': closed_per_rna must be at least 1, got {recipe.data.closed_per_rna}")
    if not recipe.systems and not recipe.floors:
        raise UserError(f"{path}: without systems and floors there is nothing to ask: name a system")
    if recipe.data.source == FACTS and recipe.data.split not in SPLITS:
        raise UserError(f"{path}: key 'data': split must be one of {', '.join(SPLITS)}, got {recipe.data.split!r}")
    if not recipe.usd_limit >= 0:
        raise UserError(f"{path}: key 'usd_limit' must be at least 0, got {recipe.usd_limit}")
    systems = [_system(entry, f"{path}: system {number}: ") for number, entry in enumerate(recipe.systems, start=1)]
    names = [system.name for system in systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two systems are named {twice[0]!r}: each needs a name of its own")
    for part in systems:
        _own_keys(part, systems, path)
    encoders = [
        _encoder(entry, f"{path}: encoder {number}: ") for number, entry in enumerate(recipe.encoders, start=1)
    ]
    judge = _typed(JudgePart, recipe.judge, f"{path}: judge: ") if recipe.judge else {}
    return dataclasses.replace(recipe, systems=systems, encoders=encoders, judge=judge)


def _system(entry, where: str) -> SystemPart:
    part = _typed(SystemPart, entry, where)
    if part.kind not in KINDS:
        raise UserError(f"{where}kind must be one of {', '.join(KINDS)}, got {part.kind!r}")
    if not part.name.strip() or not part.name.isprintable():
        raise UserError(f"{where}name must be a text that can be printed on one line, got {part.name!r}")
    wrong = [control for control in part.controls if control not in CONTROLS]
    if wrong:
        raise UserError(f"{where}unknown control {wrong[0]!r}; controls are {', '.join(CONTROLS)}")
    if part.kind == "file" and part.controls:
        raise UserError(f"{where}a file of answers has no controls: it was made with the true RNAs")
    for key in ("batch_size", "max_new_tokens"):
        if getattr(part, key) < 1:
            raise UserError(f"{where}{key} must be at least 1, got {getattr(part, key)}")
    for key in ("usd_per_million_in", "usd_per_million_out"):
        if not getattr(part, key) >= 0:
            raise UserError(f"{where}{key} must be at least 0, got {getattr(part, key)}")
    if part.kind == "file" and not Path(part.model).is_file():
        raise UserError(
            f"{where}no file at {part.model}: expected JSON lines of rna_id, question and answer, one per question"
        )
    if part.kind == "endpoint" and not part.base_url:
        raise UserError(f"{where}an endpoint needs its base_url, such as https://api.openai.com/v1")
    return part


def _own_keys(part: SystemPart, systems: list, path) -> None:
    """UserError where a system has the name of a floor, or of another system under a control: one of the two would
    pass for the other's answers."""
    if part.name in FLOOR_NAMES:
        raise UserError(f"{path}: no system can be named {part.name!r}: the floors have that name")
    for other in systems:
        if part.name in (f"{other.name}_{control}" for control in other.controls):
            raise UserError(
                f"{path}: no system can be named {part.name!r}: it is what {other.name} is called under a control"
            )


def _encoder(entry, where: str) -> TextEncoder:
    if isinstance(entry, str):
        if entry not in PRESETS:
            raise UserError(f"{where}no preset is named {entry!r}; presets are {', '.join(PRESETS)}")
        return PRESETS[entry]
    return _typed(TextEncoder, entry, where)
