"""What is asked, how answers are scored, and that a killed run loses one answer at most."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from dataset_builder.facts_table.facts import EVALUATION_TYPES, balanced_subset, load_facts
from rnagpt.evaluation.asking.items import (
    ANSWER_CHOICES,
    ItemWriter,
    evaluation_items,
    labelled,
    read_items,
    to_line,
    written,
)
from rnagpt_core.errors import UserError


@pytest.fixture(scope="module")
def facts():
    facts = [fact for fact in load_facts(split="test") if fact.rna_type in EVALUATION_TYPES]
    return balanced_subset(facts, 26, seed=0)


@pytest.fixture(scope="module")
def items(facts):
    return evaluation_items(facts, seed=0)


# --- what is asked


def test_every_rna_is_asked_its_type_once_and_two_or_three_closed_questions(facts, items):
    per_rna = Counter(item.rna_id for item in items)
    assert set(per_rna) == {fact.rna_id for fact in facts} and set(per_rna.values()) <= {3, 4}
    types = [item for item in items if item.topic == "rna_type"]
    assert Counter(item.gold for item in types) == dict.fromkeys(EVALUATION_TYPES, 26)
    assert {item.kind for item in types} == {"open"} and len({item.question for item in types}) >= 5
    assert {item.kind for item in items if item.topic != "rna_type"} == {"closed"}


def test_yes_and_no_are_balanced_within_every_type(items):
    answers = Counter((item.rna_type, item.gold) for item in items if item.topic == "is_type")
    assert answers == {(rna_type, word): 13 for rna_type in EVALUATION_TYPES for word in ("yes", "no")}


def test_every_right_answer_is_parsed_as_right(items):
    for item in items:
        assert item.gold in item.options and item.options == ANSWER_CHOICES[item.topic]
        assert written(item, "oracle", item.reference, item.rna_id).correct, item.reference


def test_the_questions_depend_on_the_seed_and_on_nothing_else(facts, items):
    assert evaluation_items(list(reversed(facts)), seed=0) == items != evaluation_items(facts, seed=1)
    assert len({item.key for item in items}) == len(items)


def test_a_type_outside_the_evaluation_is_refused(facts):
    with pytest.raises(ValueError, match="snoRNA"):
        evaluation_items([replace(facts[0], rna_type="snoRNA")])


def test_an_answer_without_a_label_is_wrong(items):
    item = written(items[0], "stage2", "The RNA is the RNA.", None)
    assert item.parsed is None and not item.correct and item.answer == "The RNA is the RNA."


# --- the file


def some_answers(items, count=5):
    return [labelled(item, "stage2", item.gold, item.rna_id, "ü \u2028 " + item.gold) for item in items[:count]]


def test_what_is_written_is_read(items, tmp_path):
    path = tmp_path / "evaluation" / "items.jsonl"
    with ItemWriter(path) as writer:
        assert all(map(writer.write, some_answers(items)))
    assert read_items(path) == some_answers(items)
    assert [entry.name for entry in path.parent.iterdir()] == ["items.jsonl"]
    record = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert set(record) == set(
        "system rna_id cluster rna_type true_length name topic kind question options gold reference answer parsed "
        "correct shown_rna_id".split()
    )
    assert next(iter(record)) == "system"


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_half_written_last_line_is_left_out_and_written_again(items, tmp_path, cut):
    path, answers = tmp_path / "items.jsonl", some_answers(items)
    path.write_text("".join(map(to_line, answers)))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_items(path) == answers[:-1]
    with ItemWriter(path) as writer:
        assert writer.done("stage2", answers[0]) and not writer.done("stage2", answers[-1])
        assert not writer.done("stage1", answers[0])
        assert [writer.write(answer) for answer in answers] == [False] * 4 + [True]
    assert read_items(path) == answers


def test_every_answer_is_on_disk_as_soon_as_it_is_written(items, tmp_path):
    path = tmp_path / "deep" / "items.jsonl"
    writer = ItemWriter(path)
    for count, answer in enumerate(some_answers(items), start=1):
        writer.write(answer)
        assert len(read_items(path)) == count
    with pytest.raises(ValueError, match="names no system"):
        writer.write(items[0])
    writer.close()


def test_a_broken_line_before_the_last_is_a_user_error(items, tmp_path):
    path = tmp_path / "items.jsonl"
    lines = [to_line(answer) for answer in some_answers(items)]
    for broken, message in (
        ("{half\n", "line 2 of"),
        ("[]\n", "expected a JSON object, got list"),
        ('{"system": "a"}\n', "it lacks"),
        (lines[0].replace('"correct": true', '"correct": false'), '"correct" is False'),
    ):
        path.write_text(lines[0] + broken + lines[1], encoding="utf-8")
        with pytest.raises(UserError, match=message):
            read_items(path)
    with pytest.raises(UserError, match="does not exist"):
        read_items(tmp_path / "nowhere.jsonl")
