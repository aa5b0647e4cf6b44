"""The baselines see what is planted for them, never a held-out answer, and leave no question open."""

from dataclasses import replace

import numpy as np
import pytest

from dataset_builder.facts_table.fact_questions import questions
from dataset_builder.facts_table.facts import EVALUATION_TYPES, balanced_subset, load_facts
from rnagpt.evaluation.asking.baselines import (
    Training,
    answers_from_features,
    baseline_answers,
    kmer_length,
    length_only,
    linear_probe,
    nearest_train,
)
from rnagpt.evaluation.asking.items import evaluation_items


@pytest.fixture(scope="module")
def train():
    return balanced_subset(load_facts(split="train"), 40, seed=0)  # types outside the evaluation are in training too


@pytest.fixture(scope="module")
def held_out():
    facts = [fact for fact in load_facts(split="test") if fact.rna_type in EVALUATION_TYPES]
    return balanced_subset(facts, 12, seed=0)


@pytest.fixture(scope="module")
def items(held_out):
    return evaluation_items(held_out, seed=0)


def commonest(facts, items, **how):
    training = Training(facts)
    return [training.commonest(item, **how) for item in items]


def share_right(labels, items, topic):
    pairs = [(label, item.gold) for label, item in zip(labels, items, strict=True) if item.topic == topic]
    return np.mean([label == gold for label, gold in pairs])


def test_every_baseline_answers_every_item_with_one_of_its_options(train, held_out, items):
    rng = np.random.default_rng(0)
    answers = baseline_answers(
        train, held_out, items, 0, rng.normal(size=(len(train), 8)), rng.normal(size=(len(held_out), 8))
    )
    assert {answer.system for answer in answers} == {
        "majority",
        "question_only",
        "nearest_train",
        "length_only",
        "kmer_length",
        "linear_probe",
    }
    assert len(answers) == 6 * len(items)
    assert all(
        answer.parsed in answer.options and answer.correct == (answer.parsed == answer.gold) for answer in answers
    )
    assert {answer.shown_rna_id for answer in answers if answer.system in ("majority", "question_only")} == {None}


def test_the_question_alone_gives_away_what_its_wording_does(train, held_out, items):
    counted = {}
    for fact in train:
        for question in questions(fact, 0):
            counted.setdefault((question.topic, question.question), []).append(question.gold)
    labels = commonest(train, items, same_question=True)
    seen = [
        (label, item, counted[item.topic, item.question])
        for label, item in zip(labels, items, strict=True)
        if (item.topic, item.question) in counted
    ]
    assert len(seen) > len(items) / 2
    assert all(known.count(label) == max(map(known.count, item.options)) for label, item, known in seen)
    assert share_right(labels, items, "rna_type") <= 0.2  # of eight types, whatever the wording


def test_the_majority_answer_scores_exactly_chance_on_what_is_balanced(train, held_out, items):
    labels = commonest(train, items)
    assert share_right(labels, items, "rna_type") == 1 / len(EVALUATION_TYPES)
    assert share_right(labels, items, "is_type") == 0.5


def test_the_majority_follows_the_training_rnas(train, held_out, items):
    only_plants = [replace(fact, organism_group="plant") for fact in train]
    labels = commonest(only_plants, items)
    assert {label for label, item in zip(labels, items, strict=True) if item.topic == "organism_group"} == {"plant"}


def test_the_nearest_training_rna_is_the_rna_itself_where_it_is_there(train, held_out, items):
    labels = nearest_train(Training([*train, *held_out]), held_out, items)
    assert [label for label, item in zip(labels, items, strict=True) if label != item.gold] == []


def test_real_rnas_are_told_apart_by_length_and_by_kmers(train, held_out, items):
    by_length, by_kmers = (predict(Training(train), held_out, items) for predict in (length_only, kmer_length))
    assert share_right(by_length, items, "length_class") > 0.95
    for labels in (by_length, by_kmers):  # chance is an eighth; the table must show how far it is to a real baseline
        assert share_right(labels, items, "rna_type") > 0.5
        assert share_right(labels, items, "is_type") >= share_right(labels, items, "rna_type")


def test_held_out_answers_play_no_part(train, held_out, items):
    blinded = [replace(item, gold=item.options[0], reference="", rna_type="") for item in items]
    training = Training(train)
    for same in (False, True):
        assert commonest(train, items, same_question=same) == commonest(train, blinded, same_question=same)
    for predict in (nearest_train, length_only):
        assert predict(training, held_out, items) == predict(training, held_out, blinded)


def test_the_probe_reads_the_features_it_is_given(train, held_out, items):
    def one_hot(facts):
        return np.eye(len(EVALUATION_TYPES))[[EVALUATION_TYPES.index(fact.rna_type) for fact in facts]]

    known = [fact for fact in train if fact.rna_type in EVALUATION_TYPES]
    labels = answers_from_features(Training(known), one_hot(known), held_out, one_hot(held_out), items)
    assert share_right(labels, items, "rna_type") == share_right(labels, items, "is_type") == 1
    noise = np.random.default_rng(0).normal(size=(len(held_out), len(EVALUATION_TYPES)))
    assert (
        share_right(answers_from_features(Training(known), one_hot(known), held_out, noise, items), items, "rna_type")
        < 0.4
    )


def test_linear_probe_on_planted_clouds():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 300)
    x = np.array([{"a": [0, 0], "b": [5, 0], "c": [0, 5]}[label] for label in labels]) + rng.normal(size=(300, 2))
    assert np.mean(np.array(linear_probe(x[:200], labels[:200], x[200:])) == labels[200:]) > 0.95
    assert linear_probe(x[:5], ["a"] * 5, x[:3]) == ["a"] * 3


def test_features_must_match_the_rnas(train, held_out, items):
    with pytest.raises(ValueError, match="got 3 rows"):
        answers_from_features(Training(train), np.zeros((3, 2)), held_out, np.zeros((len(held_out), 2)), items)
