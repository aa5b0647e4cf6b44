"""ROUGE-1, ROUGE-2 and ROUGE-L by the package rouge_score, without a stemmer.

rouge("a tRNA of yeast", "a tRNA")["rougeL"].f1        # 0.666...
"""

from functools import cache, lru_cache
from typing import NamedTuple

ROUGE = ("rouge1", "rouge2", "rougeL")


class Scores(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, precision: float, recall: float) -> "Scores":
        """With F1 = 2PR / (P + R), and 0 where both are 0 or their sum is negative (cosines can be).

        >>> Scores.of(0.5, 1.0).f1, Scores.of(0, 0).f1
        (0.6666666666666666, 0.0)
        """
        total = precision + recall
        return cls(float(precision), float(recall), float(2 * precision * recall / total) if total > 0 else 0.0)


@cache
def _scorer():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE))


@lru_cache(100_000)  # short answers come up again
def rouge(reference: str, answer: str) -> dict[str, Scores]:
    """{"rouge1", "rouge2", "rougeL"} of one answer; nothing is shared with an empty text."""
    return {name: Scores(*map(float, scores)) for name, scores in _scorer().score(reference, answer).items()}
