"""Numbers that need a model to compute, kept beside the answers: similarities and likelihoods, one JSON line each.

    with MeasureWriter("run/evaluation/scores.jsonl") as writer:
        if not writer.done("stage2", item.key, ["rougeL"]):
            writer.write("stage2", item.key, {"rougeL": [0.5, 0.4, 0.44]})

From these and items.jsonl every figure is computed again without a model. A key is an item's, or (rna_id, "", "",
method) for what belongs to all answers about one RNA.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rnagpt_core.json_lines import JsonLines, read_json_lines

Key = tuple[str, str, str, str]
Measures = dict[str, dict[Key, dict]]
COLUMNS = ("system", "rna_id", "topic", "question", "method")


def rna_key(rna_id: str, method: str = "") -> Key:
    """The key of what belongs to all answers about one RNA."""
    return rna_id, "", "", method


def read_measures(path: str | Path) -> Measures:
    """System -> key -> {name: value}; empty where the file is missing. A half-written last line is left out."""
    return _by_key(read_json_lines(path, "a measure", _parse)) if Path(path).is_file() else {}


def _parse(row: dict) -> tuple[str, Key, dict]:
    system, *key = (row[name] for name in COLUMNS)
    return system, tuple(key), dict(row["values"])


def _by_key(rows: Iterable[tuple[str, Key, dict]]) -> Measures:
    measures: Measures = {}
    for system, key, values in rows:
        measures.setdefault(system, {}).setdefault(key, {}).update(values)
    return measures


class MeasureWriter(JsonLines):
    """Appends measures to a JSONL file; opened again, it keeps what is there. One process writes at a time."""

    def __init__(self, path: str | Path):
        super().__init__(path, "a measure")
        self.measures = _by_key(self.rows(_parse))

    def done(self, system: str, key: Key, names: Sequence[str]) -> bool:
        """Whether all these values of this system's answer are in the file."""
        return set(names) <= self.measures.get(system, {}).get(key, {}).keys()

    def write(self, system: str, key: Key, values: Mapping) -> None:
        """Append; values of the same names replace earlier ones."""
        super().write(dict(zip(COLUMNS, (system, *key), strict=True)) | {"values": dict(values)})
        self.measures.setdefault(system, {}).setdefault(key, {}).update(values)
