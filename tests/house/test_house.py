"""The house: packaging, pins, the direction of imports, and what no file may hold.

pytest tests/house/test_house.py
"""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from checkout import PACKAGES, ROOT, extras, files, packages_of, pins
from packaging.utils import canonicalize_name

WISHED = set("transformers torch rna-fm datasets huggingface-hub trl peft accelerate safetensors evaluate".split())
# what comes with a package that we ask for and is a part of its interface
BROUGHT = {"starlette": "fastapi", "markupsafe": "jinja2", "httpx2": "huggingface-hub"}


# --- packaging


def test_setup_cfg_keeps_the_packages_wished_for():
    assert packages_of() >= WISHED


def test_every_requirement_has_a_range_and_a_pin_inside_it():
    for requirement in (line for lines in extras().values() for line in lines if line.name != "rnagpt"):
        assert str(requirement.specifier), f"{requirement}: a range in setup.cfg, the exact version in constraints.txt"
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_every_package_that_a_file_imports_is_asked_for():
    """By setup.cfg: what ships by the base or a user's extra, tests, benchmarks and scripts by any."""
    distributions = importlib.metadata.packages_distributions()
    ours = {path.stem for path in files()} | {*PACKAGES, "scripts", "benchmarks", "tests"}
    of_users = packages_of(*extras().keys() - {"dev", "docs"})
    missing = []
    for path in (path for path in files() if path.suffix == ".py"):
        allowed = of_users if path.relative_to(ROOT).parts[0] in PACKAGES else packages_of()
        for name in imported(path) - ours - set(sys.stdlib_module_names):
            wanted = BROUGHT.get(name) or canonicalize_name(distributions.get(name, [name])[0])
            missing += [f"{path.relative_to(ROOT)}: {name}"] if wanted not in allowed else []
    assert missing == []


def imported(path: Path) -> set[str]:
    """The packages that a file imports anywhere, by the first part of their names."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.split(".")[0] for name in names}


def test_an_extra_that_stands_for_others_brings_theirs():
    assert packages_of("data") == packages_of("dataset") >= {"datatrove", "openai"}
    assert packages_of("quickstart") == packages_of("train") | packages_of("eval") | {"gguf"}


def test_no_pin_brings_cuda():
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]


# --- continuous integration


def test_the_public_forge_runs_the_same_scripts():
    named = re.findall(r"\.ci/[\w-]+", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert {*named} == {f".ci/{path.name}" for path in (ROOT / ".ci").iterdir()}
    for name in {*named}:
        assert subprocess.run(["bash", "-n", ROOT / name]).returncode == 0
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} can be run"


# --- imports run one way


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run([*command, "--no-logo"], cwd=folder, capture_output=True, text=True)


def test_imports_run_one_way():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("modeling_rnagpt", "import processing_rnagpt"),
        ("dataset_builder", "from rnagpt import errors"),
        ("processing_rnagpt", "import train_sft"),
        ("rnagpt", None),
    ],
)
def test_the_rule_has_teeth(tmp_path, module, line):
    """A toy house with one import the wrong way is refused; without it, it passes."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "rnagpt" / "errors.py").write_text("import dataset_builder\n")
    (tmp_path / "train_sft.py").write_text("import modeling_rnagpt, rnagpt\n")
    if line:
        (tmp_path / module / "inside.py").write_text(f"def later():\n    {line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == (1 if line else 0), done.stdout + done.stderr


# --- doctests


def test_every_doctest_is_one_that_is_run():
    """A file with an example lies where `make test` looks for them."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        looked = [ROOT / path for path in tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]]
    examples = [path for path in files() if path.suffix == ".py" and re.search(r"^ *>>> ", path.read_text(), re.M)]
    assert len(examples) > 40
    assert [path for path in examples if not any(path.is_relative_to(place) for place in looked)] == []


# --- what no file may hold


def test_no_file_names_a_machines_folder_or_a_registrys_host():
    # written in pieces, or this file would be the first to be found
    folders = [f"/{name}/" for name in ("work", "opt", "root", "home", "tmp/venv")]
    hosts = [".".join(host.split()) for host in ("pypi org", "pythonhosted org", "download pytorch org", "npmjs org")]
    forbidden = re.compile(rf"(?<![\w.}}>-])({'|'.join(folders)})|{'|'.join(map(re.escape, hosts))}")
    found = []
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:  # text
            for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
                found += [f"{path.relative_to(ROOT)}:{number}: {m.group()}" for m in forbidden.finditer(line)]
    assert not found


def test_the_changelog_has_a_place_for_what_comes_next():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
