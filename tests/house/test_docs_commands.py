"""Every command and Python block of README.md, CONTRIBUTING.md and docs/ is run, or says itself what it needs.

    pytest tests/house/test_docs_commands.py                  # -m slow for those that train, release or open the page

A command whose own comment says "needs ..." or "takes ..." (`# needs a GPU and RNA-QA`) is not run, but for those that
need a token: the Hub on loopback gives one. Everything else is run in a folder that holds what the documents speak of,
with the words of SMALL in place of theirs, each command once. What a console block shows as its output must come out
word by word, with nothing replaced: the shipped demo is asked.
"""

import contextlib
import io
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from loopback_hub import LoopbackHub
from pages import MARK, Command, blocks, commands
from synthetic_literature import literature, write_folder
from test_export_llm import Vllm
from test_release_dataset import write

from rnagpt import cli

pytestmark = pytest.mark.timeout(900)

# what a reader puts in the place of a document's word, small
SMALL = {
    "--demo": "runs/mine/checkpoint",  # a tiny model with random weights
    "FILE": "two.fa",
    "FOLDER": "literature",
    "OWNER/NAME": "owner/name",
    "OWNER/rna-qa": "owner/rna-qa",
    "OWNER/rna_answers": "owner/rna_answers",
    "OWNER/BASE": "owner/base",
    "OWNER/LLM@REVISION": "owner/llm@main",
    "OWNER/ENCODER": "owner/encoder",
    "smollm2-135m-instruct": "tiny/llm",
    "packaged": "tiny/encoder",
    "runs/rna-qa": "runs/planned",  # of build-dataset, which leaves it at the plan
    "0.0.0.0": "127.0.0.1",  # a test lets nobody in
}
# `make` is run where that costs nothing; these are run by the tests named, or by continuous integration itself
ELSEWHERE = {
    "make test": ROOT / ".ci" / "run",
    "make docs": ROOT / "tests" / "house" / "test_docs.py",
    "make types": ROOT / "tests" / "house" / "test_types.py",
}
# seconds of training, a release with its reload, a server or a page of its own: not in every run of the tests
SLOW = (
    "rnagpt train --recipe recipes/quickstart",
    "rnagpt evaluate runs/mine --recipe recipes/evaluate_facts.yaml",
    "rnagpt chat --demo --web",
    "rnagpt serve OWNER/NAME",
    "rnagpt chat OWNER/NAME",
    "rnagpt release model",
    "pipeline(",
)


def once(found: list) -> list:
    """Each text at its first place."""
    first: dict = {}
    for one in found:
        first.setdefault(one.text, one)
    return list(first.values())


def is_run(command: Command) -> bool:
    return not command.needs or command.needs.startswith("a token")


def parameters(found: list) -> list:
    return [
        pytest.param(
            one,
            id=f"{one.page}:{one.line}",
            marks=[pytest.mark.slow] if any(text in one.text for text in SLOW) else [],
        )
        for one in found
    ]


def test_the_comments_say_what_they_need_in_one_form():
    """A comment with "needs" or "takes" is a mark, and every page with commands has some that are run."""
    asked = [command for command in commands() if is_run(command)]
    assert {"README.md", "index.md", "use.md", "train.md", "serve.md", "data.md", "evaluate.md", "release.md"} <= {
        command.page for command in asked
    }
    marked = {command.needs for command in commands() if command.needs}
    assert {"a token", "OPENAI_API_KEY", "the network"} <= marked and all(len(needs) > 3 for needs in marked)
    assert MARK.search("nothing is sent") is None


# --- the folder that a reader works in


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with LoopbackHub(folder) as hub, pytest.MonkeyPatch.context() as patch:
        hub.connect(patch, folder)
        yield hub


@pytest.fixture(scope="module")
def folder(tiny_run, tiny_parts, tmp_path_factory) -> Path:
    """What the documents speak of: runs/, recipes/ and metrics/, FASTA files, a table of questions, RNA-QA."""
    folder = tmp_path_factory.mktemp("reader")
    run, _ = tiny_run
    shutil.copytree(run, folder / "runs" / "quickstart")
    for name in ("stage1", "stage2", "checkpoint"):
        shutil.copytree(run / name, folder / "runs" / "mine" / name)
    shutil.copytree(tiny_parts, folder / "tiny")
    (folder / "metrics").symlink_to(ROOT / "metrics")
    two = re.search(r"^    >.*?(?=\n\n)", (ROOT / "docs" / "serve.md").read_text(), flags=re.DOTALL | re.MULTILINE)[0]
    for name in ("two.fa", "rna.fa"):
        (folder / name).write_text(re.sub(r"^    ", "", two, flags=re.MULTILINE) + "\n")
    rnas = [line for line in (folder / "two.fa").read_text().splitlines() if not line.startswith(">")]
    rows = [("id", "rna", "question"), ("1", rnas[0], "What type of RNA is this?"), ("2", rnas[1], "Is it yeast?")]
    (folder / "in.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    (folder / "key.txt").write_text("a-key-of-many-letters\n")
    write_folder(folder / "literature", *literature(12))
    write(folder / "runs" / "rna-qa")
    small_recipes(folder)
    return folder


def small_recipes(folder: Path) -> None:
    """Every recipe with the tiny model in it, on RNA-QA of a few rows; those of the quick start with a few steps."""
    from test_training import recipe

    (folder / "recipes").mkdir()
    for path in (ROOT / "recipes").glob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        if "stage" in content:
            content["model"] |= {"llm": "tiny/llm", "encoder": "tiny/encoder"}
            for source in content.get("data", {}).get("sources", []):
                source["path"] = "runs/rna-qa/dataset"
        if path.name.startswith("quickstart_stage"):
            small = recipe(folder / "tiny", content["output"])
            content = content | {"sft": small["sft"], "output": content["output"].replace("quickstart", "again")}
            content["data"] = small["data"]
            if "start_from" in content:
                content["start_from"] = content["start_from"].replace("quickstart", "again")
        if path.name == "evaluate_facts.yaml":
            content["data"]["rnas"] = 1
            content["systems"][0]["model"] = "runs/mine/checkpoint"
        (folder / "recipes" / path.name).write_text(yaml.safe_dump(content))


@pytest.fixture(autouse=True)
def reader(request, monkeypatch):
    """The test's folder is the reader's; what is asked goes to nobody."""
    monkeypatch.chdir(request.getfixturevalue("folder"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(sys, "stdin", io.StringIO("What type of RNA is this?\n/quit\n"))


# --- commands


@pytest.mark.parametrize("command", parameters(once([c for c in commands() if c.shown is not None])))
def test_what_a_page_shows_is_what_comes_out(command, capsys):
    """Word by word, from the shipped demo, with nothing put in the place of anything."""
    assert command.words[0] == "rnagpt" and cli.main(command.words[1:]) == 0
    assert capsys.readouterr().out == command.shown


@pytest.mark.parametrize("command", parameters(once([c for c in commands() if c.shown is None and is_run(c)])))
def test_a_command_does_its_work(command, request, capsys):
    words = [SMALL.get(word, word) for word in command.words]
    if command.text in ELSEWHERE:
        asked = subprocess.run(
            ["make", "-n", "-o", ".venv/.base", "-o", ".venv/.ready", *words[1:]], cwd=ROOT, capture_output=True
        )
        assert asked.returncode == 0 and runs_it(command.text, asked.stdout.decode())
    elif words == ["source", ".venv/bin/activate"]:
        assert "\nVENV := .venv\n" in (ROOT / "Makefile").read_text()  # into which venv writes it
    elif words[0] in ("make", "pre-commit"):
        run_in_a_copy(words, request.getfixturevalue("tmp_path"))
    elif words[0] == "python":
        request.getfixturevalue("vllm")
        words = [sys.executable, *(request.getfixturevalue("vllm") if "/v1" in word else word for word in words[1:])]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr
    elif command.text.endswith("rnagpt serve --demo"):
        assert request.getfixturevalue("served").startswith("http://127.0.0.1:")  # the Python beside it asks there
    elif words[1] == "serve" or "--web" in words:
        with listening(words[1:], request) as address:
            assert address.startswith("http://127.0.0.1:")
    else:
        assert words[0] == "rnagpt", f"say in {command.page}:{command.line} what it needs: {command.text}"
        if any(word.startswith("owner/") for word in words):
            request.getfixturevalue("released" if words[1] != "release" or "--base" in words else "hub")
        assert cli.main(words[1:]) == 0, capsys.readouterr().err
        assert "".join(capsys.readouterr())


def runs_it(text: str, recipe: str) -> bool:
    """Whether the file that is said to run it does: the target itself, or each of its recipe's programs."""
    file = ELSEWHERE[text].read_text()
    programs = re.findall(r"python -m ([\w.]+)", recipe)
    return bool(programs) and (text in file or all(f'"-m", "{program}"' in file for program in programs))


def run_in_a_copy(words: list[str], folder: Path) -> None:
    """In an empty git checkout with the files that the program reads, not in the one under test."""
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    for name in ("Makefile", ".pre-commit-config.yaml"):
        shutil.copy(ROOT / name, folder)
    program = [sys.executable, "-m", "pre_commit"] if words[0] == "pre-commit" else [words[0]]
    done = subprocess.run([*program, *words[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@contextlib.contextmanager
def listening(arguments: list[str], request):
    """The address that a server or a page tells, until Ctrl-C, which it must end at."""
    words = [*arguments, "--port", "0", *(["--name", "demo"] if arguments[0] == "serve" else [])]
    if "owner/name" in words:
        request.getfixturevalue("released")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # as in a terminal, wherever the tests were started
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    with subprocess.Popen([sys.executable, "-m", "rnagpt", *words], **options) as process:
        told = []
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"(?:at|open) (http://\S+)", line):
                break
        else:
            pytest.fail("".join(told))
        try:
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (0, 130, -signal.SIGINT)


@pytest.fixture(scope="module")
def vllm(folder):
    """vLLM's part, played by the exported LLM that the command before has written."""
    import threading
    from http.server import ThreadingHTTPServer

    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "export").is_dir():
        assert cli.main(["export-llm", str(folder / "runs/mine/checkpoint"), "--out", str(folder / "export")]) == 0
    Vllm.llm = AutoModelForCausalLM.from_pretrained(folder / "export" / "llm").eval()
    Vllm.tokenizer = AutoTokenizer.from_pretrained(folder / "export" / "llm")
    with ThreadingHTTPServer(("127.0.0.1", 0), Vllm) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture(scope="module")
def released(hub, folder):
    """The Hub has what the documents name: a model, a base for adapters, the tiny LLM and encoder."""
    from huggingface_hub import HfApi

    from rnagpt.checkpoints import checkpoint

    api = HfApi(endpoint=hub.url, token=hub.token)
    checkpoint.save(*checkpoint.load(folder / "runs" / "mine" / "stage1"), folder / "base")
    for name, source in {
        "name": "runs/mine/checkpoint",
        "base": "base",
        "llm": "tiny/llm",
        "encoder": "tiny/encoder",
    }.items():
        api.create_repo(f"owner/{name}", exist_ok=True)
        api.upload_folder(repo_id=f"owner/{name}", folder_path=folder / source)
    api.create_tag("owner/name", tag="v1", exist_ok=True)
    return hub


# --- Python


@pytest.fixture(scope="module")
def served(folder, request):
    """Address of `rnagpt serve` with the tiny model."""
    with contextlib.chdir(folder), listening(["serve", "runs/mine/checkpoint"], request) as address:
        yield address


@pytest.mark.parametrize("block", parameters(once(blocks("python"))))
def test_a_python_block_runs(block, request, capsys):
    """As it stands, in an interpreter of its own where it asks the Hub."""
    text = block.text
    if "OWNER/NAME" in text:
        hub = request.getfixturevalue("released")
        text = text.replace("OWNER/NAME", "owner/name").replace("max_new_tokens=60", "max_new_tokens=8")
        done = subprocess.run(
            [sys.executable, "-c", text],
            capture_output=True,
            text=True,
            env=hub.environment(request.getfixturevalue("tmp_path")),
        )
        assert done.returncode == 0, done.stderr
        return
    if "127.0.0.1:8000" in text:
        text = text.replace("http://127.0.0.1:8000/v1", request.getfixturevalue("served"))
    before = {"folder": "runs/mine/checkpoint"}  # as the page says: a whole checkpoint
    exec(compile(text, f"{block.page}:{block.line}", "exec"), before)
    if "print(" in text:
        assert capsys.readouterr().out.strip()
