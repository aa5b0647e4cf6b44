"""Publish to the Hugging Face Hub: a model, a dataset, the metric. One command each; what is wrong is refused.

    rnagpt release model runs/quickstart/checkpoint --repo OWNER/NAME --dry-run     # what would go up; nothing is sent
    rnagpt release model runs/quickstart/checkpoint --repo OWNER/NAME
    rnagpt release model runs/mine/stage2 --form adapter --base OWNER/BASE --repo OWNER/NAME
    rnagpt release dataset runs/rna-qa/dataset --repo OWNER/rna-qa
    rnagpt release metric --repo OWNER/rna_answers

reads   a checkpoint of any form and the run's folder around it; a folder that `rnagpt build-dataset` published
writes  one commit on the Hub with a card, a changelog and a tag (the next of v1, v2, ...); with --out a folder that
        holds the same files. A new repository is private unless --public is given.

The token is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names another Hub. Interrupted, the same command goes
on: files that are there are not sent again.
"""

import argparse
import math
import os
import platform
import shutil
import sys
import tempfile
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from rnagpt import __version__
from rnagpt_core.arguments import add_debug
from rnagpt_core.errors import UserError
from rnagpt_core.files import new_folder

FORMS = ("whole", "projector", "adapter")
METRIC_FILES = ("rna_answers.py", "requirements.txt", "app.py", "README.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    model, dataset, metric = (
        kinds.add_parser(name, help=short, allow_abbrev=False, description=f"Publish {text}.")
        for name, short, text in (
            ("model", "a checkpoint", "a checkpoint: weights, processor, code, card"),
            ("dataset", "RNA-QA", "RNA-QA: Parquet and card"),
            ("metric", "the evaluation module, as a Space", "metrics/rna_answers as a Space, for evaluate.load"),
        )
    )
    text = "a folder of any form: whole, projector-only, adapter-only, or a training stage's output"
    model.add_argument("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help=text)
    model.add_argument("--demo", action="store_true", help="the checkpoint that ships with the package")
    text = "whole: all weights, an adapter merged (default); projector: the projector alone; adapter: the adapter kept"
    model.add_argument("--form", choices=FORMS, help=text)
    model.add_argument("--base", metavar="OWNER/NAME", help="with --form adapter: the RNA-GPT it was trained on")
    model.add_argument("--llm", metavar="NAME", help="the language model's name or Hub id, where the files do not say")
    model.add_argument("--encoder", metavar="NAME", help="the RNA encoder's, likewise")
    text = "run with training and evaluation facts (default: the folder that CHECKPOINT lies in)"
    model.add_argument("--run", type=Path, metavar="RUN_DIR", dest="run_dir", help=text)
    model.add_argument("--licence", type=Path, metavar="FILE", help="goes along as LICENSE")
    model.add_argument("--hardware", metavar="TEXT", help="what it was trained on, for the card")
    model.add_argument("--cost-usd", type=float, metavar="USD", help="what training cost, for the card")
    model.add_argument("--co2-grams", type=float, metavar="G", help="CO2 equivalent of training, for the card")
    dataset.add_argument("folder", type=Path, metavar="FOLDER", help="OUTPUT/dataset of `rnagpt build-dataset`")
    text = "the licence's id on the Hub (default: %(default)s)"
    dataset.add_argument("--licence", default="cc-by-4.0", metavar="ID", help=text)
    dataset.add_argument("--collected", metavar="DATE", help="when the literature was collected (YYYY-MM-DD)")
    for kind in (model, dataset, metric):
        add_debug(kind, default=argparse.SUPPRESS)
        kind.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the Hub")
        kind.add_argument("--dry-run", action="store_true", help="check all, print what would go up, send nothing")
        kind.add_argument("--out", type=Path, metavar="FOLDER", help="keep what goes up in this folder")
        kind.add_argument("--tag", help="of this release (default: the next of v1, v2, ...)")
        kind.add_argument("--message", default="", metavar="TEXT", help="for the changelog")
        kind.add_argument("--public", action="store_true", help="make a new repository public (default: private)")


def run(args: argparse.Namespace) -> int:
    """Look at the Hub, stage, check, publish; with --dry-run nothing is asked of the Hub but what a model needs."""
    from rnagpt.release import contents, upload

    kind, allowed = {
        "model": ("model", contents.MODEL_FILES),
        "dataset": ("dataset", contents.DATASET_FILES),
        "metric": ("space", contents.SPACE_FILES),
    }[args.kind]
    upload.check_names(args.repo, args.tag)
    if args.kind == "model":
        check_arguments(args)
    if args.out is not None and args.out.exists():
        raise UserError(f"{args.out} exists already: remove it, or give another --out")
    source = getattr(args, "checkpoint", None) or getattr(args, "folder", None)
    if args.out is not None and source is not None and args.out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--out {args.out} lies in {source}, which would then hold a stray folder: give another")
    if args.dry_run:
        target = upload.Target(kind, args.repo, args.tag or "v1", not args.public)
    else:
        target = upload.look(kind, args.repo, args.tag, private=not args.public)
    if target.changed:
        print(
            f"note: {args.repo} was edited on the Hub since its last release: this one takes the place of all its "
            f"files, and the edits stay in its history (commit {str(target.head)[:8]})",
            file=sys.stderr,
        )
    message = args.message or f"{'First' if not target.tags else 'New'} release."
    with staging(args) as folder:
        if args.kind == "model":
            stage_model(args, folder)
        elif args.kind == "dataset":
            from rnagpt.release import dataset

            dataset.stage(args.folder, folder, args.repo, args.licence, args.collected)
        else:
            stage_metric(folder, args.repo)
        upload.add_changelog(folder, target, message)
        files = contents.check_contents(folder, allowed)
        print(contents.listing(folder, files))
        if args.dry_run:
            tag = f"tag {target.tag}" + ("" if args.tag else ", or the next that is free there")
            print(f"dry run: nothing was sent; it would go to {target.page}, {tag}")
        else:
            commit = upload.publish(folder, target, message)
            visibility = "private: look at it, then make it public in its settings" if target.private else "public"
            print(f"released {target.page} ({visibility}), tag {target.tag}, commit {commit}")
    if args.out is not None:
        print(f"wrote {args.out}")
    return 0


@contextmanager
def staging(args: argparse.Namespace):
    """A folder to write into: --out under a temporary name, or one that is removed at the end."""
    if args.out is not None:
        with new_folder(args.out) as part:
            yield part
        return
    import psutil

    beside = args.checkpoint.absolute().parent if getattr(args, "checkpoint", None) else Path.cwd()
    ours = f".release-{platform.node()}-"
    for left in beside.glob(f"{ours}*"):
        pid = left.name.removeprefix(ours).split("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)  # of a release that was killed
    # beside a checkpoint its weights can be linked instead of copied
    where = beside if os.access(beside, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"{ours}{os.getpid()}-", dir=where) as folder:
        release = Path(folder) / "release"
        release.mkdir()
        yield release


def check_arguments(args: argparse.Namespace) -> None:
    """UserError for arguments of `release model` that contradict or miss something; no weight is read."""
    from rnagpt.checkpoints.forms import checkpoint_form

    if (args.checkpoint is None) != args.demo:
        raise UserError("name one checkpoint: a folder, or --demo")
    if args.checkpoint is not None and checkpoint_form(args.checkpoint) == "hub":
        raise UserError(f"there is no folder {args.checkpoint}: release takes a checkpoint on this machine")
    if args.licence is not None and not args.licence.is_file():
        raise UserError(f"--licence takes a file, and {args.licence} is none")
    for name in ("cost_usd", "co2_grams"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{name.replace('_', '-')} takes a number of at least 0, got {value}")


def stage_model(args: argparse.Namespace, folder: Path) -> None:
    """The checkpoint in the form asked for, its card, and the proof that it stands on its own."""
    import transformers

    from rnagpt.checkpoints.forms import assets
    from rnagpt.release import contents, model
    from rnagpt.release.card_facts import read_facts

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = assets() / "demo" if args.demo else args.checkpoint
    hardware = " ".join((args.hardware or "").split()) or None  # one line of a table or sentence
    given = {"hardware": hardware, "cost_usd": args.cost_usd, "co2_grams": args.co2_grams}
    cost = {name: value for name, value in given.items() if value is not None}
    facts = read_facts(path, args.run_dir, cost)
    if facts.left_out:
        print(f"note: {facts.left_out}", file=sys.stderr)
    source = model.source_of(path, facts, args.llm, args.encoder)
    form = args.form or (source.form if source.form in FORMS else "whole")
    model.check_licence(source, args.repo, args.licence, form)
    if source.form != "parts":
        known = (*contents.MODEL_FILES, "training.json", "curve.jsonl", "curve.csv", "curve.png")
        # a stray or a pickle in the checkpoint is told, not left out in silence
        contents.check_contents(path, known, paths=False)
    loaded, processor = model.write_form(source, folder, form, args.base)
    model.write_card(folder, loaded, processor, source, facts, args.repo, form)
    if args.licence is not None:
        shutil.copyfile(args.licence, folder / "LICENSE")
    # before the code in it is run
    contents.check_contents(folder, contents.MODEL_FILES)
    logits, answer = model.answer_of(loaded, processor)
    dtype = next(loaded.get_input_embeddings().parameters()).dtype
    del loaded
    print(model.reload_and_compare(folder, logits, answer, dtype))


def stage_metric(folder: Path, repo: str) -> None:
    """metrics/rna_answers under the names of a Space, so that `evaluate.load(repo)` finds it.

    Raises:
        UserError: the name is none that `evaluate` can load, or the module is not part of this installation.
    """
    owner, name = repo.split("/")
    if not name.isidentifier():
        raise UserError(
            f"evaluate cannot load {name!r}, which is no name of a module: give --repo {owner}/rna_answers"
        )
    module = Path(str(resources.files("rnagpt"))) / "metrics" / "rna_answers"
    if not all((module / file).is_file() for file in METRIC_FILES):
        raise UserError("the evaluation module is not part of this installation: install RNA-GPT again")
    folder.mkdir(exist_ok=True)
    for file in METRIC_FILES:
        text = (module / file).read_text(encoding="utf-8")
        text = text.replace("OWNER/rna_answers", repo).replace('"rna_answers.py"', f'"{name}.py"')
        text = text.replace("rnagpt[eval]", f"rnagpt[eval]=={__version__}")
        (folder / file.replace("rna_answers", name)).write_text(text, encoding="utf-8")
