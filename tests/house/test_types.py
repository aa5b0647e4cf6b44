"""The public API's types and everybody's spelling, as `make types` checks them.

pytest tests/house/test_types.py
"""

import subprocess
import sys

import pytest
import yaml
from checkout import ROOT, files


def test_the_public_api_is_typed():
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_words_are_spelled_right():
    pytest.importorskip("codespell_lib")
    skipped = ("dataset_builder/facts_table/data/", "rnagpt/assets/", "constraints.txt")
    paths = [str(path.relative_to(ROOT)) for path in files()]
    paths = [path for path in paths if not path.startswith(skipped)]
    done = subprocess.run([sys.executable, "-m", "codespell_lib", *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_hook_before_a_commit_runs_what_make_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "import-linter", "mypy", "codespell"}
    for hook in hooks:
        assert hook["entry"].startswith(".venv/bin/")
