"""What a run's folder says of its evaluation in evaluation.json: the recipe, the questions, how far it has come.

same_evaluation(recipe, run_dir)              # before anything loads
weights = same_weights(recipe, run_dir)       # the same of the models' files
begin(recipe, run_dir, asked, items, weights) # before the first answer
finish(run_dir)                               # after the last score
unfinished(run_dir, counts)                   # one sentence for whoever reads the figures, or ""
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rnagpt.checkpoints.forms import assets
from rnagpt.evaluation.asking.items import Item, read_items
from rnagpt.evaluation.asking.systems import controlled, system
from rnagpt.evaluation.evaluation_recipe import EvaluationRecipe
from rnagpt.evaluation.scoring.measures import read_measures
from rnagpt_core.errors import UserError
from rnagpt_core.files import replace_text

RECORD = "evaluation.json"
ANSWERS_DEPEND_ON = ("kind", "model", "base_url", "max_new_tokens")  # of a system's fields
SCORES_DEPEND_ON = ("kind", "model", "layer", "max_length", "revision")  # of an encoder's


def same_evaluation(recipe: EvaluationRecipe, run_dir: Path) -> None:
    """Refuse a folder whose answers belong to other questions or to another system of the same name; further systems
    and encoders may join, and what has no answer yet may change.

    Raises:
        UserError: names what is different.
    """
    before, now = read_record(run_dir), _plain(recipe)
    if not before:
        if _systems_with_answers(run_dir):  # an estimate leaves none
            raise UserError(f"{run_dir} holds the answers of another run (it has no {RECORD}): give another folder")
        return
    changed = [key for key in ("data", "seed") if before[key] != now[key]]
    parts = {part["name"]: part for part in before["systems"]}
    systems = {
        f"{name} of {part['name']}": part["name"]
        for part in now["systems"]
        for name in ANSWERS_DEPEND_ON
        if _differ(part, parts.get(part["name"], part), name)
    }
    if changed or systems:
        answered = _systems_with_answers(run_dir)
        changed = [key for key in changed if answered] + [
            what for what, name in systems.items() if _has_answers(name, answered)
        ]
    specs = {spec["label"]: spec for spec in before["encoders"]}
    encoders = [
        spec["label"]
        for spec in now["encoders"]
        if any(_differ(spec, specs.get(spec["label"], spec), name) for name in SCORES_DEPEND_ON)
    ]
    if encoders:
        scored = _encoders_with_scores(run_dir)
        changed += [f"encoder {label}" for label in encoders if label in scored]
    if changed:
        raise UserError(
            f"{run_dir} holds another evaluation (different: {', '.join(changed)}): give another folder, "
            "or what is different another name"
        )


def _differ(part: dict, before: dict, name: str) -> bool:
    return part.get(name) != before.get(name, part.get(name))


def same_questions(items: Sequence[Item], run_dir: Path) -> None:
    """UserError where the data set has changed under its name since this folder's answers were made."""
    known = read_record(run_dir).get("questions")
    if known and known != digest_of(items) and _systems_with_answers(run_dir):
        raise UserError(
            f"the questions are no longer those that {run_dir} holds answers to (the data set has changed "
            "in its place): give another folder"
        )


def same_weights(recipe: EvaluationRecipe, run_dir: Path) -> dict[str, dict]:
    """What `begin` records of the weights of every model on this machine, by system.

    Raises:
        UserError: a model was trained again in its place since this folder's answers were made.
    """
    known = read_record(run_dir).get("weights", {})
    now = {
        part.name: weights_of(part.model, known.get(part.name))
        for part in recipe.systems
        if part.kind in ("rna", "llm_text")
    }
    changed = [name for name, weights in now.items() if name in known and known[name]["sha256"] != weights["sha256"]]
    if changed:
        answered = _systems_with_answers(run_dir)
        changed = [name for name in changed if _has_answers(name, answered)]
    if changed:
        raise UserError(
            f"the weights of {changed[0]} have changed in their place since {run_dir} holds answers of "
            "theirs: give the system another name, or another folder"
        )
    return now


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


def digest_of(items: Sequence[Item]) -> str:
    """What is asked and what is right, as one SHA-256."""
    asked = sorted([*item.key, item.reference, item.gold, *item.options] for item in items)
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def begin(
    recipe: EvaluationRecipe,
    run_dir: Path,
    asked: Mapping[str, int],
    items: Sequence[Item],
    weights: Mapping[str, dict],
) -> None:
    """Write down what is evaluated. asked: system key -> how many answers it is going to have; weights: of
    `same_weights`. Systems and encoders of an earlier recipe whose answers are here stay on record."""
    before, now = read_record(run_dir), _plain(recipe)
    for kind, name in (("systems", "name"), ("encoders", "label")):
        known = {part[name] for part in now[kind]}
        now[kind] += [part for part in before.get(kind, []) if part[name] not in known]
    record(
        run_dir / RECORD,
        now
        | {
            "questions": digest_of(items),
            "finished": False,
            "answers": before.get("answers", {}) | dict(asked),
            "weights": before.get("weights", {}) | dict(weights),
        },
    )


def finish(run_dir: Path) -> None:
    """Every answer and score of the recipe is there."""
    record(run_dir / RECORD, read_record(run_dir) | {"finished": True})


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


def read_record(run_dir: Path) -> dict:
    """evaluation.json, or an empty dict where there is none. UserError where it is no record of an evaluation."""
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


def models_of(run_dir: Path) -> list[str]:
    """The systems that the recipe says are checkpoints that read the RNA, in its order."""
    return [part["name"] for part in read_record(run_dir).get("systems", []) if part["kind"] == "rna"]


def record(path: Path, content) -> None:
    """Write JSON, whole or not at all."""
    replace_text(path, json.dumps(content, indent=1) + "\n")


def _plain(recipe: EvaluationRecipe) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def _systems_with_answers(run_dir: Path) -> set[str]:
    path = run_dir / "evaluation" / "items.jsonl"
    return {item.system for item in read_items(path)} if path.is_file() else set()


def _has_answers(name: str, answered: set[str]) -> bool:
    return any(key == name or (controlled(key) or ("", ""))[0] == name for key in answered)


def _encoders_with_scores(run_dir: Path) -> set[str]:
    scores = read_measures(run_dir / "evaluation" / "scores.jsonl")
    return {name.rpartition(":")[2] for rows in scores.values() for values in rows.values() for name in values}
