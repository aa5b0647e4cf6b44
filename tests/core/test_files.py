"""Files, folders and JSON lines that are there whole or not at all."""

import json
import subprocess
import sys

import pytest

from rnagpt_core.errors import UserError
from rnagpt_core.files import new_file, new_folder, only_one, replace_text
from rnagpt_core.json_lines import JsonLines, read_json_lines


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    replace_text(path, "before")
    with pytest.raises(ZeroDivisionError), new_file(path) as file:
        file.write("half")
        _ = 1 / 0
    assert path.read_text() == "before" and [p.name for p in path.parent.iterdir()] == ["x.txt"]
    with new_file(path, "wb") as file:
        file.write(b"a\nb")
        assert path.read_text() == "before"
    assert path.read_bytes() == b"a\nb"


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "made"
    for number in (1, 2):
        with new_folder(path) as part:
            (part / f"{number}.txt").write_text("x")
        assert [p.name for p in path.iterdir()] == [f"{number}.txt"]
    with pytest.raises(KeyboardInterrupt), new_folder(path) as part:
        (part / "half").write_text("x")
        raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["2.txt"] and [p.name for p in tmp_path.iterdir()] == ["made"]


def test_another_process_puts_a_folder_there_first(tmp_path):
    with new_folder(tmp_path / "made") as part:
        (part / "mine").write_text("x")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "theirs").write_text("x")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["theirs"]


def test_one_process_holds_a_folder(tmp_path):
    code = "import sys, pathlib; from rnagpt_core.files import only_one\n"
    code += "with only_one(pathlib.Path(sys.argv[1]), 'another'): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with only_one(tmp_path, "another folder"):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 0 and "wait for it, or give another" in done.stderr
    assert subprocess.run(command).returncode == 0


@pytest.mark.parametrize("torn", [b"", b'{"n": 3', b'{"text": "' + b"x" * 200_000])
def test_a_torn_last_line_is_cut_off_and_written_again(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    with JsonLines(path) as file:
        file.write({"n": 1, "text": "Zeile\u2028zwei\n"})
        file.write({"n": 2})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [row["n"] for row in read_json_lines(path, "a row")] == [1, 2]
    with JsonLines(path) as file:
        assert [row["n"] for row in file.rows()] == [1, 2]
        file.write({"n": 3})
    assert path.read_bytes() == whole + b'{"n": 3}\n'
    assert list(map(json.loads, path.read_text().split("\n")[:-1]))[0]["text"] == "Zeile\u2028zwei\n"


def test_a_line_that_is_none_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n[]\n')
    with pytest.raises(UserError, match=r"line 2 of .*rows.jsonl is not a row: expected a JSON object, got list"):
        list(read_json_lines(path, "a row"))
    with pytest.raises(UserError, match=r"line 1 of .* is not a score: it lacks 'm'"):
        list(read_json_lines(path, "a score", lambda row: row["m"]))
    with pytest.raises(ValueError), JsonLines(tmp_path / "other") as file:
        file.write({"n": float("nan")})


def test_a_file_that_another_holds_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "rows.jsonl"
    with JsonLines(path, taken="it is taken") as file:
        file.write({"n": 1})
        with pytest.raises(UserError, match="it is taken"):
            JsonLines(path, taken="it is taken")
        file.write({"n": 2})
    assert [row["n"] for row in read_json_lines(path, "a row")] == [1, 2]
