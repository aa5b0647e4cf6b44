"""The wheel in an environment of its own, in an empty folder: entry point, package data, and what an import pulls in.

    pytest tests/test_wheel.py
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from test_house import ROOT, wheel  # noqa: F401  (a fixture)

from rnagpt import __version__, cli

# packages of the extras; the base install must do without them when the classes are imported
OF_EXTRAS = {
    "trl", "datasets", "tensorboard", "bitsandbytes",  # train, quantize
    "datatrove", "openai", "requests", "ray", "edlib",  # data
    "evaluate", "rouge_score", "sklearn", "matplotlib", "bert_score",  # eval
    "gradio", "fastapi", "uvicorn", "prometheus_client", "RNA",  # chat, serve
    "fm", "gguf", "playwright", "mkdocs",
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):  # noqa: F811
    """(bin folder, empty folder): a new environment that holds the wheel, and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    sites = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_dependencies.pth").write_text("\n".join(sites) + "\n")
    (folder / "empty").mkdir()
    return python.parent, folder / "empty"


def inside(installed, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a program of the environment in the empty folder, with nothing that points at the checkout."""
    programs, empty = installed
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(programs / command[0]), *command[1:]], cwd=empty, env=kept | environment,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)  # fmt: skip


def test_the_entry_point_and_every_subcommand(installed):
    done = inside(installed, "rnagpt", "--version")
    assert done.stdout == f"rnagpt {__version__}\n", done.stderr
    build = "for name in sys.argv[1:]: build_parser(name)[1].format_help()"
    code = f"import sys\nfrom rnagpt.cli import build_parser\n{build}"
    assert inside(installed, "python", "-I", "-c", code, *cli.COMMANDS).returncode == 0
    assert set(cli.COMMANDS) <= set(inside(installed, "rnagpt", "--help").stdout.split())


def test_it_is_the_wheel_that_runs_and_brings_its_data(installed):
    code = """
import dataset_builder.facts, modeling_rnagpt, processing_rnagpt, rnagpt, train_sft
from importlib import resources
from rnagpt import model_card, quickstart
from rnagpt.checkpoint import chat_template
from rnagpt.folders import assets
for module in (dataset_builder.facts, modeling_rnagpt, processing_rnagpt, rnagpt, train_sft):
    assert "/venv/lib/" in module.__file__, module.__file__
assert len(quickstart.find_recipes("quickstart")) == 2 and len(quickstart.find_recipes("demo")) == 3
assert chat_template("paper") and dataset_builder.facts.load_facts(split="test")
assert (assets() / "demo" / "adapter_model.safetensors").is_file()
assert (resources.files("rnagpt") / "metrics" / "rna_answers" / "rna_answers.py").is_file()
card = model_card.fill("a", "b", dict.fromkeys(("encoder", "projector", "llm"), 1), 100)
assert card.startswith("---")
"""
    done = inside(installed, "python", "-I", "-c", code)
    assert done.returncode == 0, done.stderr


def test_importing_the_model_classes_pulls_no_extra(installed):
    code = """
import sys
from rnagpt import RnaGptConfig, RnaGptForCausalLM, RnaGptModel, RnaGptProcessor
import rnagpt.chat.engine
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = inside(installed, "python", "-I", "-c", code)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert {"torch", "transformers", "modeling_rnagpt"} <= found
    assert sorted(found & OF_EXTRAS) == []


def test_a_bare_import_pulls_nothing_heavy(installed):
    code = "import sys, rnagpt, rnagpt.cli; print(*sys.modules)"
    found = inside(installed, "python", "-I", "-c", code).stdout.split()
    assert "rnagpt.cli" in found and not {"torch", "transformers", "numpy", "huggingface_hub"} & set(found)


@pytest.mark.slow
def test_chat_with_the_demo_from_the_wheel(installed, tmp_path):
    rna = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"
    done = inside(installed, "rnagpt", "chat", "--demo", "--rna", rna, "--question", "What type of RNA is this?")
    assert done.returncode == 0, done.stderr
    assert "transfer RNA" in done.stdout
    assert not list(installed[1].iterdir())  # nothing is left in the folder it was started in


def test_extras_of_the_readme_exist():
    import configparser
    import re

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    assert {"data", "train", "eval", "chat", "dev", "docs"} <= set(extras)
    texts = [path.read_text() for path in [ROOT / "README.md", *Path(ROOT / "docs").glob("*.md")]]
    named = {name for text in texts for group in re.findall(r"rnagpt\[([a-z,]+)\]|'\.\[([a-z,]+)\]'", text)
             for part in group for name in part.split(",") if name}  # fmt: skip
    assert named <= set(extras)
