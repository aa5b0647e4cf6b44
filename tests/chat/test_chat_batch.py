"""Questions from a file, answered into a file.

pytest tests/chat/test_chat_batch.py
"""

import csv
import gzip
import io
import json
from types import SimpleNamespace

import pytest
from test_chat import LET7, TRNA, TYPE, YEAST, said_directly, user_turn
from test_chat_command import run_chat

from rnagpt.chat import batch_file as batch
from rnagpt.chat import terminal
from rnagpt.serving.confidence import Evidence
from rnagpt.serving.decoding import Sampling
from rnagpt.serving.engine import Engine
from rnagpt_core.errors import UserError

TSV = f"""id\trna\tquestion
long\t{TRNA.sequence}\t{TYPE}
bad\tACGE\t{TYPE}
short\t{LET7.sequence}\t{TYPE}

none\t\t{TYPE}
again\t{TRNA.sequence}\t{YEAST}
toolong\t{"A" * 9999}\t{TYPE}
silent\tACGU\t
two\t{TRNA.sequence}, {LET7.sequence}\tWhich of these two is a tRNA?
"""


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text(TSV)
    return path


def test_every_row_is_answered_or_says_why_not_in_order(monkeypatch, capsys, tiny_model, tiny_checkpoint, tsv):
    out = tsv.with_name("out.jsonl")
    arguments = [tiny_checkpoint, "--batch", tsv, "--out", out, "--max-new-tokens", 10]
    code, printed, err = run_chat(monkeypatch, capsys, *arguments)
    assert code == 2 and printed == "" and "4 of 8 rows could not be answered" in err
    rows = lines(out)
    assert [row["row"] for row in rows] == list(range(1, 9))
    assert [row["id"] for row in rows] == ["long", "bad", "short", "none", "again", "toolong", "silent", "two"]
    for i, question, rna in ((0, TYPE, TRNA), (2, TYPE, LET7), (4, YEAST, TRNA)):
        expected = terminal.printable(said_directly(tiny_model, [user_turn(question, rna)], 10))
        assert (rows[i]["answer"], rows[i]["finish_reason"]) == (expected, "length")
    assert rows[7]["answer"] and "error" not in rows[7]
    wrong = ["'E' at position 4", "expected a sequence", "record toolong has 9,999 nt", "question: expected a text"]
    for i, sentence in zip((1, 3, 5, 6), wrong, strict=True):
        assert sentence in rows[i]["error"] and "answer" not in rows[i]
    assert sorted(path.name for path in tsv.parent.iterdir()) == ["in.tsv", "out.jsonl"]
    code, _, err = run_chat(monkeypatch, capsys, *arguments)
    assert code == 2 and "out.jsonl is there already" in err


def test_an_interrupted_batch_goes_on_to_the_same_file(tiny_model, tsv):
    rows, sha256 = batch.read_rows(tsv, [])
    what = {"input_sha256": sha256}

    def run(out, stop_after=None, evidence=None):
        journal = batch.Journal(out, what)
        if stop_after is not None:
            write = journal.write

            def interrupted(row):
                write(row)
                if len(journal.done) == stop_after:
                    raise KeyboardInterrupt

            journal.write = interrupted
        return batch.run_batch(Engine(*tiny_model, max_answers=2), rows, journal, Sampling(6), evidence)

    whole, parted = tsv.with_name("whole.jsonl"), tsv.with_name("parted.jsonl")
    assert run(whole) == 4
    with pytest.raises(KeyboardInterrupt):
        run(parted, stop_after=5)
    assert not parted.exists()
    journal = parted.with_name("parted.jsonl.part")
    assert len(journal.read_text().splitlines()) == 6  # its heading, five rows
    with open(journal, "ab") as file:
        file.write('{"row": 7, "answer": "half a li\u00e9'.encode()[:-1])
    answered = []
    noting = SimpleNamespace(as_json=lambda answer, rnas: answered.append(rnas) or {})
    assert run(parted, evidence=noting) == 4
    assert parted.read_text() == whole.read_text() and not journal.exists()
    assert 0 < len(answered) < 4  # those answered before were not answered again


def test_a_journal_of_another_run_is_refused(monkeypatch, capsys, tiny_checkpoint, tsv):
    out = tsv.with_name("out.jsonl")
    journal = batch.Journal(out, {"input_sha256": "other"})
    journal.write({"row": 1, "answer": "of that run"})
    journal.file.close()
    code, _, err = run_chat(monkeypatch, capsys, tiny_checkpoint, "--batch", tsv, "--out", out)
    assert code == 2 and "was left by a run with other rows or settings" in err and "loading" not in err


def test_json_lines(tmp_path):
    path = tmp_path / "in.jsonl"
    given = [
        {"id": 7, "rna": TRNA.sequence, "question": TYPE},
        {"rna": [TRNA.sequence, LET7.sequence], "question": "Which?"},
        {"rna": LET7.sequence},
        {"rna": [], "question": TYPE},
        {"rna": "URS000047C79B_9606"},
    ]
    path.write_text("\n".join([*map(json.dumps, given), "{broken", "[1]", "[" * 100_000]) + "\n")
    rows, _ = batch.read_rows(path, [YEAST])
    assert [row.row_id for row in rows] == ["7", *(f"row{i}" for i in range(2, 9))]
    assert [rna.sequence for rna in rows[1].rnas] == [TRNA.sequence, LET7.sequence]
    assert rows[2].question == YEAST and rows[0].error is None
    assert "expected a sequence" in rows[3].error and "is an RNAcentral id" in rows[4].error
    assert [row.error for row in rows[5:]] == ["the line is no JSON object"] * 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_as_a_spreadsheet_writes_it(tmp_path, delimiter):
    path, question = tmp_path / "in.csv", f'Is it a "tRNA"{delimiter} or not?'
    text = io.StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter)
    table.writerows([["Id", "RNA", "Question"], ["a", TRNA.sequence, question], ["b", f"ACGU,{LET7.sequence}", TYPE]])
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    rows, _ = batch.read_rows(path, [])
    assert [(row.row_id, row.question, row.error) for row in rows] == [("a", question, None), ("b", TYPE, None)]
    assert [rna.sequence for rna in rows[0].rnas + rows[1].rnas] == [TRNA.sequence, "ACGU", LET7.sequence]


def test_a_row_with_more_cells_than_the_header_is_not_asked_by_half(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text("id\trna\tquestion\na\tACGU\tWhat\tis it?\nb\tACGU\tWhat?\t\n")
    rows, _ = batch.read_rows(path, [])
    assert "4 cells, and the header has 3" in rows[0].error and rows[1].error is None


def test_a_long_rna_in_a_cell(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text(f"rna\tquestion\n{'ACGU' * 50_000}\tWhat?\n")
    (row,), _ = batch.read_rows(path, [])
    assert len(row.rnas[0]) == 200_000


def test_two_runs_do_not_write_one_file(tmp_path):
    out, what = tmp_path / "out.jsonl", {"input_sha256": "same"}
    first = batch.Journal(out, what)
    first.write({"row": 1, "answer": "x"})
    with pytest.raises(UserError, match=r"another run is writing .*out\.jsonl\.part"):
        batch.Journal(out, what)
    first.write({"row": 2, "answer": "y"})
    first.file.close()
    second = batch.Journal(out, what)
    assert sorted(second.done) == [1, 2]
    second.finish()
    assert [row["answer"] for row in lines(out)] == ["x", "y"]


def test_fasta_records_each_get_every_question(tmp_path):
    path = tmp_path / "in.fa.gz"
    path.write_bytes(gzip.compress(f">a x\n{TRNA.sequence}\n>b\nMALW\n>c\nACGU\n".encode()))
    rows, _ = batch.read_rows(path, [TYPE, YEAST])
    found = [(row.number, row.row_id, row.question) for row in rows]
    assert found == list(zip(range(1, 7), "aabbcc", [TYPE, YEAST] * 3, strict=True))
    assert "record 2, line 2: record b: 'L' at position 3" in rows[2].error and rows[4].error is None


def test_rows_without_a_question_are_asked_every_one_given(monkeypatch, capsys, tiny_checkpoint, tmp_path):
    path, out = tmp_path / "in.tsv", tmp_path / "out.jsonl"
    path.write_text(f"id\trna\tquestion\na\tACGUACGU\t\nb\t{LET7.sequence}\tOwn?\nc\tNNNN\t\n")
    rows, _ = batch.read_rows(path, [TYPE, YEAST])
    found = [(row.number, row.row_id, row.question) for row in rows]
    assert found == list(zip(range(1, 6), "aabcc", [TYPE, YEAST, "Own?", TYPE, YEAST], strict=True))
    arguments = [tiny_checkpoint, "--batch", path, "--out", out, "--max-new-tokens", 2, "--question", TYPE, YEAST]
    code, _, err = run_chat(monkeypatch, capsys, *arguments)
    assert code == 2 and "1 of 5 rows have a question of their own; --question is for the others" in err
    assert ["error" in row for row in lines(out)] == [False, False, False, True, True]
    assert "only codes for unknown ones: there is nothing to read" in lines(out)[3]["error"]
    assert [row["question"] for row in lines(out)[3:]] == [TYPE, YEAST]  # of a row without an answer, too


def test_a_blank_question_is_none_and_zero_is_an_id(tmp_path):
    path = tmp_path / "in.jsonl"
    given = [{"id": 0, "question": " \t"}, {"id": "", "question": None}, {"id": "a", "question": 0}, {"question": []}]
    path.write_text("".join(json.dumps({"rna": TRNA.sequence} | row) + "\n" for row in given))
    rows, _ = batch.read_rows(path, [TYPE])
    assert [(row.row_id, row.question) for row in rows] == [("0", TYPE), ("row2", TYPE), ("a", ""), ("row4", "")]
    assert [row.error for row in rows] == [None, None, *["question: expected a text that is not empty"] * 2]


def test_an_answer_without_a_word_says_so_and_has_no_confidence(tiny_model, tsv):
    rows = batch.read_rows(tsv, [])[0][:1]
    out = tsv.with_name("out.jsonl")
    text = said_directly(tiny_model, [user_turn(TYPE, TRNA)], 4)
    journal = batch.Journal(out, {})
    sampling = Sampling(4, stop=(text[0],))  # the answer ends before its first character
    assert batch.run_batch(Engine(*tiny_model), rows, journal, sampling, Evidence()) == 0
    (row,) = lines(out)
    assert row["answer"] == "" and row["note"] == "the model gave no answer" and "confidence" not in row


@pytest.mark.parametrize(
    ("name", "content", "questions", "sentence"),
    [
        ("x.fa", ">a\nACGU\n", [], "give the questions by --question"),
        ("x.tsv", "a\tb\n", [], "line 1: expected a header with the columns id, rna, question"),
        ("x.tsv", "id\trna\n", [TYPE], "holds no rows"),
        ("x.jsonl", "", [], "holds no rows"),
        ("x.tsv", "\0" * 9, [], r"is a binary file, not text: give a \.tsv, \.csv, \.jsonl or FASTA file"),
        ("x.csv", 'id,rna,question\na,ACGU,"What is\nb,ACGU,What?\n', [], "is a quotation mark not closed"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole(tmp_path, name, content, questions, sentence):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        batch.read_rows(path, questions)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "x.tsv"], "--batch FILE and --out FILE belong together"),
        (["--batch", "x.tsv", "--out", "y", "--rna", "ACGU"], "leave --fasta and --rna out"),
        (["--batch", "no.tsv", "--out", "y"], "no.tsv does not exist: give the path of a .tsv, .csv, .jsonl or FASTA"),
        (["--batch", "no.tsv", "--out", "no/folder/y"], "no/folder is no folder"),
        (["--batch", "no.tsv", "--out", "-"], "--out is a file, so that an interrupted run can go on"),
    ],
)
def test_mistakes(monkeypatch, capsys, tiny_checkpoint, arguments, sentence):
    code, out, err = run_chat(monkeypatch, capsys, tiny_checkpoint, *arguments)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


def test_rows_with_confidence_have_their_evidence(monkeypatch, capsys, tiny_checkpoint, tsv):
    out = tsv.with_name("out.jsonl")
    arguments = [tiny_checkpoint, "--batch", tsv, "--out", out, "--max-new-tokens", 4, "--confidence"]
    run_chat(monkeypatch, capsys, *arguments)
    row = lines(out)[0]
    assert 0 <= row["confidence"] <= 1 and row["source"].startswith("from ") and isinstance(row["abstains"], bool)
    assert row["closest_known_rnas"][0]["rna_type"] == "tRNA"
