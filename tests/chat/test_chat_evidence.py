"""What is laid beside an answer: closest known RNAs and confidence.

pytest tests/chat/test_chat_evidence.py
"""

import hashlib
import math
import random
import re
from collections import Counter
from types import SimpleNamespace
from xml.etree import ElementTree

import edlib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_chat import LET7, TRNA, TYPE, user_turn

from dataset_builder.facts_table.facts import load_facts
from dataset_builder.storage.records import published_schemas
from rnagpt.chat.fold_drawing import drawing, fold
from rnagpt.chat.web import Page
from rnagpt.known_rnas.base import KnownRnas, rna_qa
from rnagpt.serving.confidence import Confidence, Evidence, confidence_of
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Engine
from rnagpt_core.errors import UserError
from rnagpt_core.nearest import Block, are_neighbours

SCRIPT = "<script>window.attacked=1</script>"


@pytest.fixture(scope="module")
def known():
    return KnownRnas()


def test_the_closest_are_the_neighbours_of_an_exhaustive_search(known):
    """For RNAs mutated by 10%, the index finds the best of all that the splits' own search calls neighbours."""
    rng = random.Random(0)
    facts = load_facts()
    for fact in rng.sample(facts, 12):
        mutated = "".join(rng.choice("ACGU") if rng.random() < 0.1 else letter for letter in fact.sequence)
        expected = {other.rna_id for other in facts if are_neighbours(mutated, other.sequence)}
        found = known.nearest(mutated, most=3)
        assert {neighbour.rna.rna_id for neighbour in found} <= expected
        assert len(found) == min(3, len(expected))
        assert all(0.8 <= neighbour.identity <= 1 for neighbour in found)


def test_an_rna_of_the_table_is_its_own_closest(known):
    fact = next(fact for fact in load_facts() if fact.rna_type == "riboswitch")
    (first, *_) = known.nearest(fact.sequence)
    assert first.identity == 1 and first.rna.sequence == fact.sequence
    assert "riboswitch" in first.described() and "100% identical" in first.described()


def test_nothing_is_close_to_noise(known):
    rng = random.Random(1)
    assert known.nearest("".join(rng.choice("ACGU") for _ in range(150))) == []
    assert known.nearest("ACG") == [] and known.nearest("N" * 40) == []


def test_the_index_counts_shared_words_as_a_plain_count_does(known):
    def words(sequence):
        return Counter(sequence[i : i + 6] for i in range(len(sequence) - 5))

    rng = random.Random(2)
    sequences = [fact.sequence for fact in rng.sample(load_facts(), 60)] + ["ACGUNNACGUACGNACGUACGU", "A" * 300, "ACG"]
    block = Block(sequences)
    for asked in (TRNA.sequence, sequences[0], "ACGUACGUACNGUACG", "A" * 280):
        shared = [words(asked) & words(sequence) for sequence in sequences]
        expected = [sum(min(n, 255) for word, n in found.items() if "N" not in word) for found in shared]
        assert block.shared(asked).tolist() == expected
    assert known.indexed[0][1].blocks[0][1].shared(TRNA.sequence).max() > 40


def test_known_rnas_are_found_in_a_long_rna(known):
    """Where all 6-mers occur anyway, as in a genome; with the distance of an alignment against the whole."""
    rng = random.Random(3)
    noise = "".join(rng.choices("ACGU", k=40_000))
    facts = [fact for fact in load_facts() if 60 <= len(fact.sequence) <= 900]
    for fact in rng.sample(facts, 6):
        mutated = "".join(rng.choice("ACGU") if rng.random() < 0.08 else letter for letter in fact.sequence)
        cut = rng.randrange(40_000)
        whole = noise[:cut] + mutated + noise[cut:]
        found = known.nearest(whole, most=50)
        same = next(one for one in found if one.rna.rna_id == fact.rna_id)
        edits = edlib.align(fact.sequence, whole, mode="HW")["editDistance"]
        assert same.identity == pytest.approx(1 - edits / len(fact.sequence))


def write_rna_qa(folder, parts, schema=None):
    """An RNA-QA folder with the alignment rows of each split, as `rnagpt build-dataset` publishes them."""
    schema = schema or published_schemas()["alignment"]
    (folder / "alignment").mkdir(parents=True)
    files = []
    for split, rows in parts.items():
        # datasets would else take those of another folder from its cache
        mark = hashlib.sha256(f"{schema} {rows}".encode()).hexdigest()[:12]
        files.append({"split": split, "path": f"alignment/{split}-{mark}.parquet"})
        table = pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema)
        pq.write_table(table, folder / files[-1]["path"])
    card = {"configs": [{"config_name": "alignment", "data_files": files}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    return folder


@pytest.fixture(scope="module")
def rna_qa_folder(tmp_path_factory):
    """Three RNAs, one of them annotated by two methods."""
    plain = {"rna_type": "tRNA", "species": "Danio rerio", "method": "ais"}
    rows = [
        {"rna_id": "URS000047C79B_7955", "sequence": TRNA.sequence, "name": "tRNA", "pmids": ["12", "PMC3"]},
        {"rna_id": "URS000047C79B_7955", "sequence": TRNA.sequence, "name": "tRNA", "pmids": ["12", "4"]},
        {"rna_id": "my1", "sequence": "ACGU" * 20, "name": SCRIPT, "pmids": [str(n) for n in range(9)]},
        {"rna_id": "my2", "sequence": "ACG", "name": "short", "pmids": []},
    ]
    rows = [plain | row for row in rows]
    return write_rna_qa(tmp_path_factory.mktemp("rna-qa"), {"train": rows[:2], "test": rows[2:]})


def test_rnas_that_others_wrote_are_read_as_far_as_they_go(tmp_path):
    """DNA letters, gaps in a column, one id for two sequences, ids of no paper; rows that name no RNA are counted."""
    other, hostile = "GGCAUUACGC" * 3, ["javascript:alert(1)", "<b>", None, "PMC1", "", "7"]
    rows = [
        {"rna_id": "a", "sequence": TRNA.sequence.lower().replace("u", "t"), "pmids": hostile},
        {"rna_id": "a", "sequence": other, "pmids": ["8"]},
        {"rna_id": "a", "sequence": other, "pmids": None},
        {"rna_id": None, "sequence": other},
        {"rna_id": "b", "sequence": None},
        {"rna_id": "c", "sequence": ""},
        {"rna_id": "d", "sequence": other + "É"},
    ]
    more = rna_qa(str(write_rna_qa(tmp_path / "texts", {"train": rows})))
    assert (len(more), more.left_out) == (2, 4)
    known = KnownRnas([more], table=[])
    for sequence, pmids in ((TRNA.sequence, ("PMC1", "7")), (other, ("8",))):
        (found,) = known.nearest(sequence)
        assert (found.rna.rna_id, found.identity, found.rna.pmids) == ("a", 1, pmids)
        assert found.described() == "a, 100% identical, RNA-QA a"
    numbers = pa.schema([(name, pa.int64()) for name in ("rna_id", "name")])
    numbers = pa.schema([*numbers, *((name, pa.string()) for name in ("sequence", "rna_type", "species"))])
    numbers = numbers.append(pa.field("pmids", pa.list_(pa.int64())))
    rows = [{"rna_id": 0, "name": 5, "sequence": TRNA.sequence, "pmids": [12]}]
    (found,) = KnownRnas([rna_qa(str(write_rna_qa(tmp_path / "numbers", {"train": rows}, numbers)))], []).nearest(
        TRNA.sequence
    )
    assert (found.rna.rna_id, found.rna.name, found.papers()) == ("0", "5", "PMID 12")


def test_rnas_of_rna_qa_are_found_with_their_papers(rna_qa_folder):
    more = rna_qa(str(rna_qa_folder))
    assert len(more) == 3
    found = KnownRnas([more]).nearest(TRNA.sequence)
    first = next(one for one in found if one.rna.rna_id == "URS000047C79B_7955")
    assert first.identity == 1 and first.rna.pmids == ("12", "PMC3", "4")
    assert first.rna.page == "https://rnacentral.org/rna/URS000047C79B/7955"
    assert first.described().startswith("tRNA (transfer RNA (tRNA), Danio rerio), 100% identical, RNA-QA URS0000")
    assert first.papers() == "PMID 12, PMC3, PMID 4" and first.as_json()["pmids"] == ["12", "PMC3", "4"]
    assert KnownRnas([more], table=[]).nearest("ACGU" * 20)[0].papers().endswith("PMID 4 and 4 more")
    assert found[0].identity == 1 and KnownRnas().nearest(TRNA.sequence)[0].rna.pmids == ()


def test_the_page_links_a_known_rnas_papers_and_shows_its_name_as_text(rna_qa_folder, tmp_path):
    evidence = Evidence(known=KnownRnas([rna_qa(str(rna_qa_folder))], table=[]))
    page = Page(SimpleNamespace(engine=None), [], Sampling(), evidence, tmp_path)  # nothing is asked
    (neighbour,) = evidence.closest(TRNA.sequence)
    assert page.linked(neighbour).count("<a href=") == 4
    paper = '<a href="https://pubmed.ncbi.nlm.nih.gov/12/" rel="noreferrer" target="_blank">PMID 12</a>'
    assert paper in page.linked(neighbour)
    (neighbour,) = evidence.closest("ACGU" * 20)
    assert "<script>" not in page.linked(neighbour) and "and 4 more papers" in page.linked(neighbour)


def test_what_is_no_rna_qa_is_told(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"rna_id": "x"}\n')
    with pytest.raises(UserError, match="no data set at .*alignment, all"):
        rna_qa(str(tmp_path))
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: alignment\n  data_files: train.jsonl\n---\n")
    with pytest.raises(UserError, match="lacks the columns name, pmids, rna_type, sequence, species"):
        rna_qa(str(tmp_path))


def test_an_rna_qa_without_rnas_is_told(tmp_path):
    schema = published_schemas()["alignment"]
    as_text = schema.set(schema.get_field_index("pmids"), pa.field("pmids", pa.string()))
    rows = [{"rna_id": "x", "sequence": "ACGUACGUACGU", "pmids": "12;13"}]
    for name, parts, form, said in (
        ("empty", {"train": []}, schema, "empty .*has no rows"),
        ("no letters", {"train": [{"rna_id": "x", "sequence": "MKLV"}]}, schema, "no row with an rna_id and a"),
        ("texts", {"train": rows}, as_text, "its pmids are string, and an RNA-QA has lists"),
    ):
        with pytest.raises(UserError, match=said):
            rna_qa(str(write_rna_qa(tmp_path / name, parts, form)))
    write_rna_qa(tmp_path / "build" / "dataset", {"train": []})
    with pytest.raises(UserError, match=r"build is the folder of a build: the data set is .*build/dataset$"):
        rna_qa(str(tmp_path / "build"))
    for name in ("", __file__):
        with pytest.raises(UserError, match="is no data set: give its folder or its Hub id"):
            rna_qa(name)


def test_an_answers_confidence(tiny_model):
    engine = Engine(*tiny_model)
    answers = [
        engine.prepare([user_turn(TYPE, rna)], Sampling(8), confidence=confidence)
        for rna, confidence in ((TRNA, True), (TRNA, False), (None, True))
    ]
    engine.run(answers)
    found = confidence_of(answers[0])
    assert found.confidence == pytest.approx(min(math.exp(logprob) for logprob in answers[0].logprobs))
    assert found.gain == pytest.approx(sum(answers[0].logprobs) - sum(answers[0].plain_logprobs))
    assert (
        confidence_of(answers[1]) is None and confidence_of(answers[2]) is None
    )  # not asked for; no RNA to leave out
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
    found = Confidence(0.9, math.log(with_rna), math.log(without))
    assert found.source == source
    if with_rna < 1:
        ratio = (with_rna / (1 - with_rna)) / (without / (1 - without))
        assert found.log_odds_ratio == pytest.approx(math.log(ratio))


def test_below_the_threshold_the_model_abstains():
    assert not Confidence(0.5, -1.0, -1.0).abstains and Confidence(0.49, -1.0, -9.0).abstains


def test_the_drawing_is_plain_svg():
    structure, energy = fold(TRNA.sequence)
    assert energy < -15 and structure.count("(") == structure.count(")") > 15
    picture = drawing(TRNA.sequence, "<script>alert(1)</script>")
    letters = re.findall('class="nucleotide"[^>]*>(.)<', picture)
    assert "".join(letters) == TRNA.sequence and ">5′<" in picture and ">3′<" in picture
    assert picture.count('class="basepairs"') == structure.count("(")
    assert "<script" not in picture and "onclick" not in picture and "&lt;script&gt;" in picture
    ElementTree.fromstring(picture.partition("<p>")[0])
    assert "it has 601 nt" in drawing("A" * 601, "x") and "no stable fold" in drawing("A" * 30, "x")
    assert "<svg" in drawing("GGGGRNNNAAAACCCC", "codes")
