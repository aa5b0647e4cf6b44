"""What is laid beside an answer: closest known RNAs and weight.

    pytest tests/test_chat_evidence.py
"""

import math
import random

import pytest
from test_chat import LET7, TRNA, TYPE, user_turn

from dataset_builder.fact_splits import are_neighbours
from dataset_builder.facts import load_facts
from rnagpt.chat.decoding import Sampling
from rnagpt.chat.drawing import drawn, fold, pairs
from rnagpt.chat.engine import Engine
from rnagpt.chat.evidence import Evidence
from rnagpt.chat.known_rnas import KnownRnas, kmer_counts
from rnagpt.chat.weighing import Weight, weight_of


@pytest.fixture(scope="module")
def known():
    return KnownRnas()


def test_the_closest_are_the_neighbours_of_an_exhaustive_search(known):
    """For RNAs mutated by 10%, the index finds the best of all that the splits' own search calls neighbours."""
    rng = random.Random(0)
    for fact in rng.sample(known.facts, 12):
        mutated = "".join(rng.choice("ACGU") if rng.random() < 0.1 else letter for letter in fact.sequence)
        expected = {other.rna_id for other in known.facts if are_neighbours(mutated, other.sequence)}
        found = known.nearest(mutated, most=3)
        assert {neighbour.fact.rna_id for neighbour in found} <= expected
        assert len(found) == min(3, len(expected))
        assert all(0.8 <= neighbour.identity <= 1 for neighbour in found)


def test_an_rna_of_the_table_is_its_own_closest(known):
    fact = next(fact for fact in load_facts() if fact.rna_type == "riboswitch")
    (first, *_) = known.nearest(fact.sequence)
    assert first.identity == 1 and first.fact.sequence == fact.sequence
    assert "riboswitch" in first.described() and "100% identical" in first.described()


def test_nothing_is_close_to_noise(known):
    rng = random.Random(1)
    assert known.nearest("".join(rng.choice("ACGU") for _ in range(150))) == []
    assert known.nearest("ACG") == [] and known.nearest("N" * 40) == []


def test_kmer_counts_are_those_of_a_plain_count():
    words = [TRNA.sequence[i : i + 6] for i in range(len(TRNA) - 5)]
    counts = kmer_counts(TRNA.sequence)
    assert counts.sum() == len(words) and (counts > 0).sum() == len(set(words))


def test_an_answers_weight(tiny_model):
    engine = Engine(*tiny_model)
    answers = [
        engine.prepare([user_turn(TYPE, rna)], Sampling(8), weigh=weigh)
        for rna, weigh in ((TRNA, True), (TRNA, False), (None, True))
    ]
    engine.run(answers)
    weight = weight_of(answers[0])
    assert weight.confidence == pytest.approx(min(math.exp(logprob) for logprob in answers[0].logprobs))
    assert weight.gain == pytest.approx(sum(answers[0].logprobs) - sum(answers[0].plain_logprobs))
    assert weight_of(answers[1]) is None and weight_of(answers[2]) is None  # not asked for; no RNA to leave out
    found = Evidence(min_confidence=1.0).as_json(answers[0], [TRNA, LET7])
    assert found["abstains"] is True and {"closest_known_rnas", "confidence", "gain_nats", "source"} < set(found)


@pytest.mark.parametrize(
    ("with_rna", "without", "source"),
    [
        (0.99, 0.125, "from the sequence"),  # one of eight types, named for sure: odds of 99 against 1/7
        (0.75, 0.125, "from the sequence"),  # 3 against 1/7: a ratio of 21
        (0.70, 0.125, "from general knowledge"),  # 2.33 against 1/7: of 16
        (1e-4, 4e-6, "from the sequence"),  # a long answer: its odds are its likelihood
        (1e-4, 6e-6, "from general knowledge"),
        (0.99999, 0.99, "from general knowledge"),  # a ratio of 1,000, but it would have been said anyway
        (0.99, 0.99, "from general knowledge"),
        (1.0, 0.01, "from the sequence"),
    ],
)
def test_the_source_is_told_by_the_odds(with_rna, without, source):
    weight = Weight(0.9, math.log(with_rna), math.log(without))
    assert weight.source == source
    if with_rna < 1:
        ratio = (with_rna / (1 - with_rna)) / (without / (1 - without))
        assert weight.log_odds_ratio == pytest.approx(math.log(ratio))


def test_below_the_threshold_the_model_abstains():
    assert not Weight(0.5, -1.0, -1.0).abstains and Weight(0.49, -1.0, -9.0).abstains


def test_a_fold_pairs_what_can_pair():
    structure, energy = fold(TRNA.sequence)
    allowed = {"AU", "UA", "GC", "CG", "GU", "UG"}
    found = pairs(structure)
    assert energy < -15 and len(found) > 15
    assert {TRNA.sequence[i] + TRNA.sequence[j] for i, j in found} <= allowed


def test_the_drawing_is_plain_svg():
    picture = drawn(TRNA.sequence, "<script>alert(1)</script>")
    assert picture.count("<circle") == len(TRNA)
    assert picture.count('class="pair"') == len(pairs(fold(TRNA.sequence)[0]))
    assert "<script" not in picture and "&lt;script&gt;" in picture
    assert "it has 601 nt" in drawn("A" * 601, "x") and "no stable fold" in drawn("A" * 30, "x")
    assert "<svg" in drawn("GGGGRNNNAAAACCCC", "codes")
