"""Yes-or-no questions published so that a constant answer is worth little.

A language model writes what papers say, and papers say what is: most of its questions are answered by yes. Where one
answer is commoner than allowed, its questions are thinned out by their own digest, so that the same questions stay in
every run and for every RNA that shares them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from dataset_builder.literature.questions import digest


class YesNoBalance:
    """count() all units, then ask selected() for each.

    most: the largest share of one answer among the yes-or-no questions of a split and method, 0.5 to 1 (all are kept);
        reached in expectation. fewest: questions that an annotation keeps in any case, if it has them.
    """

    def __init__(self, most: float, fewest: int):
        self.most, self.fewest = most, fewest
        self.counts: dict[tuple[str, str], Counter] = defaultdict(Counter)

    def count(self, method: str, questions: Sequence[dict], rnas: Mapping[str, int]) -> None:
        """Take an annotation's questions into account, published for so many RNAs of each split."""
        answers = Counter(row["answer"] for row in questions if is_yes_or_no(row))
        for split, number in rnas.items():
            for answer, times in answers.items():
                self.counts[split, method][answer] += times * number

    def share(self, split: str, method: str, answer: str) -> float:
        """Share of the questions with this answer that stays."""
        counted = self.counts[split, method]
        same, other = counted[answer], sum(counted.values()) - counted[answer]
        if self.most >= 1 or same <= self.most * (same + other):
            return 1.0
        return other * self.most / (1 - self.most) / same

    def selected(self, split: str, method: str, questions: Sequence[dict]) -> list[dict]:
        """The questions that are published, in their order."""
        above = {  # how far above its share, which lies in 0 to 1, the number of each question lies
            number: number_of(row) - self.share(split, method, row["answer"])
            for number, row in enumerate(questions)
            if is_yes_or_no(row)
        }
        surplus = sorted((number for number, excess in above.items() if excess >= 0), key=lambda n: -above[n])
        gone = set(surplus[: max(0, len(questions) - self.fewest)])
        return [row for number, row in enumerate(questions) if number not in gone]


def is_yes_or_no(question: Mapping) -> bool:
    return question["kind"] == "closed" and question["answer"] in ("Yes", "No")


def number_of(question: Mapping) -> float:
    """A number in 0 to 1 that is the question's own."""
    return digest(" ".join([question["question"], *question["evidence_pmids"]])) / 2**64
