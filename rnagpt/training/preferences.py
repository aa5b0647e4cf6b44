"""Answers to be given up, for preference tuning: right for another RNA, so fluent, but not supported for this one.

asked about RNA a: "Which gene does it target?"  "PTEN"
asked about RNA b: "Which gene is its target?"   "BCL2"   -> for a: PTEN is preferred, BCL2 given up
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT_A_TIME = 256  # questions whose similarities are in memory together


@dataclass(frozen=True)
class Asked:
    """A question about an RNA, with its answer."""

    rna_id: str
    question: str
    answer: str


def unsupported_answers(asked: Sequence[Asked], seed: int = 0, candidates: int = 20_000) -> list[str | None]:
    """For each question, another RNA's answer to the most similar question; None where there is no other answer.

    Similar by TF-IDF cosine of the questions' words (scikit-learn). Answers that agree but for case and punctuation,
    or that the RNA itself has to any question, are not taken. Of more than `candidates` questions, so many are drawn
    by `seed` to be compared with.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(asked) < 2:
        return [None] * len(asked)
    vectors = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform([one.question for one in asked])
    own: dict[str, set[str]] = {}
    for one in asked:
        own.setdefault(one.rna_id, set()).add(_plain(one.answer))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(asked))[:candidates])
    others = vectors[drawn].T
    rejected: list[str | None] = []
    for first in range(0, len(asked), AT_A_TIME):
        similar = (vectors[first : first + AT_A_TIME] @ others).toarray()
        for one, scores in zip(asked[first : first + AT_A_TIME], similar, strict=True):
            rejected.append(None)
            for i in np.argsort(-scores, kind="stable"):
                other = asked[drawn[i]]
                if scores[i] > 0 and other.rna_id != one.rna_id and _plain(other.answer) not in own[one.rna_id]:
                    rejected[-1] = other.answer
                    break
    return rejected


def _plain(answer: str) -> str:
    return "".join(letter for letter in answer.casefold() if letter.isalnum())
