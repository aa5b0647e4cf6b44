"""Compute a run's accuracy table and report again from its stored answers; no model is loaded.

reads   RUN_DIR/evaluation/items.jsonl     every question and every system's answer
        RUN_DIR/learning_curves.csv        or RUN_DIR/*/trainer_state.json, if there
        RUN_DIR/run.json                   what to say of the run (versions, hardware, seeds), if there
writes  RUN_DIR/report.html                one page that stands alone
        RUN_DIR/evaluation/summary.json    every figure of it
"""

import argparse
import json
import os
from pathlib import Path

from rnagpt.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `rnagpt evaluate`."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the folder of a run, as quickstart leaves it")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    """Recompute the summary, print it, write the report; 0, or a UserError that says what is missing."""
    run_dir: Path = args.run_dir
    items_path = run_dir / "evaluation" / "items.jsonl"
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a folder: give the folder of a run, as `rnagpt quickstart` leaves it")
    if not items_path.is_file():
        raise UserError(
            f"{run_dir} holds no evaluation/items.jsonl: give a run's own folder, such as runs/quickstart, after its "
            "evaluation has finished"
        )

    from rnagpt.evaluation.curves import read_learning_curves
    from rnagpt.evaluation.report import print_table, summarise, write_report

    summary = summarise(items_path)
    write_summary(run_dir, summary)
    report = write_report(run_dir, summary, read_learning_curves(run_dir), read_run_facts(run_dir))
    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print_table(summary)
        print(f"\n{report}")
    return 0


def write_summary(run_dir: str | Path, summary: dict) -> Path:
    """Write run_dir/evaluation/summary.json (a temporary file, then a rename) and return its path."""
    path = Path(run_dir) / "evaluation" / "summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
                             encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_run_facts(run_dir: str | Path) -> dict:
    """What run_dir/run.json says of the run; an empty dict where there is none."""
    path = Path(run_dir) / "run.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path} must hold one JSON object of the run's facts, not a {type(facts).__name__}")
    return facts
