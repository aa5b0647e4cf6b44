"""What a build is made with. Kept in the work folder as settings.json, so that every process and every restart reads
the same; what changes the rows (not how fast they come) must not change between restarts."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from dataset_builder.annotation import METHODS, Limits
from dataset_builder.calls import Budget, Ledger, Prices
from dataset_builder.errors import BuildError


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
        if self.kind == "endpoint":
            from dataset_builder.language_model import EndpointBackend

            return EndpointBackend(self.url, self.name, os.environ.get(self.key_variable), self.timeout)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from dataset_builder.local_model import LocalBackend

        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        model = AutoModelForCausalLM.from_pretrained(self.url, dtype=dtype).eval()
        if torch.cuda.is_available():
            model = model.cuda()
        return LocalBackend(model, AutoTokenizer.from_pretrained(self.url), self.name, self.batch)


@dataclass(frozen=True)
class BuildSettings:
    """One build. `unchangeable` names what a restart must find as it was."""

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
    release: str = ""
    executor: str = "local"
    workers: int = 1
    units_per_rank: int = 1000
    cluster: dict = field(default_factory=dict)

    unchangeable = (
        "source", "methods", "limits", "seed", "max_length", "cap_papers", "topics", "held_out_share",
        "units_per_rank", "release",
    )  # fmt: skip

    def __post_init__(self):
        unknown = set(self.methods) - set(METHODS)
        if unknown or not self.methods:
            raise BuildError(f"methods are {', '.join(METHODS)}; got {', '.join(self.methods) or 'none'}")
        if self.executor not in ("local", "slurm", "ray"):
            raise BuildError(f"executor is local, slurm or ray, got {self.executor}")
        if not 0 <= self.held_out_share < 0.5:
            raise BuildError(f"the held-out share must lie between 0 and 0.5, got {self.held_out_share}")

    def ledger(self, work: Path, rank: int | None = None, ranks: int = 1) -> Ledger:
        """The account of calls: one file on one machine, one file per rank on a cluster."""
        folder = work / "calls"
        if rank is None or self.executor == "local":
            return Ledger(folder / "calls.sqlite", self.budget, tuple(sorted(folder.glob("rank-*.sqlite"))))
        own = folder / f"rank-{rank:05d}.sqlite"
        return Ledger(own, self.budget.divided(ranks), tuple(sorted(folder.glob("*.sqlite"))), wal=False)


def save(settings: BuildSettings, work: Path) -> None:
    """Write settings.json, or check that a restart asks for the same.

    Raises:
        BuildError: a setting that decides the rows is another one than the folder was begun with.
    """
    path = work / "settings.json"
    now = json.loads(json.dumps(dataclasses.asdict(settings)))
    if path.exists():
        before = json.loads(path.read_text())
        changed = [key for key in settings.unchangeable if before.get(key) != now[key]]
        changed += ["model"] if before["model"]["name"] != now["model"]["name"] else []
        if changed:
            was = ", ".join(f"{key} {before.get(key)}" for key in changed if key != "model")
            raise BuildError(
                f"{work} was begun with other settings ({was or 'model ' + before['model']['name']}): use the same, "
                "or another output folder"
            )
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(now, indent=1))
    part.rename(path)


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
