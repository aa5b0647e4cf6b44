"""What an evaluation compares and measures: one small YAML, every key checked before anything loads.

recipe = load_evaluation("recipes/evaluate_facts.yaml")
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from dataset_builder.facts_table.facts import SPLITS
from rnagpt.evaluation.asking.controls import CONTROLS
from rnagpt.evaluation.scoring.text_encoders import PRESETS, TextEncoder
from rnagpt_core.typed_yaml import read_settings, settings

FACTS = "facts"
BASELINES = ("majority", "question_only", "length_only", "kmer_length", "nearest_train", "nearest_identity")

Count = Annotated[int, Field(ge=1)]
Usd = Annotated[float, Field(ge=0)]


@settings
class DataPart:
    """The held-out questions.

    source: "facts" (the packaged RNA facts), or RNA-QA: a folder of train and test files (see `qa_items.read_qa`).
    rnas: how many RNAs of the split; of each type for facts; absent: 26 of each type, or all.
    train: where the training split is, if it is not in `source`; baselines and the check for leaks need it.
    """

    source: str
    split: str = "test"
    rnas: Count | None = None
    closed_per_rna: Count = 1
    train: str | None = None

    def __post_init__(self):
        if self.source == FACTS and self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")


@settings
class SystemPart:
    """One system.

    name: its key in every table; stage2, stage1 and llm_text are the paper's three.
    kind: "rna" (a checkpoint that reads the RNA), "llm_text" (an LLM, or a checkpoint's LLM, that reads the letters),
        "endpoint" (OpenAI's chat API; letters as text) or "file" (JSON lines of rna_id, question, answer).
    model: a checkpoint ("demo" is the one that ships), an LLM (see `rnagpt.checkpoints.llm.load_llm`), the endpoint's
        name of a model, or the file.
    controls: of "swapped", "swapped_same", "shuffled" and "no_rna".
    trust_remote_code: run the Python code that a checkpoint's encoder brings.
    usd_per_million_in, usd_per_million_out: an endpoint's prices per million tokens.
    """

    name: str
    kind: Literal["rna", "llm_text", "endpoint", "file"]
    model: str
    controls: list[Literal[CONTROLS]] = field(default_factory=list)
    likelihood: bool = True
    batch_size: Count = 32
    max_new_tokens: Count = 128
    trust_remote_code: bool = False
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    usd_per_million_in: Usd = 0.0
    usd_per_million_out: Usd = 0.0

    def __post_init__(self):
        if not self.name.strip() or not self.name.isprintable():
            raise ValueError(f"name must be a text that can be printed on one line, got {self.name!r}")
        if self.name in BASELINES:
            raise ValueError(f"no system can be named {self.name!r}: the baselines have that name")
        if self.kind == "file" and self.controls:
            raise ValueError("a file of answers has no controls: it was made with the true RNAs")
        if self.kind == "endpoint" and not self.base_url:
            raise ValueError("an endpoint needs its base_url, such as https://api.openai.com/v1")
        if self.kind == "file" and not Path(self.model).is_file():
            raise ValueError(
                f"no file at {self.model}: expected JSON lines of rna_id, question and answer, one per question"
            )

    def key(self, control: str = "true") -> str:
        """What the system is called in every table, with the true RNA or under a control."""
        return self.name if control == "true" else f"{self.name}_{control}"

    @property
    def is_loaded(self) -> bool:
        """Whether it is a model on this machine: its likelihoods can be asked for."""
        return self.kind in ("rna", "llm_text")


@settings
class JudgePart:
    """An LLM as judge behind OpenAI's chat API, by a full name that does not move."""

    model: str
    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    parallel: Count = 8


def encoder_of(entry):
    """A preset's name -> its `TextEncoder`; anything else as it came."""
    if isinstance(entry, str) and entry not in PRESETS:
        raise ValueError(f"no preset is named {entry!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[entry] if isinstance(entry, str) else entry


@settings
class EvaluationRecipe:
    """One evaluation. encoders: presets (bert, pubmedbert, openai, minilm) or the fields of `TextEncoder`.
    sentence_mode: also match the sentences of long answers. usd_limit: more than this is not spent."""

    data: DataPart
    systems: list[SystemPart]
    baselines: bool = True
    encoders: list[Annotated[TextEncoder, BeforeValidator(encoder_of)]] = field(default_factory=list)
    sentence_mode: bool = False
    judge: Annotated[JudgePart | None, BeforeValidator(lambda part: part or None)] = None
    usd_limit: Usd = 1.0
    seed: int = 0

    def __post_init__(self):
        if not self.systems and not self.baselines:
            raise ValueError("without systems and baselines there is nothing to ask: name a system")
        names = [part.name for part in self.systems]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two systems are named {twice[0]!r}: each needs a name of its own")
        for part in self.systems:
            for control in part.controls:
                if part.key(control) in names:
                    raise ValueError(
                        f"no system can be named {part.key(control)!r}: it is what {part.name} is called under a "
                        "control"
                    )


def load_evaluation(path: str | Path) -> EvaluationRecipe:
    """Read and check a recipe.

    Raises:
        UserError: the file is missing, is no YAML, or has an unknown, missing or wrong key, which is named.
    """
    return read_settings(EvaluationRecipe, path, "recipes/evaluate_facts.yaml", {"floors": "baselines"})
