"""Whose figures a card tells: those of the very checkpoint that it is written for, or none.

pytest tests/release/test_card_facts.py
"""

import configparser
import gzip
import json
import re
import shutil

import pytest
from checkout import ROOT
from test_build_checkpoint_parts import adapted
from test_release_model import NAMES, recorded_share, release

from rnagpt.checkpoints import checkpoint, model_card
from rnagpt.checkpoints.forms import assets
from rnagpt.evaluation.reporting.summary import summarise
from rnagpt.release.card_facts import read_facts

# the demo's recorded answers under other names: with the true RNA as stage 2, with another RNA as stage 1
KEYS = {"demo": "stage2", "demo_no_rna": "stage2_no_rna", "demo_swapped": "stage1"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of three stages, of which the first two were measured. Read only."""
    run = tmp_path_factory.mktemp("run")
    (run / "evaluation").mkdir()
    with gzip.open(assets() / "demo" / "items.jsonl.gz", "rt") as file:
        rows = [row for row in map(json.loads, file) if row["system"] in KEYS]
    items = run / "evaluation" / "items.jsonl"
    items.write_text("".join(json.dumps({**row, "system": KEYS[row["system"]]}) + "\n" for row in rows))
    (run / "evaluation" / "summary.json").write_text(json.dumps(summarise(items)))
    stage = json.loads((assets() / "demo" / "training.json").read_text())
    for name in ("stage1", "stage2", "stage3", "checkpoint"):
        (run / name).mkdir()
        if name != "checkpoint":
            (run / name / "training.json").write_text(json.dumps(stage))
    (run / "run.json").write_text(json.dumps({"Seconds": {"stage 1": 1.0, "stage 2": 1.0}}))
    return run


def share_on_card(folder, run=None) -> float | None:
    """The share of right types that the card's sentences and its model-index tell."""
    facts = read_facts(folder, run)
    if facts.summary is None:
        assert "model-index" not in facts.metadata("x") and not {"state", "evaluation"} & set(facts.sections())
        assert "measured other checkpoints than" in facts.left_out
        return None
    (value, *_) = (
        metric["value"] for result in facts.metadata("x")["model-index"][0]["results"] for metric in result["metrics"]
    )
    assert f"| RNA type | {100 * value:.1f}% [" in facts.sections()["state"]
    assert facts.sections()["evaluation"].count("this model**") == 1
    return value


def test_a_stages_card_has_its_own_figures(measured, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(measured, run)
    assert share_on_card(run / "stage1") == pytest.approx(recorded_share("demo_swapped"), abs=1e-4)
    assert "was not asked with another RNA" in read_facts(run / "stage1").sections()["state"]
    assert share_on_card(run / "stage3") is None  # trained later than the quick start, which noted two stages
    assert share_on_card(run / "stage2") is None  # a quick start's "stage2" is what its last stage left
    (run / "stage3" / "training.json").unlink()
    for name in ("stage2", "checkpoint"):
        assert share_on_card(run / name) == pytest.approx(recorded_share("demo"), abs=1e-4)


def test_figures_of_another_model_are_left_out(measured, tmp_path):
    """evaluation.json names the checkpoint of each system; the packaged demo may have been measured in the run."""
    run = tmp_path / "mine"
    shutil.copytree(measured, run)
    recipe = {
        "systems": [
            {"name": "stage2", "kind": "rna", "model": "demo"},
            {"name": "stage1", "kind": "rna", "model": "elsewhere/mine/stage1"},
            {"name": "gpt", "kind": "endpoint", "model": "mine/checkpoint"},
        ]
    }
    (run / "evaluation.json").write_text(json.dumps(recipe | {"data": {}, "seed": 0, "encoders": []}))
    assert share_on_card(run / "checkpoint") is None and share_on_card(run / "stage2") is None
    assert share_on_card(run / "stage1") == pytest.approx(recorded_share("demo_swapped"), abs=1e-4)
    assert share_on_card(assets() / "demo", run) == pytest.approx(recorded_share("demo"), abs=1e-4)


def test_an_untrained_checkpoint_is_called_so(tiny_model, tiny_checkpoint, tmp_path):
    model, processor = tiny_model
    folder = tmp_path / "built"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "README.md").write_text(checkpoint.card(model, processor, "llm", "encoder", trained=False))
    assert release(folder, *NAMES, "--repo", "owner/built", "--dry-run", "--out", tmp_path / "up") == 0
    card = (tmp_path / "up" / "README.md").read_text()
    assert model_card.UNTRAINED in card and "| projector | random numbers |" in card and 'name = "owner/built"' in card


def test_an_adapter_is_not_counted_with_what_it_adapts(tiny_model):
    model, processor = tiny_model
    counts = [
        re.findall(r"\| ([\d,]+) \|", checkpoint.card(one, processor, "llm", "encoder"))
        for one in (model, adapted(model).get_base_model())
    ]
    assert counts[0] == counts[1] and len(counts[0]) == 3
    assert sum(int(count.replace(",", "")) for count in counts[0]) == sum(p.numel() for p in model.parameters())


def test_the_card_names_the_transformers_that_setup_cfg_needs():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (floor,) = re.findall(r"transformers>=([\d.]+)", setup["options"]["install_requires"])
    assert f"With transformers {floor} or newer" in (ROOT / "model_card.md").read_text()


def test_the_readme_has_the_demos_figures_of_its_card():
    """The demo's own rows, recounted from its recorded answers, and its time from its learning curve."""
    readme = (ROOT / "README.md").read_text()
    rows = [json.loads(line) for line in (assets() / "demo" / "curve.jsonl").read_text().splitlines()]
    stages = {row["stage"] for row in rows}
    seconds = sum(max(row["seconds"] for row in rows if row["stage"] == stage) for stage in stages)
    assert f"{seconds / 60:.0f} minutes of training on two CPU cores" in readme
    labels = {"demo": "shipped demo", "demo_swapped": "the same, shown another type's RNA"}
    for system, label in labels.items():
        assert f"| {label} | {100 * recorded_share(system):.1f}% [" in readme
