"""The `rnagpt` command: what it imports, what it prints when it cannot go on, and its exit codes.

pytest tests/house/test_cli.py
"""

import errno
import os
import subprocess
import sys
import types

import pytest
from checkout import ROOT

import rnagpt
from rnagpt import cli
from rnagpt_core.errors import UserError, explain

HEAVY = {"torch", "transformers", "datasets", "trl", "numpy", "huggingface_hub"}


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run this interpreter from the checkout, its standard output buffered as a user's is."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    options = {"stdout": subprocess.PIPE} | options
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, **options)


def run_with(monkeypatch, run, *switches: str, before: tuple[str, ...] = ()) -> int:
    """Exit code of `rnagpt BEFORE toy SWITCHES`, toy being a subcommand whose work is `run(args)`."""
    toy = types.ModuleType("toy_command", "Reads nothing, writes nothing.")
    toy.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)
    toy.run = run
    monkeypatch.setitem(sys.modules, "toy_command", toy)
    monkeypatch.setitem(cli.COMMANDS, "toy", ("toy_command", "a toy"))
    return cli.main([*before, "toy", *switches])


def raising(error: BaseException):
    def run(args):
        raise error

    return run


# --- what is imported


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(arguments):
    done = python("-X", "importtime", "-m", "rnagpt", *arguments)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "rnagpt.cli" in imported
    assert not HEAVY & imported


def test_help_of_one_command_imports_no_other(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "broken", ("no_such_module", "never imported here"))
    with pytest.raises(SystemExit) as stop:
        run_with(monkeypatch, raising(AssertionError("help must not run the command")), "--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "Reads nothing, writes nothing." in shown and "--number" in shown and "--debug" in shown


def test_import_rnagpt_is_light():
    done = python("-c", f"import sys, rnagpt, rnagpt.cli; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert done.stdout == "[]\n"


def test_unknown_attribute_says_what_there_is():
    with pytest.raises(AttributeError, match="no attribute 'RnaGpt'; it has RnaGptConfig, RnaGptForCausalLM"):
        _ = rnagpt.RnaGpt


# --- exit codes


def test_version():
    done = python("-m", "rnagpt", "--version")
    assert (done.returncode, done.stdout) == (0, f"rnagpt {rnagpt.__version__}\n")


def test_no_command_prints_the_help():
    done = python("-m", "rnagpt")
    assert done.returncode == 2
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_unknown_command():
    done = python("-m", "rnagpt", "fly")
    assert done.returncode == 2
    assert "invalid choice: 'fly'" in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_argument_shows_the_commands_own_usage():
    done = python("-m", "rnagpt", "train", "--paper", "x.yaml", "--recipe", "y.yaml")
    assert done.returncode == 2
    assert "usage: rnagpt train" in done.stderr and "unknown argument: --paper x.yaml (see --help)" in done.stderr


def test_the_commands_own_exit_code_is_kept(monkeypatch):
    assert run_with(monkeypatch, lambda args: args.number, "--number", "3") == 3


# --- one sentence


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("--fasta rna.fa holds no\n  sequence"), 2, "--fasta rna.fa holds no sequence"),
        (FileNotFoundError(2, "No such file or directory", "rna.fa"), 2, "rna.fa: no such file or directory"),
        (PermissionError(13, "Permission denied", "runs"), 2, "runs: permission denied"),
        (OSError("x/y is not a local folder"), 2, "x/y is not a local folder"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/demo/model.safetensors"),
            1,
            "runs/demo/model.safetensors: no space left on the device; free some and run the same command again",
        ),
        (ModuleNotFoundError("No module named 'trl'", name="trl"), 2, "pip install 'rnagpt[train]'"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command to go on"),
    ],
)
def test_one_sentence_and_exit_code(monkeypatch, capsys, error, code, sentence):
    assert run_with(monkeypatch, raising(error)) == code
    shown = capsys.readouterr().err
    assert shown.startswith("rnagpt: error: ") and sentence in shown and shown.count("\n") == 1


def test_a_full_disk_reported_without_a_path_names_a_folder():
    # safetensors' own error is no OSError
    sentence, code = explain(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert code == 1
    assert sentence.startswith(os.sep) and "GB free): no space left on the device" in sentence


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full is Linux's")
def test_standard_output_on_a_full_device():
    with open("/dev/full", "w") as full:
        done = python("-m", "rnagpt", stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("rnagpt: error: standard output: no space left") and done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(
        ["bash", "-c", '"$0" -m rnagpt | true', sys.executable], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize(("offline", "loads"), [(False, 2), (True, 3)], ids=["closed port", "offline mode"])
def test_the_hub_out_of_reach(tmp_path, offline, loads):
    # The real clients against a port where nothing listens, so that the class names in errors.py stay true. There
    # transformers tries again for 24 s, so it is asked in offline mode only.
    done = python(
        "-c",
        f"""
import os
os.environ.update(HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="{int(offline)}", HF_HOME="{tmp_path}")
import huggingface_hub
from rnagpt_core.errors import explain
from transformers import AutoConfig
hub = huggingface_hub.HfApi()
for load in [hub.model_info, hub.snapshot_download, AutoConfig.from_pretrained][:{loads}]:
    try:
        load("nobody/nothing")
    except Exception as error:
        print(explain(error))
""",
    )
    why = " because HF_HUB_OFFLINE is set: unset it" if offline else "; connect and run the command again"
    said = f"('the Hugging Face Hub could not be reached{why}, or give a local folder "
    assert done.stdout.count(said) == loads, done.stdout + done.stderr


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, lambda args: 1 // args.number)


def test_debug_shows_the_traceback_on_either_side_of_the_command(monkeypatch):
    with pytest.raises(UserError):
        run_with(monkeypatch, raising(UserError("wrong")), "--debug")
    with pytest.raises(UserError):
        run_with(monkeypatch, raising(UserError("wrong")), before=("--debug",))
