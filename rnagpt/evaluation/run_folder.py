"""Whether a run's folder still belongs to a recipe, its questions and its models; what evaluation.json says of it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rnagpt.checkpoints.forms import assets
from rnagpt.evaluation.asking.items import Item, read_items
from rnagpt.evaluation.asking.run_record import RECORD, read_record
from rnagpt.evaluation.asking.systems import controlled
from rnagpt.evaluation.evaluation_recipe import EvaluationRecipe
from rnagpt.evaluation.scoring.measures import read_measures
from rnagpt_core.errors import UserError
from rnagpt_core.files import replace_text

NAMES = {"systems": "name", "encoders": "label"}
DEPEND_ON = {  # answers on these fields of a system, scores on these of an encoder
    "systems": ("kind", "model", "base_url", "max_new_tokens"),
    "encoders": ("kind", "model", "layer", "max_length", "revision"),
}


def same_evaluation(recipe: EvaluationRecipe, run_dir: Path) -> None:
    """Refuse a folder whose answers belong to other questions or to another system of the same name; further systems
    and encoders may join, and what has no answer yet may change.

    Raises:
        UserError: names what is different.
    """
    before, now = read_record(run_dir), dataclasses.asdict(recipe)
    if not before:
        if _answered(run_dir):  # a plan leaves none
            raise UserError(f"{run_dir} holds the answers of another run (it has no {RECORD}): give another folder")
        return
    changed = [key for key in ("data", "seed") if before[key] != now[key]]
    systems, encoders = _changes(before, now, "systems"), _changes(before, now, "encoders")
    if changed or systems:
        answered = _answered(run_dir)
        changed = [key for key in changed if answered]
        changed += [f"{field} of {name}" for name, field in systems if name in answered]
    if encoders:
        scores = read_measures(run_dir / "evaluation" / "scores.jsonl")
        scored = {name.rpartition(":")[2] for rows in scores.values() for values in rows.values() for name in values}
        changed += [f"encoder {label}" for label in dict(encoders) if label in scored]
    if changed:
        raise UserError(
            f"{run_dir} holds another evaluation (different: {', '.join(changed)}): give another folder, "
            "or what is different another name"
        )


def _changes(before: dict, now: dict, kind: str) -> list[tuple[str, str]]:
    """(name, field) of what is not as it was; what was not there, or not on record, has not changed."""
    known = {part[NAMES[kind]]: part for part in before[kind]}
    named = [(part[NAMES[kind]], part) for part in now[kind]]
    return [
        (name, field)
        for name, part in named
        for field in DEPEND_ON[kind]
        if part[field] != known.get(name, {}).get(field, part[field])
    ]


def _answered(run_dir: Path) -> set[str]:
    """The systems that have answers, under the true RNA or a control."""
    path = run_dir / "evaluation" / "items.jsonl"
    keys = {item.system for item in read_items(path)} if path.is_file() else set()
    return keys | {parts[0] for parts in map(controlled, keys) if parts}


def same_origin(recipe: EvaluationRecipe, items: Sequence[Item], run_dir: Path) -> dict:
    """{"questions", "weights"}: what `begin` records of the questions and of every model on this machine.

    Raises:
        UserError: the data set has changed under its name, or a model was trained again in its place, since this
            folder's answers were made.
    """
    known = read_record(run_dir)
    rows = sorted([*item.key, item.reference, item.gold, *item.options] for item in items)
    questions = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if known.get("questions", questions) != questions and _answered(run_dir):
        raise UserError(
            f"the questions are no longer those that {run_dir} holds answers to (the data set has changed "
            "in its place): give another folder"
        )
    old = known.get("weights", {})
    now = {part.name: weights_of(part.model, old.get(part.name)) for part in recipe.systems if part.is_loaded}
    now = {name: weights for name, weights in now.items() if weights["files"]}
    changed = [name for name, weights in now.items() if old.get(name, weights)["sha256"] != weights["sha256"]]
    if changed and (changed := [name for name in changed if name in _answered(run_dir)]):
        raise UserError(
            f"the weights of {changed[0]} have changed in their place since {run_dir} holds answers of "
            "theirs: give the system another name, or another folder"
        )
    return {"questions": questions, "weights": old | now}


def weights_of(model: str, known: dict | None = None) -> dict:
    """{"files": [name, bytes, time of each], "sha256"} of a folder's .safetensors, or of a .gguf file; no files for
    what is not on this machine. known: an earlier result, whose digest holds as long as no file was touched."""
    path = assets() / "demo" if model == "demo" else Path(model)
    found = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    files = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in found]
    if known and known["files"] == files:
        return known
    digest = hashlib.sha256()
    for file in found:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return {"files": files, "sha256": digest.hexdigest()}


def begin(recipe: EvaluationRecipe, run_dir: Path, counts: Mapping[str, int], origin: Mapping) -> None:
    """Write down what is evaluated. counts: system key -> how many answers it is going to have; origin: of
    `same_origin`. Systems and encoders of an earlier recipe whose answers are here stay on record."""
    before, now = read_record(run_dir), dataclasses.asdict(recipe)
    for kind, name in NAMES.items():
        known = {part[name] for part in now[kind]}
        now[kind] += [part for part in before.get(kind, []) if part[name] not in known]
    answers = before.get("answers", {}) | dict(counts)
    record(run_dir / RECORD, now | {"finished": False, "answers": answers} | dict(origin))


def finish(run_dir: Path) -> None:
    """Every answer and score of the recipe is there."""
    record(run_dir / RECORD, read_record(run_dir) | {"finished": True})


def record(path: Path, content) -> None:
    """Write JSON, whole or not at all."""
    replace_text(path, json.dumps(content, indent=1) + "\n")
