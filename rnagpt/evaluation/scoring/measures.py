"""Numbers that need a model to compute, kept beside the answers: similarities and likelihoods, one JSON line each.

    with MeasureWriter("run/evaluation/scores.jsonl") as writer:
        if not writer.done("stage2", item.key):
            writer.write("stage2", item.key, {"rougeL": [0.5, 0.4, 0.44]})

From these and items.jsonl every figure is computed again without a model. A key is an item's, or (rna_id, "", "",
method) for what belongs to all answers about one RNA.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rnagpt_core.errors import UserError

Key = tuple[str, str, str, str]


def rna_key(rna_id: str, method: str = "") -> Key:
    """The key of what belongs to all answers about one RNA."""
    return rna_id, "", "", method


def read_measures(path: str | Path) -> dict[str, dict[Key, dict]]:
    """System -> key -> {name: value}; empty where the file is missing. A half-written last line is left out."""
    return _parse(Path(path))[0] if Path(path).is_file() else {}


def _parse(path: Path) -> tuple[dict[str, dict[Key, dict]], int]:
    measures: dict[str, dict[Key, dict]] = {}
    whole = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                key = (row["rna_id"], row["topic"], row["question"], row["method"])
                measures.setdefault(row["system"], {}).setdefault(key, {}).update(row["values"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"line {number} of {path} is no measure: {type(error).__name__}: {error}") from None
            whole += len(line)
    return measures, whole


class MeasureWriter:
    """Appends measures to a JSONL file; opened again, it keeps what is there. One process writes at a time."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.measures, whole = _parse(self.path) if self.path.exists() else ({}, 0)
        self._file = self.path.open("ab")
        self._file.truncate(whole)

    def done(self, system: str, key: Key, names: Sequence[str]) -> bool:
        """Whether all these values of this system's answer are in the file."""
        return set(names) <= self.measures.get(system, {}).get(key, {}).keys()

    def write(self, system: str, key: Key, values: Mapping) -> None:
        """Append; values of the same names replace earlier ones."""
        row = dict(zip(("system", "rna_id", "topic", "question", "method"), (system, *key), strict=True))
        self._file.write((json.dumps(row | {"values": dict(values)}, allow_nan=False) + "\n").encode("utf-8"))
        self._file.flush()
        self.measures.setdefault(system, {}).setdefault(key, {}).update(values)

    def __enter__(self) -> "MeasureWriter":
        return self

    def __exit__(self, *exc_info) -> None:
        self._file.close()
