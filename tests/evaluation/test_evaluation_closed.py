"""Closed questions against scikit-learn, calibration against numbers planted or worked out by hand, citations."""

import numpy as np
import pytest
import sklearn.metrics as metrics

from rnagpt.evaluation.asking.items import option_in
from rnagpt.evaluation.scoring.closed_scores import (
    NONE,
    abstain,
    agreement,
    calibration,
    citation_support,
    cited_pmids,
    risk_coverage,
)

LABELS = ["miRNA", "snRNA", "tRNA"]


@pytest.mark.parametrize("answers", [LABELS, [*LABELS, None], ["tRNA"], [None], ["tRNA", "elsewhere"]])
def test_agreement_equals_scikit_learn(answers):
    rng = np.random.default_rng(len(answers))
    gold = rng.choice(LABELS, 200, p=[0.6, 0.3, 0.1]).tolist()
    parsed = [answers[i] for i in rng.integers(len(answers), size=200)]
    theirs = [NONE if label is None else label for label in parsed]
    got = agreement(gold, parsed)
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(gold, theirs))
    recall = metrics.recall_score(gold, theirs, labels=LABELS, average="macro", zero_division=0)
    assert got["balanced"] == pytest.approx(recall)
    assert got["mcc"] == pytest.approx(metrics.matthews_corrcoef(gold, theirs), abs=1e-12)
    f1 = metrics.f1_score(gold, theirs, labels=LABELS, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(f1)
    assert got["unparseable"] == parsed.count(None)


def test_brier_equals_scikit_learn_and_a_calibrated_model_has_no_error():
    rng = np.random.default_rng(0)
    sure = rng.random(50_000)
    right = rng.random(50_000) < sure  # right as often as it says
    got = calibration(sure, right)
    assert got["brier"] == pytest.approx(metrics.brier_score_loss(right, sure))
    assert got["ece"] < 0.01 and sum(point["n"] for point in got["points"]) == 50_000
    assert calibration([0.9] * 10, [False] * 10)["ece"] == pytest.approx(0.9)


def test_ece_by_hand():
    # bins 0.6-0.7 (mean 0.65, one of two right) and 0.9-1.0 (mean 0.95, all of two right)
    got = calibration([0.62, 0.68, 0.92, 0.98], [True, False, True, True])
    assert got["ece"] == pytest.approx(0.5 * abs(0.65 - 0.5) + 0.5 * abs(0.95 - 1.0))
    assert [point["n"] for point in got["points"]] == [2, 2]


def test_risk_coverage_of_a_model_that_knows_what_it_knows():
    right = [True] * 6 + [False] * 4
    knows = risk_coverage(np.linspace(1, 0, 10), right)
    assert knows["aurc"] == knows["best"] == pytest.approx(sum(max(0, n - 6) / n for n in range(1, 11)) / 10)
    assert knows["points"][-1] == {"coverage": 1.0, "risk": pytest.approx(0.4), "confidence": 0.0}
    blind = risk_coverage([0.5] * 10, right)
    assert blind["aurc"] == pytest.approx(0.4) and len(blind["points"]) == 1
    assert risk_coverage(np.linspace(0, 1, 10), right)["aurc"] > 0.4
    assert abstain(np.linspace(1, 0, 10), right, 0.0)["coverage"] == 0.6
    assert abstain([0.5] * 10, right, 0.1) is None


def test_citations():
    assert citation_support(["1"], ["1"]) == {"precision": 1, "recall": 1}
    assert citation_support([], ["1"]) == {"precision": 0, "recall": 0}
    assert cited_pmids("No papers. 1998, 22 nt [sic] [12].") == []
    with pytest.raises(ValueError, match="rests on"):
        citation_support(["1"], [])


@pytest.mark.parametrize(
    "answer, options, found",
    [
        ("yes", ("yes", "no"), "yes"),
        ("No.", ("yes", "no"), "no"),
        ("It is known to be so.", ("yes", "no"), None),
        ("(B)", ("tRNA", "rRNA"), "rRNA"),
        ("A tRNA.", ("rRNA", "tRNA"), "tRNA"),
        ("messenger RNA", ("RNA", "messenger RNA"), "messenger RNA"),
        ("a pre-miRNA", ("miRNA", "pre-miRNA"), "pre-miRNA"),
        ("", ("yes", "no"), None),
    ],
)
def test_an_option_is_found_or_not(answer, options, found):
    assert option_in(answer, options) == found


@pytest.mark.parametrize(
    "call",
    [
        lambda: agreement([], []),
        lambda: calibration([0.5], []),
        lambda: calibration([1.5], [True]),
        lambda: risk_coverage([], []),
    ],
)
def test_nothing_to_measure_is_an_error(call):
    with pytest.raises(ValueError):
        call()
