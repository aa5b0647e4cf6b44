"""The house: packaging, pins, the direction of imports, and what no file may hold.

pytest tests/house/test_house.py
"""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rnagpt import __version__, cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("rnagpt_core", "modeling_rnagpt", "processing_rnagpt", "dataset_builder", "rnagpt")
WISHED = set("transformers torch rna-fm datasets huggingface-hub trl peft accelerate safetensors evaluate".split())


def extras() -> dict[str, list[Requirement]]:
    """Extra -> its lines in setup.cfg; "" -> the package's own. `rnagpt[train]` stands for another extra's lines."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    blocks = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: [Requirement(line) for line in block.split("\n") if line and not line.startswith("#")]
        for extra, block in blocks.items()
    }


def requirements() -> list[Requirement]:
    """Every requirement of setup.cfg on another package, of the package's own and of the extras."""
    return [requirement for lines in extras().values() for requirement in lines if requirement.name != "rnagpt"]


def packages_of(extra: str) -> set[str]:
    """What an extra brings, with what the extras bring that it names."""
    found = set()
    for requirement in extras()[extra]:
        if requirement.name == "rnagpt":
            found |= {name for other in requirement.extras for name in packages_of(other)}
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def pins() -> dict[str, str]:
    """Package name -> its one version in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def files() -> list[Path]:
    """The files of the checkout: committed, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no telling its files from what runs left")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- packaging


def test_setup_cfg_keeps_the_packages_wished_for():
    assert {canonicalize_name(requirement.name) for requirement in requirements()} >= WISHED


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_has_a_range_and_a_pin_inside_it(requirement):
    assert str(requirement.specifier), "a range in setup.cfg, the exact version in constraints.txt"
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_an_extra_that_stands_for_others_brings_theirs():
    assert packages_of("data") == packages_of("dataset") >= {"datatrove", "openai"}
    assert packages_of("quickstart") == packages_of("train") | packages_of("eval") | {"gguf"}


def test_no_pin_brings_cuda():
    assert not [name for name in pins() if name.startswith(("nvidia", "cuda", "triton"))]


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


def test_the_wheel_holds_all_that_the_commands_read(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {"train_sft.py", "rnagpt/model_card.md"}
    expected |= {f"rnagpt/recipes/{recipe.name}" for recipe in (ROOT / "recipes").glob("*.yaml")}
    for path in files():
        relative = path.relative_to(ROOT)
        read = path.suffix in (".py", ".jinja", ".safetensors") or "assets" in path.parts or "data" in path.parts
        if relative.parts[0] in PACKAGES and read:
            expected.add(str(relative))
    missing = sorted(expected - inside)
    assert not missing


def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    script = """
import sys
sys.path.insert(0, "installed")
from pathlib import Path
import rnagpt, train_sft
from rnagpt.cli import main
package = Path(rnagpt.__file__).parent
print(package.relative_to(Path.cwd()), len(list(package.glob("recipes/*.yaml"))))
main(["--version"])
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    recipes = len(list((ROOT / "recipes").glob("*.yaml")))
    assert done.stdout.split() == ["installed/rnagpt", str(recipes), "rnagpt", __version__], done.stderr


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


def test_readme_names_only_commands_that_exist():
    code = [line for line in code_of((ROOT / "README.md").read_text()) if "import " not in line]
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(code))) <= targets
    assert set(re.findall(r"\brnagpt (?:--[a-z-]+ )*([a-z][a-z-]+)", "\n".join(code))) <= set(cli.COMMANDS)


def code_of(markdown: str) -> list[str]:
    """Markdown -> the lines of its code, fenced and inline: "see `make test`" -> ["make test"]."""
    fenced = re.findall(r"```.*?\n(.*?)```", markdown, flags=re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL))
    return [line for block in fenced for line in block.splitlines()] + inline


def test_the_changelog_has_a_place_for_what_comes_next():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
