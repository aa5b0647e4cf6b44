"""Intervals and comparisons whose unit is the sequence cluster, never the single question.

Questions about one RNA, and RNAs of one cluster, share their errors. Resampling questions as if they were
independent makes an interval too narrow, so every number here is computed from one row per cluster.

    estimate = accuracy([True, True, False], clusters=[7, 7, 9])
    estimate.value, estimate.low, estimate.high        # 0.667 and its 95 % interval
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9_999


@dataclass(frozen=True)
class Estimate:
    """A proportion or a difference of proportions, with its interval and what it rests on."""

    value: float
    low: float
    high: float
    n_items: int
    n_clusters: int
    method: str

    def to_dict(self) -> dict:
        return asdict(self)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson score interval of a proportion; it stays inside [0, 1] and is not empty at 0 % or 100 %.

    >>> [round(bound, 4) for bound in wilson_interval(10, 10)]
    [0.7225, 1.0]
    """
    from scipy.stats import norm

    if trials <= 0:
        raise ValueError(f"an interval needs at least one trial, got {trials}")
    z = norm.ppf(0.5 + CONFIDENCE / 2)
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def sum_by_cluster(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """One row per cluster: the sum of its values and the number of its items; both (n_clusters,) float64.

    >>> sums, counts = sum_by_cluster([1, 0, 1], ["a", "a", "b"])
    >>> sums.tolist(), counts.tolist()
    ([1.0, 1.0], [2.0, 1.0])
    """
    if len(values) != len(clusters):
        raise ValueError(f"every value needs a cluster: got {len(values)} values and {len(clusters)} clusters")
    if not len(values):
        raise ValueError("there is nothing to measure: got no values")
    index_of: dict[Hashable, int] = {}
    row = np.array([index_of.setdefault(cluster, len(index_of)) for cluster in clusters])
    return np.bincount(row, weights=np.asarray(values, dtype=float)), np.bincount(row).astype(float)


def _bca(sums: np.ndarray, counts: np.ndarray, seed: int) -> tuple[float, float] | None:
    """BCa interval of sum(sums) / sum(counts) over clusters, or None where the bootstrap has no spread."""
    from scipy.stats import bootstrap

    if len(sums) < 2 or np.ptp(sums / counts) == 0:
        return None
    result = bootstrap(
        (sums, counts),
        lambda sums, counts, axis=-1: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=RESAMPLES,
        batch=2_000,
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    )
    interval = float(result.confidence_interval.low), float(result.confidence_interval.high)
    return interval if np.isfinite(interval).all() else None


def accuracy(correct: Sequence[bool], clusters: Sequence[Hashable], seed: int = 0) -> Estimate:
    """Share of correct items; interval by BCa bootstrap over clusters (Efron 1987, `scipy.stats.bootstrap`).

    Where all clusters score the same (all right, all wrong, a single cluster) the bootstrap has no spread: then
    the Wilson interval with the number of clusters, not of items, as its trials. `method` says which was used.
    """
    right, counts = sum_by_cluster(correct, clusters)
    trials = len(right)
    return _estimate(
        right, counts, seed, lambda share: (wilson_interval(share * trials, trials), "Wilson over clusters")
    )


def mean_score(values: Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> Estimate:
    """Mean of scores that are no proportions (ROUGE, a cosine, a log-likelihood); BCa bootstrap over clusters.

    Where the clusters do not differ the interval is the value itself, and `method` says so.
    """
    return _estimate(*sum_by_cluster(values, clusters), seed, _no_interval)


def _no_interval(value: float) -> tuple[tuple[float, float], str]:
    return (value, value), "none: the clusters do not differ"


def _estimate(sums: np.ndarray, counts: np.ndarray, seed: int, without_spread) -> Estimate:
    """sum(sums) / sum(counts) with its BCa interval; where the bootstrap has no spread with (interval, method) of
    `without_spread(value)`."""
    value = float(sums.sum() / counts.sum())
    interval, method = _bca(sums, counts, seed), "BCa bootstrap over clusters"
    if interval is None:
        interval, method = without_spread(value)
    return Estimate(value, *interval, n_items=int(counts.sum()), n_clusters=len(sums), method=method)


def chance_level(options: Sequence[Sequence[str]]) -> float | None:
    """Expected accuracy of a guess, each alike, among each item's own options; None where an item has none.

    >>> chance_level([["yes", "no"], ["a", "b", "c", "d"]])
    0.375
    """
    return float(np.mean([1 / len(choices) for choices in options])) if options and all(options) else None


def confusion_matrix(gold: Sequence[str], parsed: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Counts, (n_labels, n_labels + 1): rows are true labels, columns the answers, the last one unparseable.

    An answer outside `labels` is counted in the last column as well; a gold label outside them is a ValueError.
    """
    from sklearn.metrics import confusion_matrix as counted

    if unknown := set(gold) - set(labels):
        raise ValueError(f"gold labels {sorted(unknown)} are not among the labels {list(labels)}")
    none = "\0none"  # no label can be it
    answers = [answer if answer in labels else none for answer in parsed]
    return counted(gold, answers, labels=[*labels, none])[:-1]


def paired_difference(
    correct_a: Sequence[float], correct_b: Sequence[float], clusters: Sequence[Hashable], seed: int = 0
) -> tuple[Estimate, float]:
    """Mean of A minus mean of B on the same items, and the p-value of "no difference" (two-sided).

    The values are right (1) or wrong (0), or any other score. Interval: BCa over clusters; where every cluster differs
    alike, that of two Wilson intervals for right and wrong (Newcombe 1998, method 10), the difference itself for other
    scores. p-value: within each cluster the two results are swapped at random (`scipy.stats.permutation_test`).
    """
    from scipy.stats import permutation_test

    right_a, counts = sum_by_cluster(correct_a, clusters)
    right_b, _ = sum_by_cluster(correct_b, clusters)
    gain = right_a - right_b

    def newcombe(_: float):
        share_a, share_b = right_a.sum() / counts.sum(), right_b.sum() / counts.sum()
        (low_a, high_a), (low_b, high_b) = (wilson_interval(n * len(gain), len(gain)) for n in (share_a, share_b))
        below, above = np.hypot(share_a - low_a, high_b - share_b), np.hypot(high_a - share_a, share_b - low_b)
        difference = share_a - share_b
        return (difference - float(below), difference + float(above)), "Newcombe over clusters"

    right_or_wrong = {*map(float, correct_a), *map(float, correct_b)} <= {0.0, 1.0}
    estimate = _estimate(gain, counts, seed, newcombe if right_or_wrong else _no_interval)
    if len(gain) < 2 or not gain.any():  # every swap is as extreme as the one found
        return estimate, 1.0
    result = permutation_test(
        (right_a, right_b),
        lambda a, b, axis=-1: (a - b).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=2_000,
        rng=np.random.default_rng(seed),
    )
    return estimate, float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values, in the order given (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
