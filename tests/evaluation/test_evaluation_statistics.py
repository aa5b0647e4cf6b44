"""Intervals and tests against scipy, scikit-learn and values worked out by hand."""

import numpy as np
import pytest
import scipy.stats as scipy_stats
import sklearn.metrics as sklearn_metrics
from statsmodels.stats import multitest

from rnagpt.evaluation.scoring.statistics import (
    accuracy,
    chance_level,
    confusion_matrix,
    holm,
    mean_score,
    paired_difference,
    sum_by_cluster,
    wilson_interval,
)


@pytest.mark.parametrize("successes, trials", [(0, 7), (1, 7), (26, 52), (199, 200), (200, 200)])
def test_wilson_equals_scipy(successes, trials):
    expected = scipy_stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_needs_a_trial():
    with pytest.raises(ValueError, match="at least one trial"):
        wilson_interval(0, 0)


def test_accuracy_of_single_item_clusters_agrees_with_wilson():
    correct = [True] * 140 + [False] * 60
    estimate = accuracy(correct, range(200))
    assert estimate.value == 0.7 and (estimate.n_items, estimate.n_clusters) == (200, 200)
    assert estimate.method.startswith("BCa")
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(140, 200), abs=0.012)


def test_asking_each_rna_ten_times_makes_no_interval_narrower():
    rng = np.random.default_rng(0)
    correct = rng.random(60) < 0.6
    once = accuracy(correct, range(60))
    tenfold = accuracy(np.repeat(correct, 10), np.repeat(np.arange(60), 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert tenfold.n_items == 600 and tenfold.n_clusters == 60
    as_if_independent = accuracy(np.repeat(correct, 10), range(600))
    assert as_if_independent.high - as_if_independent.low < 0.4 * (once.high - once.low)


def test_accuracy_weighs_items_not_clusters():
    assert accuracy([True] * 9 + [False], ["big"] * 9 + ["small"]).value == 0.9


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), 0
    for _ in range(60):
        skill = rng.beta(2, 2, size=50)  # clusters differ in difficulty; the truth is 0.5
        sizes = rng.integers(1, 6, size=50)
        correct = rng.random(sizes.sum()) < np.repeat(skill, sizes)
        estimate = accuracy(correct, np.repeat(np.arange(50), sizes))
        covered += estimate.low <= 0.5 <= estimate.high
    assert covered >= 52  # 57 expected; fewer than 52 has a chance of 0.3 % at a coverage of 0.95


@pytest.mark.parametrize(
    "correct, clusters, trials",
    [
        ([True] * 12, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], 4),
        ([False] * 5, range(5), 5),
        ([True, False], ["only", "only"], 1),
        ([True, False] * 3, [0, 0, 1, 1, 2, 2], 3),
    ],
)
def test_without_spread_the_interval_is_wilson_over_clusters(correct, clusters, trials):
    estimate = accuracy(correct, list(clusters))
    assert estimate.method == "Wilson over clusters"
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(np.mean(correct) * trials, trials))
    assert estimate.low < estimate.high


def test_accuracy_is_the_same_every_time():
    correct, clusters = [True, False, True, True], [1, 1, 2, 3]
    assert accuracy(correct, clusters, seed=5) == accuracy(correct, clusters, seed=5)


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="nothing to measure"):
        accuracy([], [])
    with pytest.raises(ValueError, match="got 2 values and 1 clusters"):
        sum_by_cluster([1, 0], ["a"])


def test_confusion_equals_scikit_learn():
    rng = np.random.default_rng(1)
    labels = ["miRNA", "snRNA", "tRNA"]
    gold, parsed = rng.choice(labels, 90, p=[0.6, 0.3, 0.1]).tolist(), rng.choice(labels, 90).tolist()
    counts = confusion_matrix(gold, parsed, labels)
    assert (counts[:, :3] == sklearn_metrics.confusion_matrix(gold, parsed, labels=labels)).all()
    assert (counts[:, 3] == 0).all()


def test_unparseable_answers_have_their_own_column():
    assert confusion_matrix(["a", "a", "b"], [None, "a", "elsewhere"], ["a", "b"]).tolist() == [[1, 0, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="'c'"):
        confusion_matrix(["c"], ["a"], ["a", "b"])


def test_chance_needs_options():
    assert chance_level([["a", "b"], []]) is None is chance_level([])


def test_permutation_p_value_worked_out_by_hand():
    # five clusters, A always right, B never: of the 2 ** 5 swaps two are as extreme
    difference, p_value = paired_difference([True] * 5, [False] * 5, range(5))
    assert p_value == pytest.approx(2 / 32)
    assert difference.value == 1 and difference.low < 1


def test_equal_systems_differ_by_nothing():
    correct = [True, False, True, False]
    difference, p_value = paired_difference(correct, correct, range(4))
    assert difference.value == 0 and p_value == 1 and difference.low < 0 < difference.high


def test_paired_difference_sees_what_is_there_and_not_what_is_not():
    rng = np.random.default_rng(2)
    weak = rng.random(200) < 0.4
    strong = weak | (rng.random(200) < 0.3)
    difference, p_value = paired_difference(strong, weak, range(200))
    assert p_value < 0.001 and 0 < difference.low < difference.value < difference.high
    _, p_value = paired_difference(rng.permutation(weak), weak, range(200))
    assert p_value > 0.2


def test_swapping_the_two_systems_turns_the_difference_round():
    a, b, clusters = [True, True, False, True, True], [False, True, False, False, True], [0, 0, 1, 2, 3]
    forward, p_forward = paired_difference(a, b, clusters)
    backward, p_backward = paired_difference(b, a, clusters)
    assert forward.value == -backward.value and p_forward == p_backward


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- scores that are no proportions


def bca_written_out(values, clusters, confidence=0.95, resamples=20_000, seed=0):
    """Efron 1987 as in the book: bias z0 from the share of resamples below, acceleration from the jackknife."""
    norm, rng = scipy_stats.norm, np.random.default_rng(seed)
    groups = [np.asarray(values)[np.asarray(clusters) == name] for name in sorted(set(clusters))]

    def mean_of(some):
        return np.concatenate(some).mean()

    seen = mean_of(groups)
    drawn = np.array(
        [mean_of([groups[i] for i in rng.integers(len(groups), size=len(groups))]) for _ in range(resamples)]
    )
    left_out = np.array([mean_of(groups[:i] + groups[i + 1 :]) for i in range(len(groups))])
    spread = left_out.mean() - left_out
    a = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    z0 = norm.ppf((drawn < seen).mean())
    ends = []
    for z in (norm.ppf((1 - confidence) / 2), norm.ppf((1 + confidence) / 2)):
        ends.append(np.quantile(drawn, norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return ends


def test_mean_of_scores_equals_scipys_bootstrap_where_clusters_are_single():
    values = np.random.default_rng(4).beta(2, 5, size=80)
    estimate = mean_score(values, range(80), seed=3)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=9_999, batch=2_000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert estimate.value == pytest.approx(values.mean())


def test_mean_of_scores_equals_efrons_formula_over_clusters():
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 9, size=30)
    clusters = np.repeat(np.arange(30), sizes)
    values = rng.exponential(size=30)[clusters] + rng.normal(0, 0.1, sizes.sum())  # skewed: BCa is not the percentile
    estimate = mean_score(values, clusters)
    width = estimate.high - estimate.low
    assert (estimate.low, estimate.high) == pytest.approx(bca_written_out(values, clusters), abs=0.04 * width)


def test_the_paired_test_of_scores_equals_every_sign_flip():
    from itertools import product

    rng = np.random.default_rng(6)
    a, b = rng.random(11), rng.random(11) + 0.15
    _, p_value = paired_difference(a, b, range(11))
    gains = a - b
    flipped = np.array([(gains * signs).sum() for signs in product((1, -1), repeat=11)])
    expected = 2 * min((flipped <= gains.sum() + 1e-12).mean(), (flipped >= gains.sum() - 1e-12).mean())
    assert p_value == pytest.approx(min(expected, 1))


def test_scores_that_do_not_vary_have_no_interval_to_speak_of():
    estimate = mean_score([0.25, 0.25], [1, 2])
    assert (estimate.low, estimate.value, estimate.high) == (0.25, 0.25, 0.25) and "do not differ" in estimate.method
    difference, p_value = paired_difference([0.5, 0.5], [0.25, 0.25], [1, 2])
    assert difference.low == difference.high == 0.25 and "do not differ" in difference.method and p_value == 0.5


def test_holm_equals_statsmodels():
    p_values = np.random.default_rng(7).random(40) ** 3
    assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])
