"""Evaluate systems on held-out RNAs, or compute a run's figures again from its stored answers.

rnagpt evaluate RUN_DIR                              figures, tables and report from what is stored, without a model
rnagpt evaluate RUN_DIR --recipe RECIPE              answer, score, then the same; goes on where it was stopped
rnagpt evaluate RUN_DIR --recipe RECIPE --plan       only say what it would take: answers, time, USD

reads   RECIPE                             questions, systems, controls, encoders: see recipes/evaluate_facts.yaml
        RUN_DIR/evaluation/*.jsonl         every question, answer, similarity and likelihood, one JSON line each
        RUN_DIR/learning_curves.csv        or RUN_DIR/*/curve.jsonl, if there
        RUN_DIR/run.json                   what to say of the run (versions, hardware, seeds), if there
writes  RUN_DIR/report.html                one page that stands alone
        RUN_DIR/tables/                    the tables as CSV and Markdown, the paper's beside its own values
        RUN_DIR/figures/                   the figures as SVG
        RUN_DIR/model_index.yaml           metadata for the model card
        RUN_DIR/evaluation/summary.json    every figure
"""

import argparse
import json
import shutil
from pathlib import Path

from rnagpt_core.arguments import keep_old_name
from rnagpt_core.errors import UserError, disk_is_full


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `rnagpt evaluate`."""
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="the folder of a run, as quickstart leaves it; with --recipe it may be new",
    )
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="YAML: the questions, systems, controls, encoders")
    parser.add_argument("--plan", action="store_true", help="with --recipe: say what it takes, and stop")
    keep_old_name(parser, "--estimate", "--plan")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    """`evaluate_and_report`, naming the run's folder where its disk is full: a write that fails names no path."""
    try:
        return evaluate_and_report(args)
    except OSError as error:
        if disk_is_full(error) and error.filename is None and args.run_dir.is_dir():
            if shutil.disk_usage(args.run_dir).free < 2**26:
                error.filename = str(args.run_dir)
        raise


def evaluate_and_report(args: argparse.Namespace) -> int:
    """Answer what a recipe asks for, recompute the summary, print it, write tables and report; 0, or a UserError."""
    run_dir: Path = args.run_dir
    items_path = run_dir / "evaluation" / "items.jsonl"
    if args.plan and not args.recipe:
        raise UserError("--plan needs --recipe: stored answers cost nothing")
    if args.recipe:
        from rnagpt.evaluation.evaluation_recipe import load_evaluation
        from rnagpt.evaluation.run import evaluate

        evaluate(load_evaluation(args.recipe), run_dir, only_plan=args.plan)
        if args.plan:
            return 0
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a folder: give the folder of a run, as `rnagpt quickstart` leaves it")
    if not items_path.is_file():
        raise UserError(
            f"{run_dir} holds no evaluation/items.jsonl: give a run's own folder, such as runs/quickstart, after its "
            "evaluation has finished"
        )

    from rnagpt.evaluation.reporting.report import recompute, write_report

    summary = recompute(run_dir)
    report = write_report(run_dir, summary)
    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        from rnagpt.evaluation.reporting.tables import print_table

        print_table(summary)
        print(f"\n{report}")
    return 0
