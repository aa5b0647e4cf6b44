"""Questions and answers phrased from the facts: that every answer can be read back, and that nothing leaks.

pytest tests/dataset_builder/test_fact_questions.py
"""

import re
from collections import Counter, defaultdict

import pytest

from dataset_builder.facts_table.fact_answers import AMINO_ACID_NAMES, TYPE_NAMES
from dataset_builder.facts_table.fact_questions import (
    FUNCTIONS,
    WORDINGS,
    annotation,
    parse_answer,
    questions,
    type_name,
)
from dataset_builder.facts_table.facts import EVALUATION_TYPES, load_facts

TYPE_WORDS = re.compile(
    r"trna|transfer|mirna|microrna|precursor|hairpin|ribosom|5s|rnase|ribonuclease|snrna|spliceosom|nuclear rna"
    r"|nucleol|riboswitch|intron|srp|signal recognition|vault|srna|small rna|xrrna",
    re.I,
)


@pytest.fixture(scope="module")
def facts():
    return load_facts()


@pytest.fixture(scope="module")
def asked(facts):
    return [(fact, questions(fact, seed)) for seed, fact in enumerate(facts)]


def test_five_to_fourteen_questions_each_ending_in_one_gold_label(asked):
    for fact, items in asked:
        assert 5 <= len(items) <= 14
        for item in items:
            assert parse_answer(item.answer, item.topic, item.options or None) == item.gold, (fact.rna_id, item)
            assert item.kind == ("closed" if item.options else "open")
            assert "{" not in item.question + item.answer and "this RNA" in item.question + " this RNA"
            assert fact.sequence not in item.question + item.answer and fact.rna_id not in item.question + item.answer


def test_every_question_speaks_of_this_rna():
    for topic, wordings in WORDINGS.items():
        assert len(set(wordings)) == len(wordings) >= 5, topic
        assert all(re.search(r"\bthis RNA\b|RNA is this", wording) for wording in wordings), topic


def test_all_wordings_are_used(asked):
    patterns = {
        topic: [(template, re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))) for template in wordings]
        for topic, wordings in WORDINGS.items()
    }
    seen = defaultdict(set)
    for _, items in asked:
        for item in items:
            wording = "rna_type_options" if item.topic == "rna_type" and item.options else item.topic
            fitting = [template for template, pattern in patterns[wording] if pattern.fullmatch(item.question)]
            assert fitting, item.question
            seen[wording].update(fitting)
    assert seen == {topic: set(wordings) for topic, wordings in WORDINGS.items()}


def test_yes_and_no_are_balanced_overall_and_within_every_type(asked):
    for topic in ("is_type", "is_organism_group"):
        by_type = defaultdict(Counter)
        for fact, items in asked:
            by_type[fact.rna_type].update(item.gold for item in items if item.topic == topic)
        for rna_type, counts in by_type.items():
            assert counts["yes"] == counts["no"], (topic, rna_type)


def test_a_no_names_another_type_and_tells_the_true_one(asked):
    wrong = Counter()
    for fact, items in asked:
        for item in items:
            if item.topic == "is_type":
                named = parse_answer(item.question.partition("RNA")[2], "rna_type")
                assert (named == fact.rna_type) == (item.gold == "yes"), item
                assert parse_answer(item.answer, "rna_type") == fact.rna_type
                if item.gold == "no":
                    wrong[named] += 1
    assert set(wrong) == set(EVALUATION_TYPES)
    assert max(wrong.values()) < 3 * min(wrong.values())


def test_closed_type_questions_list_their_options(asked):
    places = Counter()
    for fact, items in asked:
        (item,) = [item for item in items if item.topic == "rna_type" and item.kind == "closed"]
        assert len(set(item.options)) == 4 and fact.rna_type in item.options
        assert all(type_name(option) in item.question for option in item.options)
        places[item.options.index(fact.rna_type)] += 1
    assert min(places.values()) > len(asked) / 5  # the right one is not at a telling place


def test_no_type_word_in_open_questions(asked):
    for _, items in asked:
        for item in items:
            if item.kind == "open":
                assert not TYPE_WORDS.search(item.question.replace("type of this RNA", "")), item.question


def test_same_seed_same_questions_other_seed_other_words(facts):
    sample = facts[::200]
    assert [questions(fact, 3) for fact in sample] == [questions(fact, 3) for fact in sample]
    assert [questions(fact, 3) for fact in sample] != [questions(fact, 4) for fact in sample]
    assert [annotation(fact, 3) for fact in sample] != [annotation(fact, 4) for fact in sample]


def test_annotation_tells_type_first_and_no_secret(facts):
    wordings = defaultdict(set)
    for fact in facts:
        text = annotation(fact, seed=len(wordings))
        sentences = re.split(r"(?<=\.) (?=[A-Z])", text)
        assert 2 <= len(sentences) <= 4, text
        assert parse_answer(sentences[0], "rna_type") == parse_answer(text, "rna_type") == fact.rna_type
        assert parse_answer(text, "function") == fact.rna_type
        assert fact.rna_id not in text and fact.sequence not in text and fact.name.split()[0] + "-" not in text
        if fact.species:
            assert fact.species in text and fact.organism_group in text
        if fact.amino_acid:
            assert AMINO_ACID_NAMES[fact.amino_acid] in text
        wordings[fact.rna_type].add(sentences[0])
    assert all(len(wordings[rna_type]) >= 5 for rna_type in EVALUATION_TYPES)


@pytest.mark.parametrize("rna_type", sorted(TYPE_NAMES))
def test_type_names_functions_and_labels_are_read_back(rna_type):
    assert parse_answer(type_name(rna_type), "rna_type") == rna_type
    assert parse_answer(rna_type, "rna_type") == rna_type
    assert parse_answer(FUNCTIONS[rna_type], "function") == rna_type
    assert parse_answer(f"It is not a {type_name(rna_type)}.", "rna_type") is None


@pytest.mark.parametrize(
    ("text", "topic", "label"),
    [
        ("tRNA", "rna_type", "tRNA"),
        ("a mitochondrial t-RNA", "rna_type", "tRNA"),
        ("transfer-RNA gene", "rna_type", "tRNA"),
        ("tmRNA", "rna_type", None),
        ("mtRNA", "rna_type", None),
        ("mRNA", "rna_type", None),
        ("micro RNA", "rna_type", "miRNA"),
        ("a microRNA precursor", "rna_type", "pre_miRNA"),
        ("the precursor of a microRNA", "rna_type", "pre_miRNA"),
        ("a miRNA hairpin", "rna_type", "pre_miRNA"),
        ("pre-microRNA", "rna_type", "pre_miRNA"),
        ("a stem-loop", "rna_type", "pre_miRNA"),
        ("not a tRNA or a riboswitch but an snRNA", "rna_type", "snRNA"),
        ("It isn't a tRNA; it is a snoRNA.", "rna_type", "snoRNA"),
        ("a riboswitch rather than a tRNA", "rna_type", "riboswitch"),
        ("rather than a tRNA, a riboswitch", "rna_type", "riboswitch"),
        ("5.8S rRNA", "rna_type", "5.8S_rRNA"),
        ("5S", "rna_type", "5S_rRNA"),
        ("15S rRNA", "rna_type", None),
        ("ribosomal RNA", "rna_type", None),
        ("group II intron", "rna_type", None),
        ("group I intron", "rna_type", "autocatalytically_spliced_intron"),
        ("ribonuclease P", "rna_type", "RNase_P_RNA"),
        ("", "rna_type", None),
        ("YES!", "is_type", "yes"),
        ("Notably, yes.", "is_type", "yes"),
        ("It does not.", "is_organism_group", "no"),
        ("maybe", "is_type", None),
        ("Bacteria.", "organism_group", "bacterium"),
        ("not from a plant but from an animal", "organism_group", "animal"),
        ("implant", "organism_group", None),
        ("ALA", "amino_acid", "Ala"),
        ("selenocysteine", "amino_acid", "SeC"),
        ("his anticodon", "amino_acid", None),
        ("aspartic acid", "amino_acid", "Asp"),
        ("chloroplast", "compartment", "plastid"),
        ("about 200 nucleotides", "length_class", "long"),
        ("It is 49 nt long.", "length_class", "short"),
        ("medium-sized (50 to 150 nt)", "length_class", "medium"),
        ("unknown", "length_class", None),
        ("UGC", "anticodon", "UGC"),
        ("ACGUACGU", "anticodon", None),
    ],
)
def test_parse_answer(text, topic, label):
    assert parse_answer(text, topic) == label


def test_options_limit_what_counts():
    assert parse_answer("a tRNA", "rna_type", options=("tRNA", "miRNA")) == "tRNA"
    assert parse_answer("a tRNA", "rna_type", options=("miRNA", "riboswitch")) is None
    with pytest.raises(ValueError, match="topic is 'colour'"):
        parse_answer("red", "colour")
