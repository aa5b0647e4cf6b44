"""Every figure of a run, recomputed from its stored answers, scores and likelihoods: one dict of plain numbers.

    summary = summarise("run/evaluation/items.jsonl")       # scores.jsonl, likelihoods.jsonl, judge.jsonl beside it

Two measures are kept apart: `rna_type` (the question what type the RNA is) and `closed` (all other questions
with a fixed set of answers). An answer in which no label is found counts as wrong, and is counted. Every interval is
over sequence clusters, and no model is needed.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rnagpt.evaluation.asking.items import SHUFFLED, Item, read_items
from rnagpt.evaluation.asking.run_record import read_record
from rnagpt.evaluation.asking.systems import controlled, in_order, system
from rnagpt.evaluation.scoring import closed_scores, statistics
from rnagpt.evaluation.scoring.measures import Key, Measures, read_measures, rna_key
from rnagpt.evaluation.scoring.rouge import ROUGE
from rnagpt.evaluation.scoring.strata import DIMENSIONS, bin_order, bins_of
from rnagpt.evaluation.scoring.text_scores import MODES
from rnagpt_core.errors import UserError

MAIN_SYSTEMS = ("stage2", "demo", "stage1")  # the report is about the first of these that was evaluated
EXAMPLES_OF_A_KIND = 4
TOPIC_ORDER = ("rna_type", "is_type", "length_class", "organism_group", "amino_acid")  # others follow by name
SMALLEST_BIN = 5  # items: below, a bin's mean says nothing
ABSTENTION_RISK = 0.1

Answers = dict[Key, Item]  # item key -> one system's answer


def summarise(items_path: str | Path) -> dict:
    """Accuracies with intervals, controls, comparisons, confusion matrix and examples of one items.jsonl, and what the
    scores and likelihoods beside it show.

    The same files give the same dict; it holds nothing but JSON types. UserError where the file is missing, empty,
    broken, or answers one question twice.
    """
    path = Path(items_path)
    answers = _read_answers(path)
    systems = read_record(path.parent.parent).get("systems", [])
    main = main_system(set(answers), [part["name"] for part in systems if part["kind"] == "rna"])
    every = {item.key: item for of_system in answers.values() for item in of_system.values()}
    by_measure = {measure: _of_measure(every, measure) for measure in ("rna_type", "closed")}
    type_of = {item.rna_id: item.rna_type for item in every.values()}
    types = Counter(type_of.values())
    present = {item.topic for item in by_measure["rna_type"] + by_measure["closed"]}
    topics = [topic for topic in TOPIC_ORDER if topic in present] + sorted(present - set(TOPIC_ORDER))
    by_topic = {topic: [item for item in every.values() if item.topic == topic] for topic in topics}
    summary = {
        "schema": 1,
        "items_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "confidence": statistics.CONFIDENCE,
        "seed": 0,
        "main": main,
        "n_rna": sum(types.values()),
        "n_clusters": len({item.cluster for item in every.values()}),
        "n_questions": len(every),
        "rna_types": dict(sorted(types.items())),
        "topics": topics,
        "chance": {
            measure: statistics.chance_level([item.options for item in items]) for measure, items in by_measure.items()
        }
        | {
            "topics": {
                topic: statistics.chance_level([item.options for item in items]) for topic, items in by_topic.items()
            }
        },
        "systems": [_system_row(key, of_system, topics) for key, of_system in answers.items()],
    }
    if main:
        follows = {key: _follows_shown(of_system, type_of) for key, of_system in answers.items()}
        summary["comparisons"] = _comparisons(main, answers)
        summary["follows_shown_rna"] = {key: estimate for key, estimate in follows.items() if estimate}
        summary["confusion"] = None
        if asked := _of_measure(answers[main], "rna_type"):
            labels, gold = sorted({*types, *(item.gold for item in asked)}), [item.gold for item in asked]
            counts = statistics.confusion_matrix(gold, [item.parsed for item in asked], labels)
            summary["confusion"] = {"labels": labels, "counts": counts.tolist()}
        summary["examples"] = _examples(main, answers, every)
    return summary | _what_scores_show(answers, main, path.parent)


def _read_answers(path: Path) -> dict[str, Answers]:
    """System -> its answers, in the order of the tables."""
    answers: dict[str, Answers] = defaultdict(dict)
    for item in read_items(path):
        if item.key in answers[item.system]:
            about = f"to the same question about {item.rna_id}: {item.question}"
            raise UserError(f"{path} holds two answers of {item.system} {about}")
        answers[item.system][item.key] = item
    if not answers:
        raise UserError(f"{path} holds no answers: run the evaluation first")
    return {spec.key: answers[spec.key] for spec in in_order(set(answers))}


def main_system(keys: set[str], named: Sequence[str] = ()) -> str | None:
    """The system that the report is about: the first of MAIN_SYSTEMS, else the first model with a control, else the
    first of those `named`, which a recipe calls models that read the RNA.

    >>> main_system({"stage1", "stage2", "majority"}), main_system({"mine", "mine_swapped"}), main_system({"majority"})
    ('stage2', 'mine', None)
    """
    models = sorted({parts[0] for key in keys if (parts := controlled(key)) and parts[0] in keys})
    return next((key for key in [*MAIN_SYSTEMS, *models, *named] if key in keys), None)


def _what_scores_show(answers: dict[str, Answers], main: str | None, folder: Path) -> dict:
    """Text tables, grounding gaps, strata, calibration, citations and verdicts, each where there are any."""
    scores, likelihoods, verdicts = (
        read_measures(folder / f"{name}.jsonl") for name in ("scores", "likelihoods", "judge")
    )
    metric = headline_metric_of(scores)
    found = {
        "text": _text_tables(answers, scores, main),
        "grounding": _grounding(answers, likelihoods, scores, metric),
        "strata": _strata(answers, scores, metric, [main, f"{main}_swapped"]),
        "calibration": _calibrations(answers, likelihoods),
        "citations": _citations(answers),
    }
    if verdicts:
        from rnagpt.evaluation.scoring.judge import judged

        items = [item for of_system in answers.values() for item in of_system.values()]
        found["judge"] = judged(items, verdicts)
    if (folder / "encoders.json").is_file():
        found["encoders"] = json.loads((folder / "encoders.json").read_text(encoding="utf-8"))
    return {name: value for name, value in (found | {"headline_metric": metric}).items() if value}


def headline_metric_of(scores: Measures) -> str | None:
    """The similarity that speaks for free text: the last aligned encoder of the scores, else ROUGE-L."""
    names = next((values for of_system in scores.values() for key, values in of_system.items() if key[2]), {})
    aligned = [name for name in names if name.startswith("aligned:")]
    return aligned[-1] if aligned else "rougeL" if "rougeL" in names else None


# --- estimates and comparisons


def _of_measure(answers: Answers, measure: str) -> list[Item]:
    if measure == "rna_type":
        return [item for item in answers.values() if item.topic == "rna_type"]
    return [item for item in answers.values() if item.kind == "closed" and item.topic != "rna_type"]


def _accuracy(items: Sequence[Item]) -> dict | None:
    if not items:
        return None
    scores = closed_scores.agreement([item.gold for item in items], [item.parsed for item in items])
    estimate = statistics.accuracy([item.correct for item in items], [item.cluster for item in items])
    return estimate.to_dict() | {name: scores[name] for name in ("balanced", "mcc", "macro_f1", "unparseable")}


def _system_row(key: str, answers: Answers, topics: Sequence[str]) -> dict:
    spec = system(key)
    return {
        "system": key,
        "label": spec.label,
        "group": spec.group,
        "about": spec.about,
        "rna_type": _accuracy(_of_measure(answers, "rna_type")),
        "closed": _accuracy(_of_measure(answers, "closed")),
        "topics": {topic: _accuracy([item for item in answers.values() if item.topic == topic]) for topic in topics},
        "n_items": len(answers),
        "unparseable": sum(item.parsed is None for item in answers.values() if not item.free_text),
    }


def _gap(pairs: Sequence[tuple[float, float, int]]) -> dict:
    """(ours, theirs, cluster) of every item -> {"p", "value", "low", "high", ...} of ours minus theirs."""
    difference, p_value = statistics.paired_difference(*map(list, zip(*pairs, strict=True)))
    return {"p": p_value} | difference.to_dict()


def _with_holm(rows: list[dict]) -> list[dict]:
    adjusted = statistics.holm([row["p"] for row in rows])
    return [row | {"p_holm": p_value} for row, p_value in zip(rows, adjusted, strict=True)]


def _mean(values: Iterable[tuple[float, int]]) -> dict:
    """(score, cluster) of every item -> its mean with an interval."""
    return statistics.mean_score(*map(list, zip(*values, strict=True))).to_dict()


def _comparisons(main: str, answers: dict[str, Answers]) -> list[dict]:
    """The main system against every other one on the questions that both answered; Holm within each measure."""
    rows = []
    for measure in ("rna_type", "closed"):
        family = []
        ours = _of_measure(answers[main], measure)
        for other in [key for key in answers if key != main]:
            theirs = answers[other]
            pairs = [(item.correct, theirs[item.key].correct, item.cluster) for item in ours if item.key in theirs]
            if pairs:
                family.append({"measure": measure, "system": main, "other": other} | _gap(pairs))
        rows += _with_holm(family)
    return rows


def _follows_shown(answers: Answers, type_of: dict[str, str]) -> dict | None:
    """How often a system that saw another RNA named that RNA's type; None where it saw the true one, or none."""
    found = [
        (item.parsed == type_of[item.shown_rna_id], item.cluster)
        for item in _of_measure(answers, "rna_type")
        if item.shown_rna_id not in (None, item.rna_id, item.rna_id + SHUFFLED) and item.shown_rna_id in type_of
    ]
    return statistics.accuracy(*map(list, zip(*found, strict=True))).to_dict() if found else None


def _examples(main: str, answers: dict[str, Answers], every: Answers) -> list[dict]:
    """Four right answers, four wrong ones, and what became of right ones once another RNA was swapped in."""
    swapped = answers.get(f"{main}_swapped", {})
    labelled = [item for item in answers[main].values() if not item.free_text]
    right = [item for item in labelled if item.correct]
    pools = {
        "right": right,
        "wrong": [item for item in labelled if not item.correct],
        "swapped": [item for item in right if item.key in swapped and item.topic == "rna_type"],
    }
    about = {item.rna_id: item for item in every.values()}
    names = ("rna_id", "name", "rna_type", "true_length", "question", "reference", "answer", "parsed")
    examples = []
    for outcome, pool in pools.items():
        for item in _varied(pool):
            example = {"outcome": outcome} | {name: getattr(item, name) for name in names}
            if outcome == "swapped":
                other = swapped[item.key]
                partner = about.get(other.shown_rna_id)
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


def _text_tables(answers: dict[str, Answers], scores: Measures, main: str | None) -> list[dict]:
    """One entry per annotation set: {"method", "n_rna", "n_questions", "systems", "comparisons"}.

    A system has, per mode and metric, precision and recall as means and F1 as an estimate over clusters. In `paper`
    mode the RNA counts once, elsewhere every question. Comparisons: of F1, Holm over all of the table.
    """
    tables = []
    for method in sorted({item.method for of_system in answers.values() for item in of_system.values()}):
        scored = [key for key in answers if scores.get(key)]
        of_set = {key: [item for item in answers[key].values() if item.method == method] for key in scored}
        rows = {key: modes for key, items in of_set.items() if (modes := _by_mode(items, scores[key], method))}
        if not rows:
            continue
        means = {key: {mode: _parts(metrics) for mode, metrics in modes.items()} for key, modes in rows.items()}
        table = {
            "method": method,
            "n_rna": len({item.rna_id for items in of_set.values() for item in items}),
            "n_questions": len({item.key for items in of_set.values() for item in items}),
            "systems": [{"system": key, "modes": modes} for key, modes in means.items()],
        }
        tables.append(table | ({"comparisons": _text_comparisons(main, rows)} if main in rows else {}))
    return tables


def _by_mode(items: Sequence[Item], scores: Mapping[Key, Mapping], method: str) -> dict[str, dict[str, dict]]:
    """Mode -> metric -> key of a question or an RNA -> (P, R, F1, cluster)."""
    modes: dict[str, dict[str, dict]] = {mode: {} for mode in MODES}
    rnas: dict[str, list[Item]] = {}
    for item in items:
        if item.key in scores:
            rnas.setdefault(item.rna_id, []).append(item)
            for name, value in scores[item.key].items():
                mode, _, label = name.rpartition(":")
                modes[mode or "aligned"].setdefault(label, {})[item.key] = (*value, item.cluster)
    for rna_id, its_items in rnas.items():
        pairs = [scores[item.key] for item in its_items]
        # a metric that was computed from all answers about an RNA at once, else the mean over its questions
        own = {name.removeprefix("paper:"): value for name, value in scores.get(rna_key(rna_id, method), {}).items()}
        means = {
            name.removeprefix("aligned:"): np.mean([pair[name] for pair in pairs], axis=0).tolist()
            for name in pairs[0]
            if name in ROUGE or name.startswith("aligned:")
        }
        for label, value in ({label: means[label] for label in means if label not in own} | own).items():
            modes["paper"].setdefault(label, {})[rna_id] = (*value, its_items[0].cluster)
    return {mode: metrics for mode, metrics in modes.items() if metrics}


def _parts(metrics: Mapping[str, Mapping]) -> dict[str, dict]:
    """Of each metric the mean precision and recall, and F1 with its interval."""
    parts = {}
    for label, values in metrics.items():
        precision, recall, f1, clusters = zip(*values.values(), strict=True)
        means = {"precision": float(np.mean(precision)), "recall": float(np.mean(recall))}
        parts[label] = means | {"f1": _mean(zip(f1, clusters, strict=True))}
    return parts


def _text_comparisons(main: str, rows: Mapping[str, dict]) -> list[dict]:
    found = []
    for other in [key for key in rows if key != main]:
        for mode, metrics in rows[main].items():
            for label, ours in metrics.items():
                theirs = rows[other].get(mode, {}).get(label, {})
                pairs = [(value[2], theirs[key][2], value[3]) for key, value in ours.items() if key in theirs]
                if pairs:
                    about = {"system": main, "other": other, "mode": mode, "metric": label}
                    found.append(about | _gap(pairs))
    return _with_holm(found)


# --- what reading the RNA brings, where it works, and how sure it is


def _label(item: Item) -> float | None:
    return None if item.free_text else float(item.correct)


def _f1(scores: Measures, metric: str | None, key: str, item: Item) -> float | None:
    return scores.get(key, {}).get(item.key, {}).get(metric, [None] * 3)[2]


def _grounding(answers: dict[str, Answers], likelihoods: Measures, scores: Measures, metric: str | None) -> list[dict]:
    """What a model loses without the true RNA: {"system", "control", "measure", value, low, high, p, p_holm, ...}.

    Measures: "label" (share of right labels), "likelihood" (of the true answer, nats per token) and the headline
    similarity. Holm over all rows. A gap whose interval contains 0 shows no reading of the RNA.
    """
    measures: dict[str, Callable[[str, Item], float | None]] = {
        "label": lambda key, item: _label(item),
        "likelihood": lambda key, item: likelihoods.get(key, {}).get(item.key, {}).get("reference_logprob"),
    }
    if metric:
        measures[metric] = lambda key, item: _f1(scores, metric, key, item)
    rows = []
    for name, without in answers.items():
        model, control = controlled(name) or ("", "")
        both = [(item, without[key]) for key, item in answers.get(model, {}).items() if key in without]
        for measure, value in measures.items():
            values = [(value(model, item), value(name, other), item.cluster) for item, other in both]
            pairs = [pair for pair in values if None not in pair[:2]]
            if pairs:
                means = {"true": float(np.mean([pair[0] for pair in pairs]))}
                means["other"] = float(np.mean([pair[1] for pair in pairs]))
                rows.append({"system": model, "control": control, "measure": measure} | means | _gap(pairs))
    return _with_holm(rows)


def _strata(
    answers: dict[str, Answers], scores: Measures, metric: str | None, detailed: Sequence[str | None]
) -> list[dict]:
    """{"dimension", "label", "measure", "bins": [{"bin", "n", "systems": {key: value or estimate}}]}.

    Measures: "label" for labelled items, the headline similarity for free text. Systems in `detailed` get intervals.
    """
    values: dict[str, dict[str, dict[Key, float]]] = {"label": {}, **({metric: {}} if metric else {})}
    for name, of_system in answers.items():
        for key, item in of_system.items():
            measure = metric if item.free_text else "label"
            value = _f1(scores, metric, name, item) if item.free_text else _label(item)
            if value is not None:
                values[measure].setdefault(name, {})[key] = value
    tables = []
    for measure, of_systems in values.items():
        estimate = statistics.accuracy if measure == "label" else statistics.mean_score
        for dimension, label in DIMENSIONS.items():
            places: dict[str, set[Key]] = defaultdict(set)
            for name, of_system in of_systems.items():
                for key in of_system:
                    if place := bins_of(answers[name][key]).get(dimension):
                        places[place].add(key)
            places = {place: keys for place, keys in places.items() if len(keys) >= SMALLEST_BIN}
            if len(places) < 2 and dimension != "train_identity" or not places:
                continue
            bins = []
            for place in bin_order(dimension, list(places)):
                row = {}
                for name, of_system in of_systems.items():
                    keys = [key for key in of_system if key in places[place]]
                    found = [of_system[key] for key in keys]
                    if name in detailed and found:
                        row[name] = estimate(found, [answers[name][key].cluster for key in keys]).to_dict()
                    elif found:
                        row[name] = {"value": float(np.mean(found)), "n_items": len(found)}
                bins.append({"bin": place, "n": len(places[place]), "systems": row})
            tables.append({"dimension": dimension, "label": label, "measure": measure, "bins": bins})
    return tables


def _calibrations(answers: dict[str, Answers], likelihoods: Measures) -> dict[str, dict]:
    """System -> calibration of its most likely option, and what abstaining buys."""
    from scipy.special import softmax

    found = {}
    for name, of_system in answers.items():
        sure, right = [], []
        for key, item in of_system.items():
            logprobs = likelihoods.get(name, {}).get(key, {}).get("option_logprobs")
            if logprobs and len(logprobs) == len(item.options):
                shares = softmax(logprobs)
                best = int(np.argmax(shares))
                sure.append(float(shares[best]))
                right.append(item.options[best] == item.gold)
        if sure:
            found[name] = closed_scores.calibration(sure, right) | {
                "accuracy": float(np.mean(right)),
                "risk_coverage": closed_scores.risk_coverage(sure, right),
                "abstention": closed_scores.abstain(sure, right, ABSTENTION_RISK),
                "highest_risk": ABSTENTION_RISK,
            }
    return found


def _citations(answers: dict[str, Answers]) -> dict[str, dict]:
    """System -> of the papers cited, how many support the reference (precision, over the answers that cite any), and
    of those that support it, how many are cited (recall, over all answers whose reference rests on papers)."""
    found = {}
    for name, of_system in answers.items():
        precisions, recalls = [], []
        for item in of_system.values():
            if item.evidence_pmids:
                cited = closed_scores.cited_pmids(item.answer or "")
                support = closed_scores.citation_support(cited, item.evidence_pmids)
                recalls.append((support["recall"], item.cluster))
                precisions += [(support["precision"], item.cluster)] if cited else []
        if precisions:
            found[name] = {"precision": _mean(precisions), "recall": _mean(recalls)}
    return found
