"""No test or validation RNA has a close neighbour on the other side: every pair is compared, by edit distance.

Independent of how the splits were made. One edlib call searches an RNA in all longer ones, joined by a letter that
matches nothing; what crosses a joint can only look closer than it is, so a hit is confirmed pair by pair and no pair
is lost.

    pytest tests/dataset_builder/test_splits.py
"""

import random
from bisect import bisect_left
from collections import defaultdict

import edlib
import pytest

from dataset_builder.facts_table.facts import load_facts
from rnagpt_core import nearest
from rnagpt_core.nearest import are_neighbours, largest_distance
from scripts.fact_splits import leaks


@pytest.fixture(scope="module")
def facts():
    return load_facts()


def distance_within(shorter: str, longer: str, limit: int) -> int:
    """Fewest edits that turn `shorter` into a part of `longer`, or -1 when that takes more than `limit`."""
    return edlib.align(shorter, longer, mode="HW", task="distance", k=limit)["editDistance"]


def pairs_inside(shorter_ones, longer_ones):
    """(shorter, longer) pairs with identity >= 0.8 of the shorter (0.9 for <= 30 nt inside > 30 nt)."""
    longer_ones = sorted(longer_ones, key=lambda fact: fact.length)
    lengths = [fact.length for fact in longer_ones]
    first_long = bisect_left(lengths, 31)
    found = []
    for fact in shorter_ones:
        start = bisect_left(lengths, fact.length)
        inside = 10 if fact.length <= 30 else 20
        for begin, end, percent in ((start, first_long, 20), (max(start, first_long), len(lengths), inside)):
            limit = fact.length * percent // 100
            group = longer_ones[begin:end]
            if group and distance_within(fact.sequence, "N".join(other.sequence for other in group), limit) >= 0:
                found += [
                    (fact.rna_id, other.rna_id)
                    for other in group
                    if distance_within(fact.sequence, other.sequence, limit) >= 0
                ]
    return found


def neighbour_pairs(one_side, other_side):
    """Every pair of neighbours between two lists of RNAs, whichever of the two is the shorter."""
    return {frozenset(pair) for pair in pairs_inside(one_side, other_side) + pairs_inside(other_side, one_side)}


def test_no_neighbour_across_splits(facts):
    train, validation, test = ([f for f in facts if f.split == name] for name in ("train", "validation", "test"))
    assert neighbour_pairs(test, train) == set()
    assert neighbour_pairs(validation, train) == set()
    assert neighbour_pairs(test, validation) == set()


def test_the_search_finds_planted_neighbours(facts):
    """The check above can fail: mutated copies of train RNAs are found, at the edit limit and not past it."""
    draw = random.Random(0)
    train = [fact for fact in facts if fact.split == "train" and fact.length > 60][::400]
    for fact in train:
        limit = int(fact.length * 0.2)
        letters = list(fact.sequence)
        for place in draw.sample(range(fact.length), limit):
            letters[place] = draw.choice("ACGU".replace(letters[place], ""))
        planted = type(fact)(**{**vars(fact), "sequence": "".join(letters), "rna_id": "planted"})
        assert frozenset(("planted", fact.rna_id)) in neighbour_pairs([planted], train)
        inside = type(fact)(**{**vars(fact), "sequence": fact.sequence[20:42], "rna_id": "inside"})
        assert frozenset(("inside", fact.rna_id)) in neighbour_pairs([inside], train)


def test_both_searches_agree(facts):
    sample = facts[::40]
    brute = nearest.neighbour_pairs([fact.sequence for fact in sample], processes=1)
    index = {fact.rna_id: i for i, fact in enumerate(sample)}
    pairs = {tuple(sorted(index[name] for name in pair)) for pair in neighbour_pairs(sample, sample) if len(pair) == 2}
    assert pairs == brute and len(pairs) > 20


def test_clusters_are_disjoint_between_splits(facts):
    splits = defaultdict(set)
    for fact in facts:
        splits[fact.cluster].add(fact.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) > 2000


def test_mirna_families_are_disjoint_between_splits(facts):
    splits = defaultdict(set)
    for fact in facts:
        if fact.source == "miRBase":
            splits[fact.family].add(fact.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) > 1000


def test_no_mature_mirna_inside_a_hairpin_of_another_split(facts):
    """A mature microRNA of one split inside another split's hairpin would name it."""
    mature = {f.sequence: f.split for f in facts if f.rna_type == "miRNA"}
    sizes = sorted({len(sequence) for sequence in mature})
    contained = 0
    for hairpin in (fact for fact in facts if fact.rna_type == "pre_miRNA"):
        for size in sizes:
            for start in range(hairpin.length - size + 1):
                split = mature.get(hairpin.sequence[start : start + size])
                contained += split is not None
                assert split in (None, hairpin.split), hairpin.rna_id
    assert contained > 50


def test_limits_and_leaks_on_a_toy():
    assert [largest_distance(*sizes) for sizes in ((22, 22), (22, 31), (31, 90), (100, 100))] == [4, 2, 6, 20]
    assert are_neighbours("A" * 40 + "C" * 40, "G" * 9 + "A" * 40 + "C" * 31)
    assert not are_neighbours("A" * 40 + "C" * 40, "G" * 30 + "A" * 40 + "C" * 10)
    rows = [{"split": "train"}, {"split": "test"}, {"split": "test"}]
    assert leaks(rows, [(0, 1), (1, 2)]) == [(0, 1)]
