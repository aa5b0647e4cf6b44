"""Learning curves as a list of rows: {"stage", "step", "seconds", "loss", "eval_loss", "eval_true_loss", ...}.

    rows = read_learning_curves("run")        # run/learning_curves.csv, or each stage's curve.jsonl

A row holds what was logged at that step; nothing is made up for what was not.
"""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from rnagpt_core.errors import UserError
from rnagpt_core.files import new_file
from rnagpt_core.json_lines import read_json_lines

COLUMNS = ["stage", "step", "seconds", "loss", "eval_true_loss", "eval_swapped_loss"]


def read_learning_curves(run_dir: str | Path) -> list[dict]:
    """The curves of a run folder: learning_curves.csv, else the curve.jsonl of its stages; [] where there is neither.

    A field that is empty or no finite number is left out. UserError where the CSV lacks stage or step.
    """
    run_dir = Path(run_dir)
    table = run_dir / "learning_curves.csv"
    if not table.is_file():
        return joined_curve(sorted(path.parent for path in run_dir.glob("*/curve.jsonl")))
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"stage", "step"} <= set(rows[0]):
        raise UserError(f"{table} must have the columns stage and step, and has {', '.join(rows[0])}")
    return [
        {"stage": row["stage"]}
        | {name: number for name, text in row.items() if name != "stage" and (number := _number(text)) is not None}
        for row in rows
    ]


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def joined_curve(stages: Iterable[Path]) -> list[dict]:
    """The curves of all stages' folders; where an instruction stage goes on from another, so do steps and seconds."""
    rows: list[dict] = []
    for folder in stages:
        own = list(read_json_lines(folder / "curve.jsonl", "a row of a learning curve"))
        last = rows[-1] if rows and own and rows[-1]["stage"] == own[0]["stage"] else {"step": 0, "seconds": 0.0}
        rows += [
            {**row, "step": row["step"] + last["step"], "seconds": round(row["seconds"] + last["seconds"], 1)}
            for row in own
        ]
    return rows


def write_csv(path: Path, rows: Iterable[dict]) -> None:
    """The loss columns of a learning curve as CSV, an empty field where a step logged none."""
    with new_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
