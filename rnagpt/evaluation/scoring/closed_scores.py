"""Scores of closed questions, of how well a model knows what it knows, and of the papers that an answer cites.

    agreement(gold, parsed)                     # accuracy, balanced accuracy, MCC, macro-F1, unparseable
    calibration(confidence, correct)            # ECE, Brier, and the reliability diagram's points
    risk_coverage(confidence, correct)          # error among the answers kept as the least sure ones are withheld

An answer in which no label was found (None) counts as wrong everywhere, and is counted.
"""

import re
from collections.abc import Sequence

import numpy as np

BINS = 10
CITATION = re.compile(r"PMIDs?:?\s*(\d+(?:\s*[,;]\s*\d+)*)|\[(\d{4,9}(?:\s*[,;]\s*\d{4,9})*)\]|\b(PMC\d+)")
NONE = "\0none"  # stands for an unparseable answer; no label can be it


def agreement(gold: Sequence[str], parsed: Sequence[str | None]) -> dict:
    """Agreement of labels with the truth; the labels are those that occur in `gold`.

    accuracy; balanced (mean recall of the gold labels); mcc (multi-class, Gorodkin 2004; 0 where it is undefined);
    macro_f1 (mean over the gold labels); unparseable: how many answers are None.

    >>> scores = agreement(["yes", "no", "no", "no"], ["yes", "no", "yes", None])
    >>> scores["accuracy"], scores["unparseable"], round(scores["balanced"], 3), round(scores["macro_f1"], 3)
    (0.5, 1, 0.667, 0.583)
    """
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    if len(gold) != len(parsed) or not len(gold):
        raise ValueError(f"every answer needs its gold label: got {len(gold)} labels and {len(parsed)} answers")
    answers = [NONE if label is None else label for label in parsed]
    _, recall, f1, _ = precision_recall_fscore_support(gold, answers, labels=sorted(set(gold)), zero_division=0)
    return {
        "accuracy": float(accuracy_score(gold, answers)),
        "balanced": float(recall.mean()),
        "mcc": float(matthews_corrcoef(gold, answers)) if len({*gold, *answers}) > 1 else 0.0,
        "macro_f1": float(f1.mean()),
        "unparseable": answers.count(NONE),
    }


def calibration(confidence: Sequence[float], correct: Sequence[bool]) -> dict:
    """Expected calibration error in equally wide bins (Guo et al. 2017), Brier score of "this answer is right".

    `points`: per bin that holds answers, {"confidence", "accuracy", "n"}: the reliability diagram.

    >>> round(calibration([0.95, 0.95], [True, False])["ece"], 6)
    0.45
    """
    sure, right = _checked(confidence, correct)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    points = [
        {"confidence": float(sure[held].mean()), "accuracy": float(right[held].mean()), "n": int(held.sum())}
        for held in (place == i for i in np.unique(place))
    ]
    error = sum(abs(point["confidence"] - point["accuracy"]) * point["n"] for point in points) / len(sure)
    return {"ece": float(error), "brier": float(((sure - right) ** 2).mean()), "n": len(sure), "points": points}


def risk_coverage(confidence: Sequence[float], correct: Sequence[bool]) -> dict:
    """Share of wrong answers among the `coverage` most confident ones (El-Yaniv & Wiener 2010), and its area.

    Equally confident answers are kept or withheld together. `aurc` is the mean risk over all n coverages, ties
    counting with their mean; `best` is what an ordering by correctness itself would reach.

    >>> risk_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True])["points"][:2]
    [{'coverage': 0.25, 'risk': 0.0, 'confidence': 0.9}, {'coverage': 0.5, 'risk': 0.0, 'confidence': 0.8}]
    """
    sure, right = _checked(confidence, correct)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], 1 - right[order]
    # an answer's expected error is the mean of those as sure as it: no order within a tie is better than another
    _, place, sizes = np.unique(-sure, return_inverse=True, return_counts=True)
    expected = (np.bincount(place, weights=wrong) / sizes)[place]
    counts = np.arange(1, len(sure) + 1)
    risk = np.cumsum(expected) / counts
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    points = [
        {"coverage": float(counts[i] / len(sure)), "risk": float(risk[i]), "confidence": float(sure[i])} for i in ends
    ]
    best = np.cumsum(np.sort(wrong)) / counts
    return {"aurc": float(risk.mean()), "best": float(best.mean()), "points": points}


def abstain(confidence: Sequence[float], correct: Sequence[bool], highest_risk: float) -> dict | None:
    """The most answers that can be kept with at most this share of them wrong; None where no threshold does.

    >>> abstain([0.9, 0.8, 0.7, 0.6], [True, True, False, True], 0.1)
    {'coverage': 0.5, 'risk': 0.0, 'confidence': 0.8}
    """
    fitting = [point for point in risk_coverage(confidence, correct)["points"] if point["risk"] <= highest_risk]
    return fitting[-1] if fitting else None


def _checked(confidence: Sequence[float], correct: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    sure, right = np.asarray(confidence, float), np.asarray(correct, float)
    if len(sure) != len(right) or not len(sure):
        raise ValueError(f"every answer needs a confidence: got {len(sure)} for {len(right)} answers")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence lies between 0 and 1")
    return sure, right


def citation_support(cited: Sequence[str], evidence: Sequence[str]) -> dict[str, float]:
    """Papers that an answer cites against those that its reference rests on (PMIDs).

    precision is 0 where nothing is cited; an answer without evidence to cite has no score, which is an error here.

    >>> citation_support(["1", "2"], ["2", "3", "4"])
    {'precision': 0.5, 'recall': 0.3333333333333333}
    """
    if not evidence:
        raise ValueError("citation support needs the papers that the reference rests on")
    hits = len(set(cited) & set(evidence))
    return {"precision": hits / len(set(cited)) if cited else 0.0, "recall": hits / len(set(evidence))}


def cited_pmids(text: str) -> list[str]:
    """The PMIDs and PMC ids in an answer: "PMID 123", "PMID: 123, 456", "[123; 456]", "PMC123".

    >>> cited_pmids("It binds Hfq [10547669; 2465298] (PMID: 777, PMC12345). In 1999, 22 nt.")
    ['10547669', '2465298', '777', 'PMC12345']
    """
    found = []
    for match in CITATION.finditer(text):
        listed = match[1] or match[2]
        found += re.findall(r"\d+", listed) if listed else [match[3]]
    return list(dict.fromkeys(found))
