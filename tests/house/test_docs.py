"""The documentation: it builds without a warning, every command and link in it exists, every message is one of ours.

pytest tests/house/test_docs.py
"""

import ast
import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_house import ROOT, files

from rnagpt import cli

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# the Hub's own sentence, which transformers passes on
FOREIGN = {"You are trying to access a gated repo"}


def ids(page: Path) -> str:
    return page.name


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every `rnagpt ...` in the page's bash and console blocks, comments left out."""
    found = []
    for block in blocks(page, "bash") + blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for place, word in enumerate(words):
                if word in ("rnagpt", ".venv/bin/rnagpt") or words[place : place + 2] == ["-m", "rnagpt"]:
                    found.append(words[place + (2 if word == "-m" else 1) :])
                    break
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_is_one_that_its_parser_takes(page):
    """Subcommands, options, choices and numbers of values, as the parser itself reads them."""
    if page.name in ("README.md", "index.md", "use.md", "train.md", "serve.md"):
        assert commands(page)
    for words in commands(page):
        command = next((word for word in words if not word.startswith("-")), None)
        parser, _ = cli.build_parser(command)
        with contextlib.redirect_stderr(None):
            try:
                parser.parse_args(words)
            except SystemExit as ended:
                assert ended.code == 0, f"{page.name}: rnagpt {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_recipe_and_target_exists(page):
    text = page.read_text()
    for name in re.findall(r"\brecipes/([\w-]+\.yaml)", text):
        assert (ROOT / "recipes" / name).is_file(), name
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for block in blocks(page, "bash"):
        assert set(re.findall(r"^make ([a-z-]+)", block, flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_and_yaml_blocks_can_be_read(page):
    """Python is compiled, and its imports of ours are found; YAML recipes have keys that a recipe has."""
    import dataclasses

    from rnagpt.training.recipe import Recipe

    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "rnagpt":
                module = __import__(node.module, fromlist=["x"])
                assert all(hasattr(module, name.name) for name in node.names)
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if "stage" in content:
            assert set(content) <= {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_no_link_is_dead(page):
    """Relative links: the file is there, and so is the heading; addresses elsewhere are not asked for."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w-]+", "-", heading.lower()).strip("-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_every_message_under_troubleshooting_is_one_that_is_raised():
    sources = "".join((path).read_text() for path in files() if path.suffix == ".py" and "tests" not in path.parts)
    sources += (ROOT / "Makefile").read_text()
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # literals that go on in the next line
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    assert len(headings) > 15
    assert [heading for heading in headings if heading not in sources and heading not in FOREIGN] == []


def test_the_recipe_of_the_training_page_is_accepted(tmp_path):
    from rnagpt.training.recipe import recipe_from

    (block,) = blocks(ROOT / "docs" / "train.md", "yaml")
    assert recipe_from(yaml.safe_load(block)).lora == {"r": 16, "lora_alpha": 32}


def test_the_recipe_of_the_evaluation_page_is_accepted_and_no_key_is_left_out(tmp_path):
    from dataclasses import fields

    from rnagpt.evaluation.evaluation_recipe import DataPart, EvaluationRecipe, JudgePart, SystemPart, load_evaluation

    (block,) = blocks(ROOT / "docs" / "evaluate.md", "yaml")
    (tmp_path / "answers.jsonl").touch()
    written = block.replace("answers.jsonl", str(tmp_path / "answers.jsonl"))
    (tmp_path / "my_evaluation.yaml").write_text(written)
    recipe = load_evaluation(tmp_path / "my_evaluation.yaml")
    assert [system.kind for system in recipe.systems] == ["rna", "llm_text", "endpoint", "file"]
    page = (ROOT / "docs" / "evaluate.md").read_text()
    table = page[page.index("| key | means") : page.index("## Five things")]
    of_data = {f"data.{field.name}" for field in fields(DataPart)}
    others = {field.name for part in (EvaluationRecipe, JudgePart, SystemPart) for field in fields(part)}
    keys = of_data | others - {"data", "systems"}
    assert not [key for key in keys if not re.search(rf"[`.]{re.escape(key)}`", table)]


def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {path.parent.name for path in (tmp_path / "site").glob("*/index.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= pages
    # the reference is there, from the docstrings
    assert "Frozen RNA encoder" in (tmp_path / "site" / "design" / "index.html").read_text()
    assert "max_nucleotides" in (tmp_path / "site" / "api" / "index.html").read_text()
