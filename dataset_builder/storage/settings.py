"""What a build is made with. Kept in the work folder as settings.json, so that every process and every restart reads
the same; what changes the rows (not how fast they come) must not change between restarts."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from dataset_builder.literature.annotation import METHODS, Limits
from dataset_builder.llm.call_cache import Budget, Ledger, Prices
from rnagpt_core.errors import UserError


@dataclass(frozen=True)
class ModelSettings:
    """The language model. kind: "endpoint" (an OpenAI-compatible base URL) or "local" (a transformers folder).

    batch: requests that a local model answers together. batch_api: send calls to the endpoint's Batch API and look
    for answers every `batch_seconds`. key_variable: the environment variable that holds the API key; the key itself
    is stored nowhere.
    """

    kind: str
    name: str
    url: str = ""
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    concurrency: int = 16
    batch: int = 8
    batch_api: bool = False
    batch_seconds: float = 30.0
    prices: Prices = Prices()

    def backend(self):
        from dataset_builder.llm.language_model import EndpointBackend

        return EndpointBackend(self.url, self.name, os.environ.get(self.key_variable), self.timeout)


@dataclass(frozen=True)
class BuildSettings:
    """One build. `unchangeable` names what a restart must find as it was.

    most_of_one_answer: largest share of yes (or no) among the published yes-or-no questions of a split and method.
    """

    model: ModelSettings
    source: str = ""
    methods: tuple[str, ...] = ("divide_and_conquer",)
    limits: Limits = Limits()
    budget: Budget = Budget()
    seed: int = 0
    max_length: int = 1024
    cap_papers: int = 500
    topics: str = "rule"
    held_out_share: float = 0.05
    drop_named: bool = False
    most_of_one_answer: float = 0.6
    release: str = ""
    executor: str = "local"
    workers: int = 1
    units_per_rank: int = 1000
    cluster: dict = field(default_factory=dict)

    # from the collection on; and from the first call on
    unchangeable = (
        "source",
        "seed",
        "max_length",
        "cap_papers",
        "topics",
        "held_out_share",
        "units_per_rank",
        "release",
    )
    unchangeable_with_calls = ("methods", "limits")

    def __post_init__(self):
        unknown = set(self.methods) - set(METHODS)
        if unknown or not self.methods:
            raise UserError(f"methods are {', '.join(METHODS)}; got {', '.join(self.methods) or 'none'}")
        if self.executor not in ("local", "slurm", "ray"):
            raise UserError(f"executor is local, slurm or ray, got {self.executor}")
        if not 0 <= self.held_out_share < 0.5:
            raise UserError(f"the held-out share must lie between 0 and 0.5, got {self.held_out_share}")
        if not 0.5 <= self.most_of_one_answer <= 1:
            raise UserError(
                "the largest share of one answer among yes-or-no questions must lie between 0.5 and 1 (all are kept), "
                f"got {self.most_of_one_answer}"
            )
        if self.topics not in ("rule", "coherence") and not (self.topics.isdigit() and int(self.topics) > 0):
            raise UserError(f"topics are rule, coherence or a number of them, got {self.topics}")
        for name, number, least in (
            ("papers per RNA", self.cap_papers, 1),
            ("the longest RNA", self.max_length, 1),
            ("workers", self.workers, 1),
            ("calls at a time", self.model.concurrency, 1),
            ("seconds for a call", self.model.timeout, 1),
            ("repairs", self.limits.repairs, 0),
            ("prompt tokens", self.limits.prompt_tokens, 100),
            ("answer tokens", self.limits.answer_tokens, 50),
            ("the budget in USD", self.budget.usd, 0),
            ("the budget in tokens", self.budget.tokens, 1),
            ("the price of prompts", self.model.prices.prompt, 0),
            ("the price of answers", self.model.prices.answer, 0),
        ):
            if number is not None and not number >= least:  # so that NaN is refused, too
                raise UserError(f"{name} must be at least {least}, got {number}")

    def ledger(self, work: Path, rank: int | None = None, ranks: int = 1) -> Ledger:
        """The account of calls: one file on one machine, one file per rank on a cluster."""
        folder = work / "calls"
        if rank is None or self.executor == "local":
            return Ledger(folder / "calls.sqlite", self.budget, tuple(sorted(folder.glob("rank-*.sqlite"))))
        own = folder / f"rank-{rank:05d}.sqlite"
        return Ledger(own, self.budget.divided(ranks), tuple(sorted(folder.glob("*.sqlite"))), wal=False)


def save(settings: BuildSettings, work: Path, calls: bool = False) -> None:
    """Write settings.json, or check that a restart asks for the same. Before there are `calls`, as after a plan,
    another language model and other limits can be chosen.

    Raises:
        UserError: a setting that decides the rows is another one than the folder was begun with.
    """
    path = work / "settings.json"
    now = json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        before = json.loads(path.read_text())
        fixed = settings.unchangeable + (settings.unchangeable_with_calls if calls else ())
        changed = [key for key in fixed if before.get(key) != now[key]]
        changed += ["model"] if calls and before["model"]["name"] != now["model"]["name"] else []
        if changed:
            was = ", ".join(told(key, before.get(key), now[key]) for key in changed if key != "model")
            raise UserError(
                f"{work} was begun with other settings ({was or 'model ' + before['model']['name']}): use the same, "
                "or another output folder"
            )
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(now, indent=1))
    part.rename(path)


def told(key: str, before, now) -> str:
    """A setting as it was; of several under one key those that are another now.

    >>> told("limits", {"repairs": 2, "small": False}, {"repairs": 3, "small": False})
    'repairs 2'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return ", ".join(f"{name} {value}" for name, value in before.items() if now.get(name) != value)
    return f"{key} {before}"


def load(work: Path) -> BuildSettings:
    row = json.loads((work / "settings.json").read_text())
    model = ModelSettings(**{**row.pop("model"), "prices": Prices(**row_prices(work))})
    return BuildSettings(
        model=model,
        methods=tuple(row.pop("methods")),
        limits=Limits(**row.pop("limits")),
        budget=Budget(**row.pop("budget")),
        **row,
    )


def row_prices(work: Path) -> dict:
    return json.loads((work / "settings.json").read_text())["model"]["prices"]
