"""Learning curves as a list of rows: {"stage", "step", "seconds", "loss", "eval_loss", "eval_..._accuracy"}.

    rows = read_learning_curves("run")        # run/learning_curves.csv, or each stage's trainer_state.json
    rows = curve_rows("stage 2", trainer.state.log_history)

A row holds what was logged at that step; nothing is made up for what was not.
"""

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path

from rnagpt_core.errors import UserError
from rnagpt_core.files import new_file
from rnagpt_core.json_lines import read_json_lines


def curve_rows(stage: str, log_history: Iterable[dict]) -> list[dict]:
    """Rows of one stage from a Trainer's `log_history`; what has no step, or neither loss nor accuracy, is left out.

    >>> curve_rows("stage 1", [{"step": 5, "loss": "2.5", "epoch": 1.0}, {"step": 5, "train_runtime": 9.0}])
    [{'stage': 'stage 1', 'step': 5.0, 'loss': 2.5}]
    """
    rows = []
    for entry in log_history:
        row = {
            name: number
            for name, value in entry.items()
            if (name in ("step", "seconds", "loss") or name.startswith("eval_"))
            and (number := _number(value)) is not None
        }
        if "step" in row and ("loss" in row or any(name.startswith("eval_") for name in row)):
            rows.append({"stage": stage} | row)
    return rows


def _number(value: object) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def read_learning_curves(run_dir: str | Path) -> list[dict]:
    """The curves of a run folder; an empty list where the run left none.

    Looked for in this order: learning_curves.csv (a header of the row's names), then */trainer_state.json and
    */checkpoint-*/trainer_state.json, where the folder's name is the stage and the last checkpoint counts.
    """
    run_dir = Path(run_dir)
    table = run_dir / "learning_curves.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and not {"stage", "step"} <= set(rows[0]):
            raise UserError(f"{table} must have the columns stage and step, and has {', '.join(rows[0])}")
        return [row for entry in rows for row in curve_rows(entry["stage"], [entry])]
    rows = []
    for folder in sorted(path for path in run_dir.glob("*") if path.is_dir()):
        states = [
            _trainer_state(path)
            for path in [*folder.glob("trainer_state.json"), *folder.glob("checkpoint-*/trainer_state.json")]
        ]
        if states:
            latest = max(states, key=lambda state: state.get("global_step", 0))
            rows += curve_rows(folder.name, latest.get("log_history", []))
    return rows


def _trainer_state(path: Path) -> dict:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} must hold one JSON object, as the Trainer writes it")
    return state


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
    names = ["stage", "step", "seconds", "loss", "eval_true_loss", "eval_swapped_loss"]
    with new_file(path) as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
