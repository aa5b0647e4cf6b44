"""How far to trust an answer: its confidence, and whether it comes from the sequence or from general knowledge.

    answer = engine.prepare(messages, weigh=True); engine.run([answer]); weight_of(answer)

Both come from the model's own likelihoods: they tell whether the model is sure, not whether it is right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnagpt.serving.engine import Answer

# What `benchmarks/chat.py weigh` measures on the demo; another checkpoint may want others.
MIN_CONFIDENCE = 0.5
# the RNA multiplies the odds of the answer by at least twenty. Odds, not likelihoods: an answer that one in eight
# would be by chance cannot become twenty times as likely
MIN_LOG_ODDS_RATIO = math.log(20)

FROM_SEQUENCE = "from the sequence"
FROM_KNOWLEDGE = "from general knowledge"


@dataclass(frozen=True)
class Weight:
    """What speaks for an answer.

    Attributes:
        confidence: probability of the answer's least certain token, 0 to 1: an answer's form is certain, its one
            decisive word is not, and a mean over all words would hide it.
        logprob: of the whole answer, nats.
        plain_logprob: of the same answer without the RNAs, all else the same.
        min_confidence: below it the model abstains.
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
        return log_odds(self.logprob) - log_odds(self.plain_logprob)

    @property
    def source(self) -> str:
        """ "from the sequence" where the RNA made the answer likely, else "from general knowledge".

        An answer that is likelier than not without the RNA would have been given anyway. General knowledge includes
        what was said earlier in the conversation.
        """
        anyway = self.plain_logprob > math.log(0.5)
        return FROM_SEQUENCE if self.log_odds_ratio >= MIN_LOG_ODDS_RATIO and not anyway else FROM_KNOWLEDGE

    @property
    def abstains(self) -> bool:
        """Whether the model is too unsure for its answer to be taken as one."""
        return self.confidence < self.min_confidence

    def described(self) -> str:
        """One line for a person.

        >>> Weight(0.93, math.log(0.93), math.log(0.125)).described()
        'confidence 93%, from the sequence'
        >>> Weight(0.31, math.log(0.31), math.log(0.25)).described()
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


def weight_of(answer: "Answer", min_confidence: float = MIN_CONFIDENCE) -> Weight | None:
    """The weight of a finished answer; None where its likelihood without RNA was not computed (`weigh`), and for an
    answer without a word, which states nothing."""
    if answer.plain_logprobs is None or not answer.text.strip():
        return None
    return Weight(confidence(answer.logprobs), sum(answer.logprobs), sum(answer.plain_logprobs), min_confidence)


def log_odds(logprob: float) -> float:
    """Logarithm of p / (1 - p), from that of p; a p of 1 (in the arithmetic at hand) counts as just below it.

    >>> round(log_odds(math.log(0.8)), 6) == round(math.log(4), 6)
    True
    """
    return logprob - math.log(-math.expm1(min(logprob, -1e-6)))


def confidence(logprobs: Sequence[float]) -> float:
    """Log-probabilities (nats) of an answer's tokens -> the least certain one's probability.

    >>> confidence([0.0, math.log(0.25), math.log(0.5)])
    0.25
    """
    return math.exp(min(logprobs))
