"""The shuffle keeps what it says it keeps, and is fair; every RNA gets a partner of another type."""

import random
from collections import Counter
from itertools import pairwise, permutations
from types import SimpleNamespace

import pytest

from rnagpt.evaluation.asking.controls import (
    CONTROLS,
    dinucleotide_shuffle,
    input_rnas,
    same_type_partners,
    swap_partners,
)
from rnagpt.evaluation.asking.items import SHUFFLED


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
    possible = {"".join(order) for order in permutations(sequence) if dinucleotides(order) == dinucleotides(sequence)}
    rng = random.Random(1)
    drawn = Counter(dinucleotide_shuffle(sequence, rng) for _ in range(400 * len(possible)))
    assert len(possible) == 6 and set(drawn) == possible
    chi_square = sum((count - 400) ** 2 / 400 for count in drawn.values())
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize("sequence", ["", "A", "AC", "ACG", "AAAA"])
def test_shuffle_leaves_what_has_one_order(sequence):
    assert dinucleotide_shuffle(sequence, random.Random(0)) == sequence


def facts_of(counts):
    return [
        SimpleNamespace(rna_id=f"{rna_type}-{index}", rna_type=rna_type)
        for rna_type, count in counts.items()
        for index in range(count)
    ]


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


# --- another RNA of the same type, and what each control shows


def clustered(sizes):
    """{"tRNA": [2, 1]}: a tRNA cluster of two and one of one, each RNA with a sequence of its own."""
    rng, facts, cluster = random.Random(4), [], 0
    for rna_type, members in sizes.items():
        for size in members:
            cluster += 1
            facts += [
                SimpleNamespace(
                    rna_id=f"{rna_type}-{cluster}-{i}",
                    rna_type=rna_type,
                    cluster=cluster,
                    sequence="".join(rng.choices("ACGU", k=40)),
                )
                for i in range(size)
            ]
    return facts


@pytest.mark.parametrize("sizes", [{"tRNA": [1] * 9, "miRNA": [3, 2, 2, 1]}, {"a": [4, 4], "b": [1, 1]}])
def test_a_partner_of_the_same_type_is_of_another_cluster(sizes):
    facts = clustered(sizes)
    about = {fact.rna_id: fact for fact in facts}
    partners = same_type_partners(facts, seed=1)
    assert set(partners) == set(about)
    for mine, other in partners.items():
        assert about[mine].rna_type == about[other].rna_type and about[mine].cluster != about[other].cluster
    assert Counter(partners.values()) == Counter(dict.fromkeys(about, 1))
    assert partners == same_type_partners(list(reversed(facts)), seed=1)


def test_who_is_alone_has_no_partner_and_one_cluster_swaps_inside():
    assert same_type_partners(clustered({"tRNA": [1]})) == {}
    facts = clustered({"tRNA": [3]})
    assert all(mine != other for mine, other in same_type_partners(facts).items())


def test_each_control_shows_what_it_says():
    facts = clustered({"tRNA": [1] * 4, "miRNA": [1] * 4})
    about = {fact.rna_id: fact for fact in facts}
    shown = {control: input_rnas(control, facts, seed=2) for control in ("true", *CONTROLS)}
    for name, fact in about.items():
        assert shown["true"][name] == (name, fact.sequence) and shown["no_rna"][name] is None
        assert about[shown["swapped"][name][0]].rna_type != fact.rna_type
        assert about[shown["swapped_same"][name][0]].rna_type == fact.rna_type
        assert shown["swapped_same"][name] != (name, fact.sequence)
        label, sequence = shown["shuffled"][name]
        assert label == name + SHUFFLED and dinucleotides(sequence) == dinucleotides(fact.sequence) != {}
    # one RNA's shuffle does not depend on which others are asked about
    assert input_rnas("shuffled", facts[:1], seed=2)[facts[0].rna_id] == shown["shuffled"][facts[0].rna_id]
