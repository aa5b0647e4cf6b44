"""Every figure of the report, recomputed from items.jsonl alone: summarise(path) -> one dict of plain numbers.

    summary = summarise("run/evaluation/items.jsonl")
    print_table(summary)

Two measures are kept apart: `rna_type` (the question what type the RNA is) and `closed` (all other questions
with a fixed set of answers). An answer in which no label is found counts as wrong, and is counted.
"""

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rnagpt.evaluation.asking.items import SHUFFLED, Item, read_items
from rnagpt.evaluation.asking.run_record import models_of
from rnagpt.evaluation.asking.systems import GROUPS, controlled, in_order, system
from rnagpt.evaluation.scoring import statistics
from rnagpt.evaluation.scoring.closed_scores import agreement
from rnagpt.evaluation.scoring.measures import read_measures
from rnagpt_core.errors import UserError

MAIN_SYSTEMS = ("stage2", "demo", "stage1")  # the report is about the first of these that was evaluated
EXAMPLES_OF_A_KIND = 4
TOPIC_ORDER = ("rna_type", "is_type", "length_class", "organism_group", "amino_acid")  # others follow by name

Answers = dict[tuple[str, str, str, str], Item]  # item key -> one system's answer


def summarise(items_path: str | Path, confidence: float = statistics.CONFIDENCE, seed: int = 0) -> dict:
    """Accuracies with intervals, controls, comparisons, confusion matrix and examples of one items.jsonl.

    The same file gives the same dict; it holds nothing but JSON types. UserError where the file is missing, empty,
    broken, or answers one question twice.
    """
    answers: dict[str, Answers] = defaultdict(dict)
    for item in read_items(items_path):
        if item.key in answers[item.system]:
            raise UserError(
                f"{items_path} holds two answers of {item.system} to the same question about "
                f"{item.rna_id}: {item.question}"
            )
        answers[item.system][item.key] = item
    if not answers:
        raise UserError(f"{items_path} holds no answers: run the evaluation first")
    main = main_system(set(answers), models_of(Path(items_path).parent.parent))
    all_items = {item.key: item for of_system in answers.values() for item in of_system.values()}
    asked = {measure: _of_measure(all_items, measure) for measure in ("rna_type", "closed")}
    types = Counter({item.rna_id: item.rna_type for item in all_items.values()}.values())
    present = {item.topic for item in asked["rna_type"] + asked["closed"]}
    topics = [topic for topic in TOPIC_ORDER if topic in present] + sorted(present - set(TOPIC_ORDER))
    summary = {
        "schema": 1,
        "items_sha256": hashlib.sha256(Path(items_path).read_bytes()).hexdigest(),
        "confidence": confidence,
        "seed": seed,
        "main": main,
        "n_rna": sum(types.values()),
        "n_clusters": len({item.cluster for item in all_items.values()}),
        "n_questions": len(all_items),
        "rna_types": dict(sorted(types.items())),
        "topics": topics,
        "chance": {measure: _chance(items) for measure, items in asked.items()}
        | {
            "topics": {
                topic: _chance([item for item in all_items.values() if item.topic == topic]) for topic in topics
            }
        },
        "systems": [
            _system_row(spec.key, answers[spec.key], topics, confidence, seed) for spec in in_order(set(answers))
        ],
    }
    if main:
        summary["comparisons"] = _comparisons(main, answers, confidence, seed)
        summary["follows_shown_rna"] = {
            key: follows.to_dict()
            for key in answers
            if (follows := _follows_shown(answers[key], all_items, confidence, seed))
        }
        summary["confusion"] = _confusion(answers[main], sorted(types))
        summary["examples"] = _examples(main, answers, all_items)
    _with_what_scores_show(summary, answers, Path(items_path).parent, confidence, seed)
    return summary


def main_system(keys: set[str], named: Sequence[str] = ()) -> str | None:
    """The system that the report is about: the first of MAIN_SYSTEMS, else the first model with a control, else the
    first of those `named`, which a recipe calls models that read the RNA.

    >>> main_system({"stage1", "stage2", "majority"}), main_system({"mine", "mine_swapped"}), main_system({"majority"})
    ('stage2', 'mine', None)
    """
    models = sorted({parts[0] for key in keys if (parts := controlled(key)) and parts[0] in keys})
    return next((key for key in [*MAIN_SYSTEMS, *models, *named] if key in keys), None)


def _with_what_scores_show(
    summary: dict, answers: dict[str, Answers], folder: Path, confidence: float, seed: int
) -> None:
    """Add text tables, grounding gaps, strata, calibration and citations, each where there is something to show."""
    from rnagpt.evaluation.reporting import text_summary

    scores, likelihoods = (read_measures(folder / name) for name in ("scores.jsonl", "likelihoods.jsonl"))
    metric, main = text_summary.headline_metric_of(scores), summary["main"]
    found = {
        "text": text_summary.text_tables(answers, scores, main, confidence, seed) if scores else [],
        "grounding": text_summary.grounding(answers, likelihoods, scores, metric, confidence, seed),
        "strata": text_summary.strata(
            answers, scores, metric, [key for key in (main, f"{main}_swapped") if main], confidence, seed
        ),
        "calibration": text_summary.calibrations(answers, likelihoods),
        "citations": text_summary.citations(answers, confidence, seed),
    }
    if verdicts := read_measures(folder / "judge.jsonl"):
        from rnagpt.evaluation.scoring.judge import judged

        found["judge"] = judged(
            [item for of_system in answers.values() for item in of_system.values()], verdicts, confidence, seed
        )
    encoders = folder / "encoders.json"
    if encoders.is_file():
        found["encoders"] = json.loads(encoders.read_text(encoding="utf-8"))
    if metric:
        found["headline_metric"] = metric
    summary |= {name: value for name, value in found.items() if value}


def _of_measure(answers: Answers, measure: str) -> list[Item]:
    if measure == "rna_type":
        return [item for item in answers.values() if item.topic == "rna_type"]
    return [item for item in answers.values() if item.kind == "closed" and item.topic != "rna_type"]


def _chance(items: Sequence[Item]) -> float | None:
    return (
        statistics.chance_level([item.options for item in items])
        if items and all(item.options for item in items)
        else None
    )


def _accuracy(items: Sequence[Item], confidence: float, seed: int) -> dict | None:
    if not items:
        return None
    estimate = statistics.accuracy(
        [item.correct for item in items], [item.cluster for item in items], confidence, seed
    )
    scores = agreement([item.gold for item in items], [item.parsed for item in items])
    return estimate.to_dict() | {name: scores[name] for name in ("balanced", "mcc", "macro_f1", "unparseable")}


def _system_row(key: str, answers: Answers, topics: Sequence[str], confidence: float, seed: int) -> dict:
    spec = system(key)
    by_topic = {topic: [item for item in answers.values() if item.topic == topic] for topic in topics}
    return {
        "system": key,
        "label": spec.label,
        "group": spec.group,
        "about": spec.about,
        "rna_type": _accuracy(_of_measure(answers, "rna_type"), confidence, seed),
        "closed": _accuracy(_of_measure(answers, "closed"), confidence, seed),
        "topics": {topic: _accuracy(items, confidence, seed) for topic, items in by_topic.items()},
        "n_items": len(answers),
        "unparseable": sum(item.parsed is None for item in answers.values() if not item.free_text),
    }


def _comparisons(main: str, answers: dict[str, Answers], confidence: float, seed: int) -> list[dict]:
    """The main system against every other one on the questions that both answered; Holm within each measure."""
    rows = []
    for measure in ("rna_type", "closed"):
        family = []
        for other in in_order(set(answers) - {main}):
            shared = [item for item in _of_measure(answers[main], measure) if item.key in answers[other.key]]
            if not shared:
                continue
            difference, p_value = statistics.paired_difference(
                [item.correct for item in shared],
                [answers[other.key][item.key].correct for item in shared],
                [item.cluster for item in shared],
                confidence,
                seed,
            )
            family.append(
                {"measure": measure, "system": main, "other": other.key, "p": p_value} | difference.to_dict()
            )
        for row, adjusted in zip(family, statistics.holm([row["p"] for row in family]), strict=True):
            rows.append(row | {"p_holm": adjusted})
    return rows


def _follows_shown(answers: Answers, all_items: Answers, confidence: float, seed: int) -> statistics.Estimate | None:
    """How often a system that saw another RNA named that RNA's type; None where it saw the true one, or none."""
    type_of = {item.rna_id: item.rna_type for item in all_items.values()}
    shown = [
        item
        for item in _of_measure(answers, "rna_type")
        if item.shown_rna_id not in (None, item.rna_id, item.rna_id + SHUFFLED) and item.shown_rna_id in type_of
    ]
    if not shown:
        return None
    return statistics.accuracy(
        [item.parsed == type_of[item.shown_rna_id] for item in shown],
        [item.cluster for item in shown],
        confidence,
        seed,
    )


def _confusion(answers: Answers, types: Sequence[str]) -> dict | None:
    items = _of_measure(answers, "rna_type")
    if not items:
        return None
    labels = sorted(set(types) | {item.gold for item in items})
    counts = statistics.confusion_matrix([item.gold for item in items], [item.parsed for item in items], labels)
    return {"labels": labels, "counts": counts.tolist()}


def _examples(main: str, answers: dict[str, Answers], all_items: Answers) -> list[dict]:
    """Four right answers, four wrong ones, and what became of right ones once another RNA was swapped in."""
    swapped = answers.get(f"{main}_swapped", {})
    pool = [item for item in answers[main].values() if not item.free_text]
    chosen = [("right", item) for item in _varied([item for item in pool if item.correct])]
    chosen += [("wrong", item) for item in _varied([item for item in pool if not item.correct])]
    chosen += [
        ("swapped", item)
        for item in _varied(
            [item for item in pool if item.correct and item.key in swapped and item.topic == "rna_type"]
        )
    ]
    shown = {item.rna_id: item for item in all_items.values()}
    examples = []
    for outcome, item in chosen:
        example = {
            "outcome": outcome,
            "rna_id": item.rna_id,
            "name": item.name,
            "rna_type": item.rna_type,
            "true_length": item.true_length,
            "question": item.question,
            "reference": item.reference,
            "answer": item.answer,
            "parsed": item.parsed,
        }
        if outcome == "swapped":
            other = swapped[item.key]
            partner = shown.get(other.shown_rna_id)
            example |= {
                "swapped_answer": other.answer,
                "swapped_rna_id": other.shown_rna_id,
                "swapped_name": partner.name if partner else "",
                "swapped_rna_type": partner.rna_type if partner else "",
                "swapped_length": partner.true_length if partner else None,
            }
        examples.append(example)
    return examples


def _varied(items: Sequence[Item]) -> list[Item]:
    """A few items that repeat topics and RNA types as little as they can; chosen by hash, so nobody picked them."""
    rest = sorted(items, key=lambda item: hashlib.sha256("\t".join(item.key).encode()).hexdigest())
    chosen, used = [], Counter()
    while rest and len(chosen) < EXAMPLES_OF_A_KIND:
        best = min(rest, key=lambda item: (used[item.rna_id], used["type", item.rna_type] + used["topic", item.topic]))
        rest.remove(best)
        chosen.append(best)
        used.update([best.rna_id, ("type", best.rna_type), ("topic", best.topic)])
    return chosen


def percent(estimate: dict | None) -> str:
    """An estimate as a column of them reads best.

    >>> percent({"value": 0.0704, "low": 0.05, "high": 0.177}), percent(None)
    ('  7.0% [ 5.0,  17.7]', '     -')
    """
    if estimate is None:
        return "     -"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:5.1f}% [{low:4.1f}, {high:5.1f}]"


def print_table(summary: dict, file: TextIO | None = None) -> None:
    """Print one aligned row per system: both accuracies with intervals, n, and unparseable answers."""
    file = file or sys.stdout
    if "unfinished" in summary:
        print(f"{summary['unfinished']}\n", file=file)
    level = f"{100 * summary['confidence']:g}%"
    head = ("", f"RNA type [{level} interval]", "n", "Closed questions", "n", "Unparsed")
    rows, group = [], None
    for row in summary["systems"]:
        if row["group"] != group:
            group = row["group"]
            rows.append((GROUPS[group], *[""] * 5))
        cells = [
            text
            for measure in ("rna_type", "closed")
            for text in (percent(row[measure]), str(row[measure]["n_items"]) if row[measure] else "-")
        ]
        rows.append(("  " + row["label"], *cells, str(row["unparseable"])))
    chance = [
        f"{100 * level:5.1f}%" if level is not None else "-"
        for level in (summary["chance"]["rna_type"], summary["chance"]["closed"])
    ]
    rows.append(("Chance", chance[0], "", chance[1], "", ""))
    # group names may run on into the empty columns, so they do not widen the first one
    widths = [max(len(row[column]) for row in [head, *rows] if column or row[1]) for column in range(len(head))]
    print(
        f"{summary['n_rna']} held-out RNAs in {summary['n_clusters']} clusters, {summary['n_questions']} questions",
        file=file,
    )
    for row in [head, *rows]:
        text = "  ".join(
            cell.ljust(width) if column in (0, 1, 3) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print(text.rstrip(), file=file)


def share_of_row(counts: Sequence[int]) -> list[float]:
    """Counts as percentages of their sum.

    >>> share_of_row([3, 1, 0])
    [75.0, 25.0, 0.0]
    """
    return [100 * count / max(sum(counts), 1) for count in counts]
