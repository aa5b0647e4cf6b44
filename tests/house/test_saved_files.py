"""Checkpoints, runs, data sets and recipes that the first version wrote are still read: tests/saved/version_1.tar.gz.

pytest tests/house/test_saved_files.py
"""

import json
import tarfile
from pathlib import Path

import pytest
import yaml
from checkout import ROOT

from rnagpt.cli import main

RNA = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"
TEXT = {".json", ".jsonl", ".yaml", ".txt", ".md", ".csv", ".tsv"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """The files of the first version, with the folder they lie in written into them."""
    folder = tmp_path_factory.mktemp("saved")
    with tarfile.open(ROOT / "tests" / "saved" / "version_1.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.suffix in TEXT:
            path.write_text(path.read_text().replace("@SAVED@", str(folder)))
    return folder


@pytest.mark.parametrize("name", ["whole", "run/stage1", "run/stage2"])
def test_a_checkpoint_has_its_logits(saved, name):
    import torch

    from rnagpt.checkpoints import checkpoint

    model, processor = checkpoint.load(saved / name)
    question = [{"type": "rna", "rna": RNA}, {"type": "text", "text": "What type of RNA is this?"}]
    batch = processor([{"role": "user", "content": question}])
    with torch.inference_mode():
        logits = model(**batch).logits[0, -1]
    expected = json.loads((saved / "logits.json").read_text())[name]
    assert torch.allclose(logits[: len(expected)], torch.tensor(expected), atol=1e-4)


def test_every_recipe_that_shipped_is_read(saved):
    from rnagpt.evaluation.evaluation_recipe import load_evaluation
    from rnagpt.training.recipe import load_recipe

    names = {path.name for path in (saved / "recipes").glob("*_stage?.yaml")}
    assert len(names) == 14
    for name in names:
        load_recipe(saved / "recipes" / name)
    for path in (saved / "recipes").glob("evaluate_*.yaml"):
        load_evaluation(path)


def test_a_finished_stage_is_known_for_finished_and_gone_on_from(saved, tmp_path, capsys):
    recipe = yaml.safe_load((saved / "tiny_stage2.yaml").read_text())
    recipe |= {"output": str(saved / "run" / "stage2"), "start_from": str(saved / "run" / "stage1")}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe))
    before = (saved / "run" / "stage2" / "adapter_model.safetensors").read_bytes()
    assert main(["train", "--recipe", str(tmp_path / "again.yaml")]) == 0
    assert (saved / "run" / "stage2" / "adapter_model.safetensors").read_bytes() == before
    recipe |= {"output": str(tmp_path / "further")}
    (tmp_path / "further.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "--recipe", str(tmp_path / "further.yaml")]) == 0
    assert (tmp_path / "further" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("name", ["run", "evaluation"])
def test_a_runs_figures_are_computed_again(saved, name, capsys):
    before = json.loads((saved / name / "evaluation" / "summary.json").read_text())
    assert main(["evaluate", str(saved / name)]) == 0
    after = json.loads((saved / name / "evaluation" / "summary.json").read_text())
    for row in [*before["systems"], *after["systems"]]:
        row.pop("group")  # "floor" is called "baseline" now
    assert after["systems"] == before["systems"] and (saved / name / "report.html").is_file()


def test_an_evaluation_by_recipe_is_gone_on_with(saved, capsys):
    items = (saved / "evaluation" / "evaluation" / "items.jsonl").read_bytes()
    assert main(["evaluate", str(saved / "evaluation"), "--recipe", str(saved / "evaluation.yaml")]) == 0
    assert (saved / "evaluation" / "evaluation" / "items.jsonl").read_bytes() == items


def test_a_data_set_is_read_and_released(saved, tmp_path, capsys):
    from datasets import load_dataset

    folder = saved / "build" / "dataset"
    for config, rows in (("alignment", "annotation"), ("qa", "answer")):
        assert load_dataset(str(folder), config, cache_dir=str(tmp_path))["train"][0][rows]


def test_a_finished_build_is_known_for_finished(saved, capsys):
    command = ["build-dataset", str(saved / "source"), "--output", str(saved / "build"), "--held-out", "0.2"]
    rows = sorted((saved / "build" / "dataset" / "qa").glob("*.parquet"))
    before = [path.read_bytes() for path in rows]
    # nothing is asked, so nothing needs to answer at this address
    code = main([*command, "--llm", "scripted", "--endpoint", "http://127.0.0.1:9/v1", "--timeout", "5"])
    assert code == 0
    assert [path.read_bytes() for path in sorted((saved / "build" / "dataset" / "qa").glob("*.parquet"))] == before
