"""The wheel in an environment of its own, in an empty folder: entry point, package data, and what an import pulls in.

pytest tests/house/test_wheel.py
"""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from functools import partial
from pathlib import Path

import pytest
import yaml
from checkout import PACKAGES, ROOT, extras, files, packages_of
from packaging.utils import canonicalize_name
from test_training import recipe

from rnagpt import __version__, cli


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the sources, so that the checkout gets no build products."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "model_card.md", "train_sft.py"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "recipes", "metrics"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", "made", "."]
    subprocess.run(command, check=True, cwd=source)
    return next((source / "made").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
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
    return subprocess.run(
        [str(programs / command[0]), *command[1:]],
        cwd=empty,
        env=kept | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_the_wheel_holds_all_that_the_commands_read(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {"train_sft.py", "rnagpt/model_card.md"}
    expected |= {f"rnagpt/recipes/{recipe.name}" for recipe in (ROOT / "recipes").glob("*.yaml")}
    for path in files():
        relative = path.relative_to(ROOT)
        read = path.suffix in (".py", ".jinja", ".mplstyle", ".safetensors") or {"assets", "data"} & {*path.parts}
        if relative.parts[0] in PACKAGES and read:
            expected.add(str(relative))
    missing = sorted(expected - inside)
    assert not missing


def test_the_entry_point_and_every_subcommand(installed):
    done = inside(installed, "rnagpt", "--version")
    assert done.stdout == f"rnagpt {__version__}\n", done.stderr
    build = "for name in sys.argv[1:]: build_parser(name)[1].format_help()"
    code = f"import sys\nfrom rnagpt.cli import build_parser\n{build}"
    assert inside(installed, "python", "-I", "-c", code, *cli.COMMANDS).returncode == 0
    assert set(cli.COMMANDS) <= set(inside(installed, "rnagpt", "--help").stdout.split())


def test_it_is_the_wheel_that_runs_and_brings_its_data(installed):
    code = """
import dataset_builder.facts_table.facts, modeling_rnagpt, processing_rnagpt, rnagpt, train_sft
from importlib import resources
from rnagpt import quickstart
from rnagpt.checkpoints import model_card
from rnagpt.checkpoints.checkpoint import chat_template
from rnagpt.checkpoints.forms import assets
for module in (dataset_builder.facts_table.facts, modeling_rnagpt, processing_rnagpt, rnagpt, train_sft):
    assert "/venv/lib/" in module.__file__, module.__file__
assert len(quickstart.find_recipes("quickstart")) == 2 and len(quickstart.find_recipes("demo")) == 3
assert chat_template("paper") and dataset_builder.facts_table.facts.load_facts(split="test")
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
import rnagpt.serving.engine
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = inside(installed, "python", "-I", "-c", code)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert {"torch", "transformers", "modeling_rnagpt"} <= found
    # transformers imports scipy where it is installed
    of_extras = packages_of(*extras().keys() - {"", "dev"}) - packages_of("") - {"scipy"}
    brought_by = importlib.metadata.packages_distributions()
    assert [name for name in found if of_extras & {canonicalize_name(one) for one in brought_by.get(name, [])}] == []


@pytest.mark.slow
def test_chat_with_the_demo_from_the_wheel(installed, tmp_path):
    rna = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"
    done = inside(installed, "rnagpt", "chat", "--demo", "--rna", rna, "--question", "What type of RNA is this?")
    assert done.returncode == 0, done.stderr
    assert "transfer RNA" in done.stdout
    assert not list(installed[1].iterdir())  # nothing is left in the folder it was started in


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quick_start_from_the_wheel_in_an_empty_folder(installed, tiny_parts, tmp_path):
    """Its own command to the end, interrupted once, on the tiny model: the wheel's recipes are made small."""
    package = Path(inside(installed, "python", "-I", "-c", "import rnagpt; print(rnagpt.__file__)").stdout).parent
    for n, stage in enumerate(("alignment", "instruction"), start=1):
        path = package / "recipes" / f"quickstart_stage{n}.yaml"
        content = recipe(tiny_parts, f"runs/quickstart/stage{n}", stage)
        path.write_text(yaml.safe_dump(content))
    facts = package.parent / "rnagpt" / "quickstart.py"
    facts.write_text(facts.read_text().replace("TEST_RNAS_PER_TYPE = 26", "TEST_RNAS_PER_TYPE = 1"))
    programs, empty = installed
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # as in a terminal, wherever the tests were started
    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    with subprocess.Popen([programs / "rnagpt", "quickstart"], cwd=empty, **options) as process:
        for line in process.stderr:
            if line.startswith("[2/4]"):
                process.send_signal(signal.SIGINT)
                break
        told = process.stderr.read()
    assert process.returncode == 130 and "interrupted; run the same command to go on" in told, told
    done = inside(installed, "rnagpt", "quickstart")
    assert done.returncode == 0, done.stderr
    assert "Stage 2" in done.stdout and "talk:    rnagpt chat runs/quickstart/checkpoint --fasta FILE" in done.stdout
    assert sorted(path.name for path in empty.iterdir()) == ["runs"]
    card = (empty / "runs" / "quickstart" / "checkpoint" / "README.md").read_text()
    assert "What it can and cannot do" in card and str(empty) not in card
    asked = ["--rna", "ACGUACGU", "--question", "What?", "--max-new-tokens", "8"]
    said = inside(installed, "rnagpt", "chat", "runs/quickstart/checkpoint", *asked)
    assert said.returncode == 0 and said.stdout.startswith("rna1\t"), said.stderr
