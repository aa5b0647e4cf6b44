"""Nearest training RNAs against a textbook alignment, leaks counted and refused, baselines that read no RNA."""

import random
from types import SimpleNamespace

import pytest

from rnagpt.evaluation.asking.qa_baselines import qa_baseline_answers
from rnagpt.evaluation.asking.qa_items import Pair, QaRna, qa_items
from rnagpt.known_rnas import neighbours as module
from rnagpt.known_rnas.neighbours import alignment_free, check_splits, leaks, nearest_by_identity
from rnagpt_core.errors import UserError
from rnagpt_core.nearest import are_neighbours, identity

SYSTEMS = ("majority", "question_only", "nearest_train", "nearest_identity")


def random_rna(rng, length):
    return "".join(rng.choices("ACGU", k=length))


def mutated(rng, sequence, edits):
    letters = list(sequence)
    for place in rng.sample(range(len(letters)), edits):
        letters[place] = rng.choice([base for base in "ACGU" if base != letters[place]])
    return "".join(letters)


def textbook_identity(one, other):
    """Edit distance of the shorter inside the longer, ends of the longer free: the whole table."""
    found = []
    for inner, outer in {tuple(sorted((one, other), key=len)), tuple(sorted((other, one), key=len))}:
        row = [0] * (len(outer) + 1)
        for i, a in enumerate(inner, start=1):
            before, row = row, [i]
            for j, b in enumerate(outer, start=1):
                row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
        found.append(1 - min(row) / len(inner))
    return max(found)


def test_identity_equals_the_whole_table():
    rng = random.Random(0)
    for _ in range(60):
        one, other = (random_rna(rng, rng.randint(1, 40)) for _ in range(2))
        assert identity(one, other) == pytest.approx(textbook_identity(one, other)) == identity(other, one)
    assert identity("A" * 10, "A" * 6 + "C" * 4, least=0.8) == 0  # below what is asked


@pytest.mark.parametrize("exhaustive", [10**9, 0])
def test_a_planted_neighbour_is_found(exhaustive, monkeypatch):
    monkeypatch.setattr(module, "EXHAUSTIVE", exhaustive)
    rng = random.Random(1)
    train = [random_rna(rng, rng.randint(60, 120)) for _ in range(300)]
    queries = [mutated(rng, train[7], 6), train[9], mutated(rng, train[11], 20)]
    found = nearest_by_identity(queries, [*train, train[9]])
    assert [near.place for near in found] == [7, 9, 11]
    assert found[0].identity == pytest.approx(1 - 6 / len(train[7])) and found[1].identity == 1
    assert [near.leaks for near in found] == [True, True, len(train[11]) >= 100]


def test_a_neighbour_in_the_sense_of_the_splits_is_a_leak():

    rng = random.Random(2)
    long = random_rna(rng, 200)
    for query in (mutated(rng, long[50:72], 2), mutated(rng, long[50:72], 4), long[20:120], random_rna(rng, 200)):
        (near,) = nearest_by_identity([query], [long])
        assert near.leaks == are_neighbours(query, long)


def test_the_most_similar_counts_come_first():
    assert alignment_free(["ACGUACGUACGU", "GGGGGGGG"], ["CCCCCCCC", "GGGGGGGGG", "ACGUACGU"], 2) == [[2, 0], [1, 0]]


# --- leaks


def rna(rna_id, sequence, cluster=None, pmids=()):
    return SimpleNamespace(rna_id=rna_id, sequence=sequence, cluster=cluster, pmids=pmids)


def test_every_kind_of_leak_is_counted():
    train = [rna("URS0000000001_9606", "ACGUACGUACGU", 1, ["11", "12"]), rna("b", "GGGG", 2)]
    test = [
        rna("URS0000000001_10090", "UUUUUUUUUU", 3),
        rna("c", "ACGUACGUACGU", 4),
        rna("d", "CCCC", 2),
        rna("e", "AAAAAAAAAAAA", 5, ["12"]),
        rna("f", "AAAAAAAAAAAA", 6, ["13"]),
    ]
    assert leaks(train, test) == {"the same sequence": 1, "the same id": 1, "the same cluster": 1, "the same paper": 1}
    near = nearest_by_identity([one.sequence for one in test[1:2]], [one.sequence for one in train])
    assert leaks(train, test[1:2], near)["80% of their sequence"] == 1
    with pytest.raises(UserError, match="of 5 test RNAs 1 share the same sequence, 1 share the same id, 1 share the"):
        check_splits(train, test)
    check_splits(train, [test[4]])


def test_the_packaged_splits_do_not_leak_by_id_sequence_and_cluster():
    from dataset_builder.facts_table.facts import load_facts

    check_splits(load_facts(split="train"), load_facts(split="test"))
    with pytest.raises(UserError, match="share the same sequence"):
        check_splits(load_facts(split="train"), load_facts(split="train")[:20])


# --- baselines for RNA-QA


def pairs(name, of_type, gene):
    return (
        Pair("What type of RNA is this?", f"It is a {of_type}."),
        Pair(f"Which gene does {name} regulate?", f"{name} regulates {gene}."),
        Pair("Is this RNA a tRNA?", "Yes." if of_type == "tRNA" else "No.", "closed"),
    )


@pytest.fixture(scope="module")
def baselines():
    rng = random.Random(3)
    kinds = ["tRNA", "miRNA", "miRNA", "miRNA"]
    train = [
        QaRna(f"t{i}", random_rna(rng, 80), kinds[i % 4], f"MIR{i}", i, (), pairs(f"MIR{i}", kinds[i % 4], "BRAF"))
        for i in range(12)
    ]
    test = [
        QaRna("x", mutated(rng, train[4].sequence, 30), "tRNA", "MIR77", 99, (), pairs("MIR77", "tRNA", "KRAS")),
        QaRna("y", mutated(rng, train[5].sequence, 30), "miRNA", "MIR78", 98, (), pairs("MIR78", "miRNA", "KRAS")),
    ]
    near = nearest_by_identity([one.sequence for one in test], [one.sequence for one in train])
    items = qa_items(test)
    answers = qa_baseline_answers(train, test, items, near)
    return train, test, near, items, {system: [a for a in answers if a.system == system] for system in SYSTEMS}


def test_every_baseline_answers_every_question(baselines):
    _, _, near, items, by_system = baselines
    assert [one.place for one in near] == [4, 5]
    for system, answers in by_system.items():
        assert [answer.key for answer in answers] == [item.key for item in items], system
    assert {a.shown_rna_id for a in by_system["majority"] + by_system["question_only"]} == {None}
    assert {a.shown_rna_id for a in by_system["nearest_identity"]} == {"t4", "t5"}


def test_the_majority_goes_by_template(baselines):
    majority = {(a.rna_id, a.question): a for a in baselines[4]["majority"]}
    assert majority["x", "What type of RNA is this?"].answer == "It is a miRNA."
    assert majority["x", "Is this RNA a tRNA?"].parsed == "no"  # three of four training RNAs are none
    assert "regulates BRAF" in majority["y", "Which gene does MIR78 regulate?"].answer


def test_a_copy_follows_its_neighbour_and_reading_only_questions_does_not(baselines):
    copies = {(a.rna_id, a.question): a for a in baselines[4]["nearest_identity"]}
    assert copies["x", "Is this RNA a tRNA?"].correct and copies["y", "Is this RNA a tRNA?"].correct
    assert copies["x", "What type of RNA is this?"].answer == "It is a tRNA."
    blind = {(a.rna_id, a.question): a.answer for a in baselines[4]["question_only"]}
    for question in ("What type of RNA is this?", "Is this RNA a tRNA?"):
        assert blind["x", question] == blind["y", question]


def test_held_out_answers_play_no_part(baselines):
    train, test, near, items, by_system = baselines
    from dataclasses import replace

    blinded = [replace(item, reference="") for item in items]
    again = qa_baseline_answers(train, test, blinded, near)
    assert [a.answer for a in again] == [a.answer for system in SYSTEMS for a in by_system[system]]
