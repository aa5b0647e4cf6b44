"""What a careless user does to `rnagpt evaluate`: one sentence each, nothing lost, nothing that looks complete."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_evaluation_run import qa_rows, recipe_file, write_rows

from rnagpt.cli import main
from rnagpt.evaluation.asking.answers import FileAnswers
from rnagpt.evaluation.asking.items import read_items, to_line, written
from rnagpt.evaluation.asking.qa_baselines import qa_baseline_answers
from rnagpt.evaluation.asking.qa_items import qa_items, read_qa
from rnagpt.evaluation.evaluation_recipe import load_evaluation
from rnagpt.evaluation.reporting.model_index import dataset_of
from rnagpt.evaluation.reporting.prose import headline
from rnagpt.evaluation.reporting.summary import summarise
from rnagpt_core.errors import UserError
from rnagpt_core.files import only_one


@pytest.fixture
def data(tmp_path):
    write_rows(tmp_path / "rna-qa" / "train.parquet", qa_rows("train", 12, 1))
    write_rows(tmp_path / "rna-qa" / "test.parquet", qa_rows("test", 6, 2))
    return tmp_path / "rna-qa"


@pytest.fixture
def answers(data, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "".join(
            json.dumps({"rna_id": item.rna_id, "question": item.question, "answer": item.reference}) + "\n"
            for item in qa_items(read_qa(data, "test"))
        )
    )
    return path


def system(answers, name="theirs"):
    return {"name": name, "kind": "file", "model": str(answers)}


def run(folder, recipe, *more):
    return main(["evaluate", str(folder), "--recipe", str(recipe), *more])


# --- the recipe


ONE = {"name": "a", "kind": "rna", "model": "x"}


@pytest.mark.parametrize(
    "systems, message",
    [
        ([ONE | {"name": "majority"}], "named 'majority': the baselines have that name"),
        ([ONE | {"controls": ["no_rna"]}, ONE | {"name": "a_no_rna"}], "'a_no_rna': it is what a is called under"),
        ([ONE | {"name": " "}], "'systems.1': name must be a text"),
        ([ONE | {"name": "a\nb"}], "printed on one line, got 'a..?nb'"),
        ([ONE | {"kind": "magic"}], "'systems.1.kind' must be 'rna', 'llm_text'"),
        ([ONE | {"controls": ["upside_down"]}], "'systems.1.controls.1' must be 'swapped', .* got 'upside_down'"),
        ([ONE | {"kind": "endpoint"}], "needs its base_url"),
        ([ONE | {"kind": "file", "controls": ["swapped"]}], "has no controls"),
        ([ONE | {"kind": "file", "model": "missing.jsonl"}], "no file at missing.jsonl"),
        ([ONE, ONE], "two systems are named 'a'"),
        ([ONE | {"max_new_tokens": 0}], "'systems.1.max_new_tokens' must be at least 1, got 0"),
    ],
)
def test_a_system_that_would_mix_up_answers_or_cannot_be_is_refused(tmp_path, systems, message):
    with pytest.raises(UserError, match=message):
        load_evaluation(recipe_file(tmp_path, "facts", systems))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": {"source": "facts", "closed_per_rna": 0}}, "'data.closed_per_rna' must be at least 1, got 0"),
        ({"data": {"source": "facts", "split": "tests"}}, "split must be one of train, validation, test, got 'tests'"),
        ({"data": {"source": "facts", "rnas": -1}}, "'data.rnas' must be at least 1, got -1"),
        ({"baselines": False}, "nothing to ask: name a system"),
        ({"floors": False}, "nothing to ask: name a system"),  # the old name
        ({"encoders": ["word2vec"]}, "no preset is named 'word2vec'"),
        ({"judge": {"model": "x"}}, "key 'judge.base_url' is missing"),
        ({"speed": 1}, "unknown key 'speed'"),
        ({"usd_limit": -3.0}, "'usd_limit' must be at least 0, got -3"),
    ],
)
def test_a_wrong_recipe_is_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load_evaluation(recipe_file(tmp_path, "facts", [], **change))


# --- a file of answers


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"rna_id": "x", "question": "q", "answer": NaN}', "line 1 of .*: answer must be a text, got NaN"),
        ('{"rna_id": "x", "question": "q", "answer": null}', "answer must be a text, got null"),
        ('{"rna_id": 5, "question": "q", "answer": "a"}', "rna_id must be a text, got 5"),
        (
            '{"rna_id": "x", "question": "q", "answer": "a"}\n{"rna_id": "x", "question": "q", "answer": "b"}',
            "line 2 of .* gives another answer to a question of an earlier line, about x: q",
        ),
        ("[1]", "line 1 of .* is no answer"),
    ],
)
def test_what_is_no_answer_is_named(tmp_path, line, message):
    (tmp_path / "answers.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        FileAnswers(tmp_path / "answers.jsonl")


def test_a_file_of_answers_may_come_from_a_spreadsheet_or_a_careful_editor(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"rna_id": "x", "question": "q ", "answer": "a"}\r\n\r\n'
        b'{"rna_id": "x", "question": "q", "answer": "a"}\n\n'
    )  # said twice, and the same
    assert FileAnswers(path).answer([json.dumps(["x", "q"])]) == ["a"]
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        FileAnswers(path)


def test_answers_that_changed_after_they_were_read_are_refused(data, answers, tmp_path, capsys):
    recipe = recipe_file(tmp_path, data, [system(answers)])
    assert run(tmp_path / "run", recipe) == 0
    before = (tmp_path / "run" / "evaluation" / "items.jsonl").read_bytes()
    answers.write_text(answers.read_text().replace('"answer": "Yes."', '"answer": "No."'))
    assert run(tmp_path / "run", recipe) == 2
    assert "has changed since theirs's answers were read from it (2 differ" in capsys.readouterr().err
    assert (tmp_path / "run" / "evaluation" / "items.jsonl").read_bytes() == before


# --- what is missing is told before the first answer


@pytest.mark.parametrize(
    "broken, message",
    [
        ({"name": "b", "kind": "file", "model": "short.jsonl"}, "lacks answers to 17 of the questions"),
        ({"name": "b", "kind": "rna", "model": "rna-qa"}, "is no RNA-GPT checkpoint"),
        ({"name": "b", "kind": "llm_text", "model": "rna-qa"}, "is no LLM: expected a folder with config.json"),
        ({"name": "b", "kind": "llm_text", "model": "nothing.gguf"}, "no file nothing.gguf"),
        (
            {
                "name": "b",
                "kind": "endpoint",
                "model": "x",
                "base_url": "https://example.org/v1",
                "api_key_env": "NO_KEY",
            },
            "https://example.org/v1 needs a key: put it into the environment variable NO_KEY",
        ),
    ],
)
def test_a_system_that_cannot_answer_is_told_before_any_other_answers(
    data, answers, tmp_path, monkeypatch, capsys, broken, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_KEY", raising=False)
    Path("short.jsonl").write_text(answers.read_text().splitlines()[0] + "\n")
    assert run("run", recipe_file(tmp_path, data, [system(answers), broken])) == 2
    assert message in capsys.readouterr().err
    assert not read_items(tmp_path / "run" / "evaluation" / "items.jsonl")


def test_a_control_without_an_rna_to_show_is_told(data, tmp_path, capsys):
    write_rows(data / "test.parquet", [row | {"rna_type": ""} for row in qa_rows("test", 6, 2)])
    recipe = recipe_file(tmp_path, data, [{"name": "a", "kind": "rna", "model": "demo", "controls": ["swapped"]}])
    assert run(tmp_path / "run", recipe) == 2
    assert (
        "a's control swapped shows an RNA of another type, and all RNAs asked about are of type ''"
        in capsys.readouterr().err
    )


def test_an_encoder_that_is_not_there_is_told_before_any_answer(data, answers, tmp_path, capsys):
    recipe = recipe_file(
        tmp_path, data, [system(answers)], encoders=[{"label": "S", "kind": "vector", "model": str(data)}]
    )
    assert run(tmp_path / "run", recipe) == 2
    assert "is no text encoder" in capsys.readouterr().err
    assert not read_items(tmp_path / "run" / "evaluation" / "items.jsonl")


# --- one folder, one evaluation


def test_two_evaluations_in_one_folder_are_refused(data, answers, tmp_path, capsys):
    recipe = recipe_file(tmp_path, data, [system(answers)])
    with only_one(tmp_path / "run", "another folder"):
        code = "import sys; from rnagpt.cli import main; sys.exit(main(sys.argv[1:]))"
        second = subprocess.run(
            [sys.executable, "-c", code, "evaluate", str(tmp_path / "run"), "--recipe", str(recipe)],
            capture_output=True,
            text=True,
        )
    assert second.returncode == 2
    assert f"another run is working in {tmp_path / 'run'}: wait for it, or give another folder" in second.stderr
    assert not (tmp_path / "run" / "evaluation").exists()


def test_what_has_no_answer_yet_may_change_and_what_has_may_not(data, answers, tmp_path, capsys):
    wrong = {"name": "theirs", "kind": "llm_text", "model": "nothing.gguf"}
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [wrong])) == 2
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [system(answers)])) == 0
    copy = tmp_path / "copy.jsonl"
    copy.write_text(answers.read_text())
    # a recipe without the system in between does not make its answers forgotten
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [system(answers, "others")])) == 0
    capsys.readouterr()
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [system(copy)])) == 2
    assert "holds another evaluation (different: model of theirs)" in capsys.readouterr().err
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [wrong | {"model": str(answers)}])) == 2
    assert "(different: kind of theirs)" in capsys.readouterr().err


def test_a_data_set_that_changed_in_its_place_is_refused(data, answers, tmp_path, capsys):
    recipe = recipe_file(tmp_path, data, [])
    assert run(tmp_path / "run", recipe) == 0
    rows = qa_rows("test", 6, 2)
    write_rows(data / "test.parquet", [rows[0] | {"answer": "It binds nothing at all."}, *rows[1:]])
    assert run(tmp_path / "run", recipe) == 2
    assert "the questions are no longer those that" in capsys.readouterr().err


# --- data sets of an unusual form


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sequence": None}, "row 1 of .* whose sequence is no text but None: write its sequence, or leave the row"),
        ({"answer": " "}, "a pair about 'test0' whose answer is no text but ' ': write its answer"),
    ],
)
def test_a_pair_with_an_empty_cell_is_named(data, change, message):
    rows = qa_rows("test", 6, 2)
    write_rows(data / "test.parquet", [rows[0] | change, *rows[1:]])
    with pytest.raises(UserError, match=message):
        read_qa(data, "test")


def test_an_empty_training_split_is_told(data, tmp_path, capsys):
    (data / "train.parquet").unlink()
    (data / "train.jsonl").write_text("")
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [])) == 2
    assert "the split 'train' of" in capsys.readouterr().err


@pytest.mark.parametrize("kind, absent", [("open", "The numbers"), ("closed", None)])
def test_a_data_set_of_one_kind_of_question_has_its_report(data, answers, tmp_path, kind, absent):
    for split, count, seed in (("train", 12, 1), ("test", 6, 2)):
        write_rows(data / f"{split}.parquet", [row for row in qa_rows(split, count, seed) if row["kind"] == kind])
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [system(answers)])) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "theirs" in page and (absent is None or absent not in page)


# --- what is not finished says so


def test_an_unfinished_evaluation_says_so_everywhere(data, answers, tmp_path, capsys):
    recipe = recipe_file(tmp_path, data, [system(answers)])
    folder = tmp_path / "run"
    assert run(folder, recipe) == 0
    assert "not finished" not in capsys.readouterr().out
    assert "not finished" not in (folder / "report.html").read_text()
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["finished"] and record["answers"] == {"theirs": 18}
    # as a kill leaves it
    (folder / "evaluation.json").write_text(json.dumps(record | {"finished": False}))
    lines = (folder / "evaluation" / "items.jsonl").read_text().splitlines(keepends=True)
    (folder / "evaluation" / "items.jsonl").write_text("".join(lines[:-5]))
    assert main(["evaluate", str(folder)]) == 0
    said = "This evaluation is not finished: theirs has 13 of 18 answers. Run its --recipe again to go on"
    assert said in capsys.readouterr().out
    assert said in (folder / "report.html").read_text()
    assert said in (folder / "tables" / "accuracy.md").read_text()
    assert said in json.loads((folder / "evaluation" / "summary.json").read_text())["unfinished"]
    assert run(folder, recipe) == 0
    assert "not finished" not in (folder / "report.html").read_text() + (folder / "tables" / "accuracy.md").read_text()
    assert sorted((folder / "evaluation" / "items.jsonl").read_text().splitlines()) == sorted(map(str.strip, lines))


def test_a_system_of_ones_own_stands_above_its_baselines(data, answers, tmp_path, capsys):
    assert run(tmp_path / "run", recipe_file(tmp_path, data, [system(answers)])) == 0
    table = capsys.readouterr().out
    assert table.index("Systems named in the recipe") < table.index("theirs") < table.index("Baselines that read")
    assert not (tmp_path / "run" / "tables" / "paper_similarity.csv").exists()


def test_facts_answered_in_sentences_are_still_the_facts():
    summary = {"topics": ["rna_type", "is_type"], "text": [{"method": ""}]}  # similarities were scored, too
    assert dataset_of(summary) == ("RNA facts", "rna-facts")
    assert dataset_of({"topics": ["closed"]}) == dataset_of({"topics": []}) == ("RNA-QA", "rna-qa")


# --- what the page says first


def planted(folder, data, kind, right):
    """A run of a system `mine` of this kind without controls, whose answers are right or a constant wrong one."""
    items = qa_items(read_qa(data, "test"))
    said = [item.reference if right else "Yes, a snoRNA or a tRNA." for item in items]
    answers = [written(item, "mine", text, item.rna_id) for item, text in zip(items, said, strict=True)]
    answers += qa_baseline_answers(read_qa(data, "train"), read_qa(data, "test"), items)
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "items.jsonl").write_text("".join(map(to_line, answers)))
    (folder / "evaluation.json").write_text(
        json.dumps({"data": {}, "seed": 0, "encoders": [], "systems": [{"name": "mine", "kind": kind, "model": "x"}]})
    )
    return headline(summarise(folder / "evaluation" / "items.jsonl"))


@pytest.fixture
def more_data(tmp_path):
    for split, count, seed in (("train", 12, 1), ("test", 30, 2)):
        write_rows(tmp_path / "rna-qa" / f"{split}.parquet", qa_rows(split, count, seed))
    return tmp_path / "rna-qa"


def test_a_model_without_controls_is_what_the_page_is_about(more_data, tmp_path):
    said = planted(tmp_path / "model", more_data, "rna", right=True)
    assert said["title"] == "No RNA of another type was swapped in to tell whether RNA-GPT reads the RNA."
    assert said["points"][-1].startswith("Of the closed questions it answers 100% right, which is better than")
    said = planted(tmp_path / "file", more_data, "file", right=True)
    assert said["title"] == "No answers of RNA-GPT about RNA types were evaluated here." and not said["points"]


def test_on_rna_qa_the_page_says_how_the_baselines_do(more_data, tmp_path):
    (point,) = planted(tmp_path / "run", more_data, "rna", right=False)["points"]
    majority = next(
        row
        for row in summarise(tmp_path / "run" / "evaluation" / "items.jsonl")["systems"]
        if row["system"] == "majority"
    )
    worse = re.search(r"worse than (.*)\.", point)
    assert worse and f"the majority answer ({100 * majority['closed']['value']:.0f}%)" in worse[1]


# --- a full disk


def test_a_full_disk_is_named_and_leaves_no_half_file(data, answers, tmp_path, monkeypatch, capsys):
    import errno
    import os
    import shutil
    from collections import namedtuple

    recipe, folder = recipe_file(tmp_path, data, [system(answers)]), tmp_path / "run"
    assert run(folder, recipe) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    fsync, written = os.fsync, []

    def full(file):
        written.append(file)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(9, 9, 0))
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 1
    assert f"rnagpt: error: {folder}: no space left on the device" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
