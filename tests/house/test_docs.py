"""The documentation: it builds without a warning, every command and link in it exists, every message is one of ours.

pytest tests/house/test_docs.py
"""

import contextlib
import pkgutil
import re
import subprocess
import sys

import pytest
import yaml
from checkout import PACKAGES, ROOT, extras, files
from pages import FENCED, PAGES, blocks, commands, inline_code

from rnagpt import cli

# the Hub's own sentence, which transformers passes on
FOREIGN = {"You are trying to access a gated repo"}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_every_command_is_one_that_its_parser_takes(page):
    """Subcommands, options, choices and numbers of values, as the parser itself reads them."""
    asked = [command for command in commands() if command.page == page.name and command.words[0] == "rnagpt"]
    assert asked or page.name not in ("README.md", "index.md", "use.md", "train.md", "serve.md")
    for command in asked:
        parser, _ = cli.build_parser(command.words[1])
        with contextlib.redirect_stderr(None):
            try:
                parser.parse_args(command.words[1:])
            except SystemExit as ended:
                assert ended.code == 0, f"{page.name}:{command.line}: {command.text}"


@pages
def test_what_code_names_exists(page):
    """Targets of make, subcommands, recipes, extras, paths of this repository and names of its modules."""
    code = [line for _, text in FENCED.findall(page.read_text()) for line in text.splitlines()] + inline_code(page)
    text = "\n".join(line for line in code if "import " not in line)
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= targets
    assert set(re.findall(r"^rnagpt (?:--[a-z-]+ )*([a-z][a-z-]+)", text, flags=re.MULTILINE)) <= set(cli.COMMANDS)
    named = {name for group in re.findall(r"(?:rnagpt|\.whl|'\.)\[([a-z,]+)\]", text) for name in group.split(",")}
    assert named <= set(extras())
    folders = "|".join(
        (*PACKAGES, "recipes", "metrics", "tests", "docs", "scripts", "benchmarks", r"\.ci", r"\.github")
    )
    for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?![\w.]*[(/*-])", text):
        pkgutil.resolve_name(name)


@pages
def test_no_link_is_dead(page):
    """Relative links: the file is there, and so is the heading; addresses elsewhere are not asked for."""
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w-]+", "-", heading.lower()).strip("-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


def test_the_first_page_is_short_and_shows_what_make_answers():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    done = subprocess.run(["make", "-n", "-o", ".venv/.base", "answer"], cwd=ROOT, capture_output=True, text=True)
    (command,) = re.findall(r"^\.venv/bin/(rnagpt .*)", done.stdout, flags=re.MULTILINE)
    assert f"$ {command}\n" in readme


def test_every_message_under_troubleshooting_is_one_that_is_raised():
    sources = "".join(path.read_text() for path in files() if path.suffix == ".py" and "tests" not in path.parts)
    sources += (ROOT / "Makefile").read_text()
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # literals that go on in the next line
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    assert len(headings) > 15
    assert [heading for heading in headings if heading not in sources and heading not in FOREIGN] == []


def test_the_recipe_of_the_training_page_is_accepted(tmp_path):
    from rnagpt.training.recipe import recipe_from

    (block,) = blocks("yaml", ROOT / "docs" / "train.md")
    assert recipe_from(yaml.safe_load(block.text)).lora == {"r": 16, "lora_alpha": 32}


def test_the_recipe_of_the_evaluation_page_is_accepted_and_no_key_is_left_out(tmp_path):
    from dataclasses import fields

    from rnagpt.evaluation.evaluation_recipe import DataPart, EvaluationRecipe, JudgePart, SystemPart, load_evaluation

    (block,) = blocks("yaml", ROOT / "docs" / "evaluate.md")
    (tmp_path / "answers.jsonl").touch()
    written = block.text.replace("answers.jsonl", str(tmp_path / "answers.jsonl"))
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
