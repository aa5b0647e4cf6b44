"""What a build is made with. Kept in the work folder as settings.json, so that every process and every restart reads
the same; what changes the rows (not how fast they come) must not change between restarts."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rnagpt_core.errors import UserError
from rnagpt_core.files import replace_text
from rnagpt_core.typed_yaml import checked, settings

NO_MODEL = "none"  # --llm none: sentences of the abstracts, and questions from curated statements
# what a restart must find as it was: from the collection on, and from the first annotation on
FIXED = ("source", "seed", "max_length", "cap_papers", "topics", "held_out_share", "sets_per_rank", "release")
FIXED_WITH_ANNOTATIONS = ("methods", "limits")
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]


@settings
class Prices:
    """USD for a million tokens; the defaults are GPT-4o-mini's, half of it in the Batch API."""

    prompt: NotNegative = 0.15
    answer: NotNegative = 0.60

    def usd(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1e6


@settings
class Budget:
    """What all runs in one work folder may spend together; None is no limit."""

    usd: NotNegative | None = None
    tokens: Positive | None = None

    def divided(self, parts: int) -> "Budget":
        return Budget(self.usd and self.usd / parts, self.tokens and max(1, self.tokens // parts))


UNLIMITED = Budget()


@settings
class Limits:
    """Tokens of the papers or statements of one call, and of its answer; times that an answer is sent back."""

    prompt_tokens: Annotated[int, Field(ge=100)] = 12_000
    answer_tokens: Annotated[int, Field(ge=50)] = 1_500
    repairs: Annotated[int, Field(ge=0)] = 2


@settings
class ModelSettings:
    """The language model behind an OpenAI-compatible base URL.

    timeout: seconds; concurrency: calls at a time; batch_api: send calls to the endpoint's Batch API and look for
    answers every `batch_seconds`. key_variable: the environment variable that holds the API key; the key itself is
    stored nowhere.
    """

    name: str
    url: str = ""
    key_variable: str = "OPENAI_API_KEY"
    timeout: Annotated[float, Field(ge=1)] = 120.0
    concurrency: Positive = 16
    batch_api: bool = False
    batch_seconds: float = 30.0
    prices: Prices = Prices()


@settings
class BuildSettings:
    """One build.

    most_of_one_answer: largest share of yes (or no) among the published yes-or-no questions of a split and method; 1
    keeps all.
    """

    model: ModelSettings
    source: str = ""
    methods: tuple[Literal["divide_and_conquer", "ais", "extractive"], ...] = ("divide_and_conquer",)
    limits: Limits = Limits()
    budget: Budget = UNLIMITED
    seed: int = 0
    max_length: Positive = 1024
    cap_papers: Positive = 500
    topics: str = "rule"
    held_out_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    drop_named: bool = False
    most_of_one_answer: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    release: str = ""
    executor: Literal["local", "slurm", "ray"] = "local"
    workers: Positive = 1
    sets_per_rank: Positive = 1000
    cluster: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(r"rule|coherence|[1-9]\d*", self.topics):
            raise ValueError(f"topics are rule, coherence or a number of them, got {self.topics}")
        if self.extractive != (self.methods == ("extractive",)):
            raise ValueError(f"the method extractive goes with --llm {NO_MODEL}, and the others with a language model")

    @property
    def extractive(self) -> bool:
        """True where no language model is asked."""
        return self.model.name == NO_MODEL

    @property
    def fewest_questions(self) -> int:
        """Of an annotation, else it has none."""
        return 1 if self.extractive else 5


def save(settings: BuildSettings, work: Path, annotated: bool = False) -> None:
    """Write settings.json, or check that a restart asks for the same. Before anything is `annotated`, as after a plan,
    another language model and other limits can be chosen.

    Raises:
        UserError: a setting that decides the rows is another one than the folder was begun with.
    """
    path = work / "settings.json"
    now = json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        before = read(path)
        fixed = FIXED + (FIXED_WITH_ANNOTATIONS if annotated else ())
        changed = [difference(key, before.get(key), now[key]) for key in fixed if before.get(key) != now[key]]
        if annotated and before["model"]["name"] != now["model"]["name"]:
            changed.append("model " + before["model"]["name"])
        if changed:
            raise UserError(
                f"{work} was begun with other settings ({', '.join(changed)}): use the same, or another output folder"
            )
    replace_text(path, json.dumps(now, indent=1))


def difference(key: str, before, now) -> str:
    """A setting as it was; of several under one key those that are another now.

    >>> difference("limits", {"repairs": 2, "prompt_tokens": 500}, {"repairs": 3, "prompt_tokens": 500})
    'repairs 2'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return ", ".join(f"{name} {value}" for name, value in before.items() if now.get(name) != value)
    return f"{key} {before}"


def load(work: Path) -> BuildSettings:
    return checked(BuildSettings, read(work / "settings.json"), f"{work / 'settings.json'}: ")


def read(path: Path) -> dict:
    """settings.json, of the release before this one as well.

    Raises:
        UserError: the folder was begun with the writer in process, which that release still had.
    """
    row = json.loads(path.read_text())
    if row["model"].pop("kind", "endpoint") != "endpoint":
        raise UserError(
            f"{path.parent} was begun with a language model in process, which is gone: give another output folder and "
            f"--endpoint of a server, or --llm {NO_MODEL}"
        )
    row["model"].pop("batch", None)
    row["limits"] = {key: row["limits"][key] for key in ("prompt_tokens", "answer_tokens", "repairs")}
    row["sets_per_rank"] = row.pop("units_per_rank", None) or row["sets_per_rank"]
    return row
