"""How far to trust an answer: its confidence, and whether it comes from the sequence or from general knowledge.

    answer = engine.prepare(messages, weigh=True); engine.run([answer]); weight_of(answer)

Both come from the model's own likelihoods: they tell whether the model is sure, not whether it is right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rnagpt.chat.engine import Answer

# What `benchmarks/chat.py weigh` measures on the demo; another checkpoint may want others.
MIN_CONFIDENCE = 0.5
# nats: with the RNA the answer is twenty times as likely as without
MIN_GAIN = math.log(20)

FROM_SEQUENCE = "from the sequence"
FROM_KNOWLEDGE = "from general knowledge"


@dataclass(frozen=True)
class Weight:
    """What speaks for an answer.

    Attributes:
        confidence: probability of the answer's least certain token, 0 to 1: an answer's form is certain, its one
            decisive word is not, and a mean over all words would hide it.
        gain: nats by which the whole answer is likelier with the RNAs than without them, all else the same.
        min_confidence: below it the model abstains.
    """

    confidence: float
    gain: float
    min_confidence: float = MIN_CONFIDENCE

    @property
    def source(self) -> str:
        """"from the sequence" where the RNA made the answer likely, else "from general knowledge".

        General knowledge includes what was said earlier in the conversation.
        """
        return FROM_SEQUENCE if self.gain >= MIN_GAIN else FROM_KNOWLEDGE

    @property
    def abstains(self) -> bool:
        """Whether the model is too unsure for its answer to be taken as one."""
        return self.confidence < self.min_confidence

    def described(self) -> str:
        """One line for a person.

        >>> Weight(0.93, 7.0).described()
        'confidence 93%, from the sequence'
        >>> Weight(0.31, 0.2).described()
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


def weight_of(answer: Answer, min_confidence: float = MIN_CONFIDENCE) -> Weight | None:
    """The weight of a finished answer; None where its likelihood without RNA was not computed (`weigh`)."""
    if answer.plain_logprobs is None:
        return None
    return Weight(confidence(answer.logprobs), sum(answer.logprobs) - sum(answer.plain_logprobs), min_confidence)


def confidence(logprobs: Sequence[float]) -> float:
    """Log-probabilities (nats) of an answer's tokens -> the least certain one's probability.

    >>> confidence([0.0, math.log(0.25), math.log(0.5)])
    0.25
    """
    return math.exp(min(logprobs))
