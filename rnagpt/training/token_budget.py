"""Batches of about so many LLM tokens, however long their RNAs are.

A batch is a row of its own, {"members": [row numbers]}, so sampling, resuming and processes stay the trainer's.
"""

import random
from dataclasses import dataclass

from datasets import Dataset

from processing_rnagpt.collator import SharedPrefixCollator


@dataclass
class BatchedRows:
    """Collates batches made by `fill_batches`, and plain rows as the collator itself does.

    Args:
        collator: for the rows of a batch.
        rows: what the batches' members are numbers of.
    """

    collator: SharedPrefixCollator
    rows: Dataset

    def __call__(self, rows: list[dict]) -> dict:
        members = [row.get("members") for row in rows]
        if members[0] is None:
            return self.collator(rows)
        return self.collator([self.rows[i] for batch in members for i in batch])


def fill_batches(collator: SharedPrefixCollator, rows: Dataset, token_budget: int, seed: int) -> Dataset:
    """Rows in an order drawn by `seed`, a batch ended before it would pass the budget; a longer row is one of its own.

    Drawn at random and not by length: batches of one length are batches of one RNA type.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    batches, filled = [[]], 0
    for i in order:
        tokens = tokens_of_row(collator, rows[i])
        if batches[-1] and filled + tokens > token_budget:
            batches.append([])
            filled = 0
        batches[-1].append(i)
        filled += tokens
    return Dataset.from_dict({"members": batches})


def tokens_of_row(collator: SharedPrefixCollator, row: dict) -> int:
    """LLM tokens that a row takes in a batch, without padding."""
    sequences, _ = collator.lay_out_row(row)
    return sum(len(sequence["input_ids"]) for sequence in sequences)
