"""The shuffle keeps what it says it keeps, and is fair; every RNA gets a partner of another type."""

import random
from collections import Counter
from itertools import pairwise, permutations
from types import SimpleNamespace

import pytest

from rnagpt.evaluation.controls import dinucleotide_shuffle, swap_partners


def dinucleotides(sequence):
    return Counter(pairwise(sequence))


def test_shuffle_keeps_every_dinucleotide_count_of_500_random_sequences():
    rng, changed = random.Random(0), 0
    for _ in range(500):
        letters = rng.sample("ACGU", rng.randint(1, 4))
        sequence = "".join(rng.choices(letters, k=rng.randint(1, 300)))
        shuffled = dinucleotide_shuffle(sequence, rng)
        assert dinucleotides(shuffled) == dinucleotides(sequence)
        assert Counter(shuffled) == Counter(sequence)
        assert (shuffled[0], shuffled[-1]) == (sequence[0], sequence[-1])
        changed += shuffled != sequence
    assert changed > 350  # single-letter and very short ones have but one order


def test_shuffle_draws_every_order_equally_often():
    sequence = "ACGAACUA"
    possible = {"".join(order) for order in permutations(sequence)
                if dinucleotides(order) == dinucleotides(sequence)}
    rng = random.Random(1)
    drawn = Counter(dinucleotide_shuffle(sequence, rng) for _ in range(400 * len(possible)))
    assert len(possible) == 6 and set(drawn) == possible
    chi_square = sum((count - 400) ** 2 / 400 for count in drawn.values())
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize("sequence", ["", "A", "AC", "ACG", "AAAA"])
def test_shuffle_leaves_what_has_one_order(sequence):
    assert dinucleotide_shuffle(sequence, random.Random(0)) == sequence


def facts_of(counts):
    return [SimpleNamespace(rna_id=f"{rna_type}-{index}", rna_type=rna_type)
            for rna_type, count in counts.items() for index in range(count)]


def test_with_equally_many_of_each_type_every_rna_is_shown_once():
    facts = facts_of(dict.fromkeys("abcdefgh", 26))
    partners = swap_partners(facts, seed=0)
    type_of = {fact.rna_id: fact.rna_type for fact in facts}
    assert set(partners) == set(type_of)
    assert Counter(partners.values()) == Counter(dict.fromkeys(type_of, 1))
    pairs = Counter((type_of[true], type_of[shown]) for true, shown in partners.items())
    assert len(pairs) == 8 * 7 and set(pairs.values()) == {3, 4}
    assert partners != swap_partners(facts, seed=1)


@pytest.mark.parametrize("counts", [{"a": 1, "b": 9}, {"a": 3, "b": 4, "c": 20}])
def test_partners_are_of_another_type_whatever_the_counts(counts):
    facts = facts_of(counts)
    partners = swap_partners(facts, seed=3)
    assert all(true.split("-")[0] != shown.split("-")[0] for true, shown in partners.items())
    assert partners == swap_partners(list(reversed(facts)), seed=3)


def test_one_type_cannot_be_swapped():
    with pytest.raises(ValueError, match="at least two types"):
        swap_partners(facts_of({"tRNA": 3}))
