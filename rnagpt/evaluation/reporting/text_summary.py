"""From stored scores and likelihoods to figures: tables by mode, grounding gaps, strata, calibration; no model needed.

Everything here is computed from evaluation/items.jsonl, scores.jsonl and likelihoods.jsonl.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from rnagpt.evaluation.asking.items import Item
from rnagpt.evaluation.asking.systems import controlled, in_order
from rnagpt.evaluation.scoring import closed_scores, statistics
from rnagpt.evaluation.scoring.measures import Key, rna_key
from rnagpt.evaluation.scoring.rouge import ROUGE
from rnagpt.evaluation.scoring.strata import DIMENSIONS, bin_order, bins_of
from rnagpt.evaluation.scoring.text_scores import MODES

Answers = Mapping[Key, Item]
Measures = Mapping[str, Mapping[Key, Mapping]]
PARTS = ("precision", "recall", "f1")
SMALLEST_BIN = 5  # items: below, a bin's mean says nothing
ABSTENTION_RISK = 0.1


def text_tables(
    answers: Mapping[str, Answers], scores: Measures, main: str | None, confidence: float, seed: int
) -> list[dict]:
    """One entry per annotation set: {"method", "n_rna", "n_questions", "systems", "comparisons"}.

    A system has, per mode and metric, precision and recall as means and F1 as an estimate over clusters. In `paper`
    mode the unit is the RNA, elsewhere the question. Comparisons: of F1, Holm over all of the table.
    """
    methods = sorted({item.method for of_system in answers.values() for item in of_system.values()})
    tables = []
    for method in methods:
        of_set = {
            spec.key: {key: item for key, item in answers[spec.key].items() if item.method == method}
            for spec in in_order({key for key in answers if scores.get(key)})
        }
        rows = {system: _units(items, scores[system], method) for system, items in of_set.items()}
        rows = {system: units for system, units in rows.items() if units}
        if not rows:
            continue
        table = {
            "method": method,
            "n_rna": len({item.rna_id for items in of_set.values() for item in items.values()}),
            "n_questions": len({key for items in of_set.values() for key in items}),
            "systems": [
                {"system": system, "modes": _means(units, confidence, seed)} for system, units in rows.items()
            ],
        }
        if main in rows:
            table["comparisons"] = _text_comparisons(main, rows, confidence, seed)
        tables.append(table)
    return tables


def _units(items: Answers, scores: Mapping[Key, Mapping], method: str) -> dict[str, dict[str, dict]]:
    """Mode -> metric -> unit's key -> (P, R, F1, cluster)."""
    units: dict[str, dict[str, dict]] = {mode: {} for mode in MODES}
    rnas: dict[str, list[Item]] = {}
    for key, item in items.items():
        if key not in scores:
            continue
        rnas.setdefault(item.rna_id, []).append(item)
        for name, value in scores[key].items():
            mode, _, label = name.rpartition(":")
            units[mode or "aligned"].setdefault(label, {})[key] = (*value, item.cluster)
    for rna_id, its_items in rnas.items():
        pairs = [scores[item.key] for item in its_items]
        tokens = [name for name in pairs[0] if name in ROUGE or name.startswith("aligned:")]
        own = scores.get(rna_key(rna_id, method), {})
        values = {
            name.removeprefix("aligned:"): np.mean([pair[name] for pair in pairs], axis=0).tolist()
            for name in tokens
            if f"paper:{name.removeprefix('aligned:')}" not in own
        }
        values |= {name.removeprefix("paper:"): value for name, value in own.items()}
        for label, value in values.items():
            units["paper"].setdefault(label, {})[rna_id] = (*value, its_items[0].cluster)
    return {mode: metrics for mode, metrics in units.items() if metrics}


def _means(units: Mapping, confidence: float, seed: int) -> dict:
    return {
        mode: {
            label: {
                **{
                    part: float(np.mean([row[place] for row in rows.values()])) for place, part in enumerate(PARTS[:2])
                },
                "f1": statistics.mean_score(
                    [row[2] for row in rows.values()], [row[3] for row in rows.values()], confidence, seed
                ).to_dict(),
            }
            for label, rows in metrics.items()
        }
        for mode, metrics in units.items()
    }


def _text_comparisons(main: str, rows: Mapping, confidence: float, seed: int) -> list[dict]:
    found = []
    for other in rows:
        if other == main:
            continue
        for mode, metrics in rows[main].items():
            for label, ours in metrics.items():
                theirs = rows[other].get(mode, {}).get(label, {})
                shared = [key for key in ours if key in theirs]
                if not shared:
                    continue
                difference, p_value = statistics.paired_difference(
                    [ours[key][2] for key in shared],
                    [theirs[key][2] for key in shared],
                    [ours[key][3] for key in shared],
                    confidence,
                    seed,
                )
                found.append(
                    {"system": main, "other": other, "mode": mode, "metric": label, "p": p_value}
                    | difference.to_dict()
                )
    return _with_holm(found)


def _with_holm(rows: list[dict]) -> list[dict]:
    return [
        row | {"p_holm": adjusted}
        for row, adjusted in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True)
    ]


def grounding(
    answers: Mapping[str, Answers],
    likelihoods: Measures,
    scores: Measures,
    headline_metric: str | None,
    confidence: float,
    seed: int,
) -> list[dict]:
    """What a model loses without the true RNA: {"system", "control", "measure", value, low, high, p, p_holm, ...}.

    Measures: "label" (share of right labels), "likelihood" (of the true answer, nats per token) and the headline
    similarity. Holm over all rows. A gap whose interval contains 0 shows no reading of the RNA.
    """
    rows = []
    for spec in in_order(set(answers)):
        parts = controlled(spec.key)
        if parts is None or parts[0] not in answers:
            continue
        true, other = answers[parts[0]], answers[spec.key]
        for measure, ours, theirs, clusters in _paired_values(
            true, other, parts[0], spec.key, likelihoods, scores, headline_metric
        ):
            gap, p_value = statistics.paired_difference(ours, theirs, clusters, confidence, seed)
            rows.append(
                {
                    "system": parts[0],
                    "control": parts[1],
                    "measure": measure,
                    "p": p_value,
                    "true": float(np.mean(ours)),
                    "other": float(np.mean(theirs)),
                }
                | gap.to_dict()
            )
    return _with_holm(rows)


def _paired_values(
    true: Answers,
    other: Answers,
    system: str,
    control: str,
    likelihoods: Measures,
    scores: Measures,
    headline_metric: str | None,
):
    """Yields (measure, values with the true RNA, values with the other, clusters) for what both have."""

    def pick(measure, value):
        keys = [
            key
            for key in true
            if key in other and value(system, true[key]) is not None and value(control, other[key]) is not None
        ]
        if keys:
            yield (
                measure,
                [value(system, true[key]) for key in keys],
                [value(control, other[key]) for key in keys],
                [true[key].cluster for key in keys],
            )

    yield from pick("label", lambda _, item: None if item.free_text else float(item.correct))
    yield from pick(
        "likelihood", lambda key, item: likelihoods.get(key, {}).get(item.key, {}).get("reference_logprob")
    )
    if headline_metric:
        yield from pick(
            headline_metric,
            lambda key, item: scores.get(key, {}).get(item.key, {}).get(headline_metric, [None] * 3)[2],
        )


def headline_metric_of(scores: Measures) -> str | None:
    """The similarity that speaks for free text: the last aligned encoder of the scores, else ROUGE-L."""
    names = next((values for of_system in scores.values() for key, values in of_system.items() if key[2]), {})
    aligned = [name for name in names if name.startswith("aligned:")]
    return aligned[-1] if aligned else "rougeL" if "rougeL" in names else None


def strata(
    answers: Mapping[str, Answers],
    scores: Measures,
    headline_metric: str | None,
    detailed: Sequence[str],
    confidence: float,
    seed: int,
) -> list[dict]:
    """{"dimension", "label", "measure", "bins": [{"bin", "n", "systems": {key: value or estimate}}]}.

    Measures: "label" for labelled items, the headline similarity for free text. Systems in `detailed` get intervals.
    """
    tables = []
    for measure in ("label", headline_metric):
        values = (
            {
                system: {
                    key: value
                    for key, item in items.items()
                    if (
                        value := (
                            (None if item.free_text else float(item.correct))
                            if measure == "label"
                            else scores.get(system, {}).get(key, {}).get(measure, [None] * 3)[2]
                            if item.free_text
                            else None
                        )
                    )
                    is not None
                }
                for system, items in answers.items()
            }
            if measure
            else {}
        )
        values = {system: of_system for system, of_system in values.items() if of_system}
        for dimension, label in DIMENSIONS.items():
            places: dict[str, set[Key]] = {}
            for system in values:
                for key in values[system]:
                    name = bins_of(answers[system][key]).get(dimension)
                    if name:
                        places.setdefault(name, set()).add(key)
            places = {name: keys for name, keys in places.items() if len(keys) >= SMALLEST_BIN}
            if len(places) < 2 and dimension != "train_identity" or not places:
                continue
            bins = []
            for name in bin_order(dimension, list(places)):
                row = {}
                for spec in in_order(set(values)):
                    keys = [key for key in values[spec.key] if key in places[name]]
                    if keys:
                        row[spec.key] = _stratum(
                            [values[spec.key][key] for key in keys],
                            [answers[spec.key][key].cluster for key in keys],
                            measure == "label",
                            spec.key in detailed,
                            confidence,
                            seed,
                        )
                bins.append({"bin": name, "n": len(places[name]), "systems": row})
            tables.append({"dimension": dimension, "label": label, "measure": measure, "bins": bins})
    return tables


def _stratum(values: list[float], clusters: list, labels: bool, detailed: bool, confidence: float, seed: int) -> dict:
    if not detailed:
        return {"value": float(np.mean(values)), "n_items": len(values)}
    estimate = statistics.accuracy if labels else statistics.mean_score
    return estimate(values, clusters, confidence, seed).to_dict()


def calibrations(answers: Mapping[str, Answers], likelihoods: Measures) -> dict[str, dict]:
    """System -> calibration of its most likely option, and what abstaining buys."""
    found = {}
    for spec in in_order(set(answers)):
        sure, right = [], []
        for key, item in answers[spec.key].items():
            logprobs = likelihoods.get(spec.key, {}).get(key, {}).get("option_logprobs")
            if logprobs and len(logprobs) == len(item.options):
                shares = closed_scores.option_confidence(logprobs)
                best = int(np.argmax(shares))
                sure.append(shares[best])
                right.append(item.options[best] == item.gold)
        if sure:
            found[spec.key] = closed_scores.calibration(sure, right) | {
                "accuracy": float(np.mean(right)),
                "risk_coverage": closed_scores.risk_coverage(sure, right),
                "abstention": closed_scores.abstain(sure, right, ABSTENTION_RISK),
                "highest_risk": ABSTENTION_RISK,
            }
    return found


def citations(answers: Mapping[str, Answers], confidence: float, seed: int) -> dict[str, dict]:
    """System -> of the papers cited, how many support the reference (precision, over the answers that cite any), and
    of those that support it, how many are cited (recall, over all answers whose reference rests on papers)."""
    found = {}
    for spec in in_order(set(answers)):
        items = [item for item in answers[spec.key].values() if item.evidence_pmids]
        support = [
            (item, closed_scores.citation_support(cited, item.evidence_pmids), bool(cited))
            for item in items
            for cited in [closed_scores.cited_pmids(item.answer or "")]
        ]
        citing = [(item, row) for item, row, cites in support if cites]
        if not citing:
            continue
        found[spec.key] = {
            "precision": statistics.mean_score(
                [row["precision"] for _, row in citing], [item.cluster for item, _ in citing], confidence, seed
            ).to_dict(),
            "recall": statistics.mean_score(
                [row["recall"] for _, row, _ in support], [item.cluster for item, _, _ in support], confidence, seed
            ).to_dict(),
        }
    return found
