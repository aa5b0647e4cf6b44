"""Train a small RNA-GPT on this machine, measure it on held-out RNAs, and set it beside the shipped demo.

reads   the recipes NAME_stage1.yaml, NAME_stage2.yaml (and so on), the packaged facts table, encoder and demo
writes  OUTPUT/stage1, OUTPUT/stage2, ...  what each stage trained (parts)
        OUTPUT/checkpoint                  the whole model: rnagpt chat OUTPUT/checkpoint --fasta FILE
        OUTPUT/evaluation/items.jsonl      every held-out question and every system's answer
        OUTPUT/report.html                 the figures on one page

About 19 minutes on two CPU cores. Interrupted at any moment, the same command goes on where it was; run again when all
is done, it goes to the report at once.
"""

import argparse
import dataclasses
import gzip
import importlib.util
import json
import os
import platform
import resource
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from rnagpt.checkpoints.forms import PARTS, assets
from rnagpt_core.errors import UserError
from rnagpt_core.files import only_one, replace_text

RECIPES = ("quickstart", "demo")
TEST_RNAS_PER_TYPE = 26
SEED = 0
# what the steps import that a bare `pip install rnagpt` does not bring
PACKAGES = ("trl", "datasets", "sklearn", "scipy", "edlib", "matplotlib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="folder to write (default: runs/NAME)")
    parser.add_argument("--recipes", default="quickstart", choices=RECIPES, help="recipe pair (default: quickstart)")


def run(args: argparse.Namespace) -> int:
    output = args.output or Path("runs") / args.recipes
    if not (output / "report.html").is_file():
        # what some step would miss is told before the first one trains for minutes
        if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
            raise UserError(f"the quick start also needs {', '.join(missing)}: pip install 'rnagpt[quickstart]'")
        with only_one(output, "another --output"):
            work(output, find_recipes(args.recipes))
    from rnagpt.evaluation.reporting.tables import print_table

    print_table(json.loads((output / "evaluation" / "summary.json").read_text()))
    print(f"\nreport:  {output / 'report.html'}")
    print(f"talk:    rnagpt chat {output / 'checkpoint'} --fasta FILE")
    return 0


def find_recipes(name: str) -> list[Path]:
    """The packaged recipes of all stages, in order."""
    return sorted((assets().parent / "recipes").glob(f"{name}_stage?.yaml"))


def work(output: Path, recipe_files: list[Path]) -> None:
    """All steps in order; each is skipped when its result is there. Every stage starts from the one before it."""
    import transformers

    import train_sft
    from rnagpt.training.recipe import load_recipe

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    stages = [output / f"stage{n}" for n in range(1, len(recipe_files) + 1)]
    steps = len(stages) + 2
    for n, (folder, before, file) in enumerate(zip(stages, [None, *stages], recipe_files, strict=False), start=1):
        start_from = None if before is None else str(before)
        recipe = dataclasses.replace(load_recipe(file), output=str(folder), start_from=start_from)
        with step(output, f"stage {n}", f"[{n}/{steps}] stage {n}, {recipe.stage}"):
            train_sft.train(recipe)  # at once where the folder is finished
    from rnagpt.checkpoints import checkpoint
    from rnagpt.training.curves import joined_curve, write_csv

    with step(output, "checkpoint", f"[{steps - 1}/{steps}] merging the adapter into a whole checkpoint"):
        if not (output / "checkpoint").is_dir():
            checkpoint.save(*checkpoint.load(stages[-1]), output / "checkpoint")
    with step(output, "evaluation", f"[{steps}/{steps}] held-out evaluation"):
        evaluate(output)
    write_csv(output / "learning_curves.csv", joined_curve(stages))
    report(output)


def evaluate(output: Path) -> None:
    """Answers of every system to the held-out questions; the test split is looked at once per run, here.

    UserError where a held-out RNA leaks into training.
    """
    from rnagpt.evaluation.asking.answers import MAX_NEW_TOKENS
    from rnagpt.evaluation.asking.controls import CONTROLS
    from rnagpt.evaluation.asking.items import ItemWriter
    from rnagpt.evaluation.evaluation_recipe import FACTS, DataPart, EvaluationRecipe, SystemPart
    from rnagpt.evaluation.run import answer_system, load_held_out

    how: dict = {"likelihood": False, "batch_size": 52, "max_new_tokens": MAX_NEW_TOKENS}
    stage1, last, folder = str(output / "stage1"), str(output / "checkpoint"), output / "evaluation"
    systems = [
        # before stage 2 the LLM is untouched: without soft tokens it is the plain LLM, whose answers may be on record
        SystemPart("llm_text", "llm_text", stage1, **how),
        SystemPart("stage1", "rna", stage1, **how),
        SystemPart("stage2", "rna", last, controls=list(CONTROLS), **how),
    ]
    data = DataPart(FACTS, rnas=TEST_RNAS_PER_TYPE)
    held_out = load_held_out(EvaluationRecipe(data, systems=systems, seed=SEED), output)
    with ItemWriter(folder / "items.jsonl") as writer:
        for item in recorded_answers(held_out.items, output / "stage1"):
            writer.write(item)
        if not all(writer.done("linear_probe", item) for item in held_out.items):
            for item in answers_of_baselines(held_out, output / "stage1"):
                writer.write(item)
        for part in systems:
            answer_system(part, held_out, writer, folder, SEED)


def answers_of_baselines(held_out, stage1: Path) -> list:
    """Of every baseline and reference, the linear probe on the encoder's features among them."""
    import torch

    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.features import encode_features
    from rnagpt.evaluation.asking.baselines import baseline_answers

    train, rnas = held_out.train, held_out.rnas
    model, processor = checkpoint.load(stage1)
    sequences = {rna.rna_id: rna.sequence for rna in [*train, *rnas]}
    features = encode_features(model.model.rna_encoder, processor.rna_reader, sequences)
    train_x, test_x = (torch.stack([features[rna.rna_id].mean(0) for rna in some]).numpy() for some in (train, rnas))
    return baseline_answers(train, rnas, held_out.items, SEED, train_x, test_x, held_out.neighbours)


def recorded_answers(items: list, stage1: Path) -> list:
    """Answers to these items that were recorded when the demo was trained: the demo's, and those of the untuned LLM
    reading the letters, which no training changes; the latter only where this run has the very same LLM."""
    from rnagpt.evaluation.asking.items import from_row

    demo = assets() / "demo"
    if not (demo / "items.jsonl.gz").is_file():
        return []
    by_key = {item.key: item for item in items}
    with gzip.open(demo / "items.jsonl.gz", "rt", encoding="utf-8") as file:
        recorded = [
            dataclasses.replace(item, train_identity=by_key[item.key].train_identity)
            for item in map(from_row, map(json.loads, file))
            if item.key in by_key
        ]
    ours, theirs = (json.loads((folder / PARTS).read_text())["llm_fingerprint"] for folder in (stage1, demo))
    return [item for item in recorded if item.system != "llm_text" or ours == theirs]


def report(output: Path) -> None:
    """All that the answers show: tables, figures, the checkpoint's card; last the page, which ends a run."""
    from rnagpt.checkpoints import checkpoint
    from rnagpt.evaluation.reporting.report import recompute, write_report
    from rnagpt.release.card_facts import read_facts

    # versions and hardware, without any name of the machine
    packages = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "peft", "datasets")}
    machine = {"python": platform.python_version(), "processor cores": os.cpu_count(), "seed": SEED}
    note(output, Machine=machine | packages)
    summary = recompute(output)
    facts = read_facts(output / "checkpoint")
    built, head = facts.stages[-1]["recipe"]["model"], facts.metadata(output.resolve().name)
    loaded = checkpoint.load(output / "checkpoint")
    card = checkpoint.card(*loaded, built["llm"], built["encoder"], metadata=head, **facts.sections())
    replace_text(output / "checkpoint" / "README.md", card)
    write_report(output, summary)


@contextmanager
def step(output: Path, name: str, title: str):
    """Announce a step and add its time and peak memory to run.json."""
    from rnagpt.evaluation.reporting.report import read_run_facts

    print(f"\n{title}", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        yield
    finally:
        facts = read_run_facts(output)
        seconds, peak = facts.get("Seconds", {}), facts.get("Memory", {}).get("peak (GiB)", 0)
        spent = round(seconds.get(name, 0) + time.monotonic() - started, 1)
        peak = max(peak, round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2))
        note(output, Seconds={**seconds, name: spent}, Memory={"peak (GiB)": peak})


def note(output: Path, **headings: dict) -> None:
    """Set headings of run.json, which the report shows."""
    from rnagpt.evaluation.reporting.report import read_run_facts

    replace_text(output / "run.json", json.dumps(read_run_facts(output) | headings, indent=1) + "\n")
