"""What is laid beside an answer: how far to trust it, and the closest known RNAs. The model sees none of it.

    answer = engine.prepare(messages, confidence=True); engine.run([answer]); confidence_of(answer).described()

Confidence and source come from the model's own likelihoods: whether it is sure, not whether it is right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rnagpt.known_rnas.base import KnownRnas
from rnagpt_core.sequences import Record

if TYPE_CHECKING:
    from rnagpt.serving.engine import Answer

# What `benchmarks/chat.py confidence` measures on the demo; another checkpoint may want others.
MIN_CONFIDENCE = 0.5
# the RNA multiplies the odds of the answer by at least twenty. Odds, not likelihoods: an answer that one in eight
# would be by chance cannot become twenty times as likely
MIN_LOG_ODDS_RATIO = math.log(20)
KEPT = 256  # RNAs whose neighbours are remembered


@dataclass(frozen=True)
class Confidence:
    """What speaks for an answer.

    Attributes:
        confidence: probability of the answer's least certain token, 0 to 1: an answer's form is certain, its one
            decisive word is not, and a mean over all words would hide it.
        logprob: of the whole answer, nats.
        plain_logprob: of the same answer without the RNAs, all else the same.
        min_confidence: below it the model abstains: it is too unsure for its answer to be taken as one.
    """

    confidence: float
    logprob: float
    plain_logprob: float
    min_confidence: float = MIN_CONFIDENCE

    @property
    def gain(self) -> float:
        """Nats by which the answer is likelier with the RNAs than without them."""
        return self.logprob - self.plain_logprob

    @property
    def log_odds_ratio(self) -> float:
        """Logarithm of the answer's odds with the RNAs over those without: the Bayes factor for this answer."""
        # p / (1 - p); a p of 1 (in the arithmetic at hand) counts as just below it
        with_rna, without = (p - math.log(-math.expm1(min(p, -1e-6))) for p in (self.logprob, self.plain_logprob))
        return with_rna - without

    @property
    def source(self) -> str:
        """ "from the sequence" where the RNA made the answer likely, else "from general knowledge".

        An answer that is likelier than not without the RNA would have been given anyway. General knowledge includes
        the earlier turns of the conversation.
        """
        anyway = self.plain_logprob > math.log(0.5)
        from_sequence = self.log_odds_ratio >= MIN_LOG_ODDS_RATIO and not anyway
        return "from the sequence" if from_sequence else "from general knowledge"

    @property
    def abstains(self) -> bool:
        return self.confidence < self.min_confidence

    def described(self) -> str:
        """One line for a person.

        >>> Confidence(0.93, math.log(0.93), math.log(0.125)).described()
        'confidence 93%, from the sequence'
        >>> Confidence(0.31, math.log(0.31), math.log(0.25)).described()
        'not sure (confidence 31%, below 50%): take this for a guess; from general knowledge'
        """
        if self.abstains:
            figures = f"confidence {self.confidence:.0%}, below {self.min_confidence:.0%}"
            return f"not sure ({figures}): take this for a guess; {self.source}"
        return f"confidence {self.confidence:.0%}, {self.source}"

    def as_json(self) -> dict:
        """For scripts and the server."""
        return {
            "confidence": round(self.confidence, 4),
            "gain_nats": round(self.gain, 3),
            "source": self.source,
            "abstains": self.abstains,
        }


def confidence_of(answer: "Answer", min_confidence: float = MIN_CONFIDENCE) -> Confidence | None:
    """None where the answer's likelihood without RNA was not computed (`Engine.prepare`, confidence=True), and for an
    answer without a word, which states nothing."""
    if answer.plain_logprobs is None or not answer.text.strip():
        return None
    least_certain = math.exp(min(answer.logprobs))
    return Confidence(least_certain, sum(answer.logprobs), sum(answer.plain_logprobs), min_confidence)


class Evidence:
    """Confidence by one threshold, and known RNAs, each RNA's looked up once (`closest`).

    Args:
        known: where they are looked up; the packaged table where None.
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE, known: KnownRnas | None = None):
        self.min_confidence = min_confidence
        self.closest = lru_cache(KEPT)((known or KnownRnas()).nearest)

    def confidence(self, answer: "Answer") -> Confidence | None:
        return confidence_of(answer, self.min_confidence)

    def as_json(self, answer: "Answer", rnas: Sequence[Record]) -> dict:
        """Fields for a line of JSON."""
        confidence = self.confidence(answer)
        closest = [neighbour.as_json() for rna in rnas for neighbour in self.closest(rna.sequence)]
        return {**(confidence.as_json() if confidence else {}), "closest_known_rnas": closest}
