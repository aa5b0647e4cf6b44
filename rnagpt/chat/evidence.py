"""What is laid beside an answer: its weight, and the closest known RNAs. The model sees none of it."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rnagpt.chat.confidence import MIN_CONFIDENCE, Weight, weight_of
from rnagpt.known_rnas.base import KnownRnas, Neighbour
from rnagpt_core.sequences import Record

if TYPE_CHECKING:
    from rnagpt.chat.batch_file import Row
    from rnagpt.serving.engine import Answer

KEPT = 256  # RNAs whose neighbours are remembered


class Evidence:
    """Weighs answers by one threshold, and looks up neighbours, each RNA's once.

    Args:
        known: where they are looked up; the packaged table where None.
    """

    def __init__(self, min_confidence: float = MIN_CONFIDENCE, known: KnownRnas | None = None):
        self.min_confidence, self.known = min_confidence, known or KnownRnas()
        self._found: OrderedDict[str, list[Neighbour]] = OrderedDict()

    def weight(self, answer: "Answer") -> Weight | None:
        """The answer's weight, where its likelihood without RNA was computed."""
        return weight_of(answer, self.min_confidence)

    def closest(self, sequence: str) -> list[Neighbour]:
        """The closest known RNAs."""
        if sequence not in self._found:
            self._found[sequence] = self.known.nearest(sequence)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
        return self._found[sequence]

    def as_json(self, answer: "Answer", rnas: Sequence[Record]) -> dict:
        """Fields for a line of JSON."""
        weight = self.weight(answer)
        closest = [neighbour.as_json() for rna in rnas for neighbour in self.closest(rna.sequence)]
        return {**(weight.as_json() if weight else {}), "closest_known_rnas": closest}

    def of_row(self, row: "Row", answer: "Answer") -> dict:
        """The same for a row of a batch."""
        return self.as_json(answer, row.rnas)
