"""Training rows from the facts table: one row per visit of an RNA, with the pairs that are asked about it then.

{"rna_id", "sequence", "length", "pairs": [{"question", "answer"}, ...]}
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from dataset_builder.facts_table.fact_questions import annotation, questions
from dataset_builder.facts_table.facts import EVALUATION_TYPES, RnaFact


def visits(
    facts: Sequence[RnaFact], n: int, type_balance: float, seed: int, scored_share: float | None = None
) -> list[tuple[RnaFact, int]]:
    """`n` RNAs with the number of the visit (0 the first time an RNA is seen).

    Types are drawn with probability proportional to (their count) ** type_balance, and so that types which the
    evaluation scores come up with probability `scored_share` if given; within a type every RNA is shown once, in a
    random order, before any is shown again.
    """
    rng = random.Random(seed)
    by_type: dict[str, list[RnaFact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        by_type[fact.rna_type].append(fact)
    for group in by_type.values():
        rng.shuffle(group)
    types = sorted(by_type)
    weights = {rna_type: len(by_type[rna_type]) ** type_balance for rna_type in types}
    if scored_share is not None:
        scored = [rna_type for rna_type in types if rna_type in EVALUATION_TYPES]
        others = [rna_type for rna_type in types if rna_type not in EVALUATION_TYPES]
        for group, share in ((scored, scored_share), (others, 1 - scored_share)):
            total = sum(weights[rna_type] for rna_type in group)
            weights.update({rna_type: weights[rna_type] / total * share for rna_type in group})
    drawn: dict[str, int] = defaultdict(int)
    out = []
    for rna_type in rng.choices(types, list(weights.values()), k=n):
        visit, i = divmod(drawn[rna_type], len(by_type[rna_type]))
        drawn[rna_type] += 1
        out.append((by_type[rna_type][i], visit))
    return out


def alignment_row(fact: RnaFact, visit: int) -> dict:
    """Stage 1: no question, the annotation as the answer (paper, section 2.2)."""
    return _row(fact, [("", annotation(fact, seed=visit))])


def instruction_row(fact: RnaFact, visit: int, pairs: int, seed: int = 0) -> dict:
    """Stage 2: the question for the RNA's type and `pairs` - 1 others, drawn anew at each visit."""
    offered = questions(fact, seed=visit)
    of_type = [q for q in offered if q.topic == "rna_type"]
    others = [q for q in offered if q.topic != "rna_type"]
    rng = random.Random(f"{seed} {fact.rna_id} {visit}")
    chosen = of_type[:1] + rng.sample(others, min(pairs - 1, len(others)))
    return _row(fact, [(q.question, q.answer) for q in chosen])


def preference_rows(visits: Sequence[tuple[RnaFact, int]], seed: int = 0) -> list[dict]:
    """The question for the type, with the RNA's own answer and with that of an RNA of another type."""
    rng = random.Random(seed)
    rows = []
    for fact, visit in visits:
        (question, *_) = [q for q in questions(fact, seed=visit) if q.topic == "rna_type"]
        other = rng.choice([other for other, _ in visits if other.rna_type != fact.rna_type])
        (wrong, *_) = [q for q in questions(other, seed=visit) if q.topic == "rna_type"]
        rows.append(_row(fact, [(question.question, question.answer), (question.question, wrong.answer)]))
    return rows


def _row(fact: RnaFact, pairs: list[tuple[str, str]]) -> dict:
    return {
        "rna_id": fact.rna_id,
        "sequence": fact.sequence,
        "length": fact.length,
        "pairs": [{"question": question, "answer": answer} for question, answer in pairs],
    }
