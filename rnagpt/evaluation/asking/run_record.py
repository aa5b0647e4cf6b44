"""evaluation.json in a run's folder: what was evaluated, and how far it has come."""

import json
from collections.abc import Mapping
from pathlib import Path

from rnagpt.evaluation.asking.systems import system
from rnagpt_core.errors import UserError

RECORD = "evaluation.json"


def read_record(run_dir: Path) -> dict:
    """What run_dir/evaluation.json says of an evaluation, or an empty dict where there is none; UserError where it is
    no such record."""
    path = run_dir / RECORD
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {"data", "seed", "systems", "encoders"} <= content.keys():
            return content
    except (ValueError, AttributeError):
        pass
    raise UserError(f"{path} is no record of an evaluation: give another folder")


def unfinished(run_dir: Path, counts: Mapping[str, int]) -> str:
    """What is missing, as a sentence; "" where the evaluation came to its end, or nothing is known of it.

    counts: system key -> its answers in items.jsonl.
    """
    known = read_record(run_dir)
    if known.get("finished", True):
        return ""
    missing = [
        f"{system(key).label} has {counts.get(key, 0):,} of {wanted:,} answers"
        for key, wanted in known["answers"].items()
        if counts.get(key, 0) < wanted
    ]
    return (
        f"This evaluation is not finished: {'; '.join(missing) or 'scores are missing'}. Run its --recipe again "
        "to go on; the figures are of what is there."
    )
