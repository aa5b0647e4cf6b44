"""The quick start's whole path on a tiny model: train, merge, evaluate, report; then again, in no time."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys

import pytest
import yaml
from checkout import packages_of
from packaging.utils import canonicalize_name

from rnagpt import quickstart
from rnagpt.training.curves import joined_curve
from rnagpt_core.errors import UserError

# the first test pays for the whole run
pytestmark = pytest.mark.timeout(900)


def test_every_system_answers_every_held_out_question(tiny_run):
    from dataset_builder.facts_table.facts import load_facts
    from rnagpt.evaluation.asking.items import read_items

    run, _ = tiny_run
    items = read_items(run / "evaluation" / "items.jsonl")
    by_system = {}
    for item in items:
        by_system.setdefault(item.system, {})[item.key] = item
    asked = by_system["stage2"].keys()
    expected = {
        "majority",
        "question_only",
        "nearest_train",
        "nearest_identity",
        "length_only",
        "kmer_length",
        "linear_probe",
        "llm_text",
        "stage1",
        "stage2",
        "stage2_swapped",
        "stage2_swapped_same",
        "stage2_shuffled",
        "stage2_no_rna",
    }
    assert expected <= by_system.keys()
    for system in expected:
        assert by_system[system].keys() == asked, system
    test_ids = {fact.rna_id for fact in load_facts(split="test")}
    assert {item.rna_id for item in items} <= test_ids
    swapped = by_system["stage2_swapped"].values()
    assert all(item.shown_rna_id in test_ids and item.shown_rna_id != item.rna_id for item in swapped)
    types = {item.rna_id: item.rna_type for item in items}
    for item in by_system["stage2_swapped_same"].values():
        assert item.shown_rna_id != item.rna_id and types[item.shown_rna_id] == item.rna_type
    assert all(0 < item.train_identity < 0.8 for item in items)
    assert all(item.shown_rna_id is None for item in by_system["stage2_no_rna"].values())


def test_it_leaves_a_report_curves_and_a_whole_checkpoint(tiny_run):
    from rnagpt.checkpoints import checkpoint

    run, _ = tiny_run
    report = (run / "report.html").read_text()
    assert all(label in report for label in ("Stage 2, another of its type", "Nearest by identity"))
    curves = (run / "learning_curves.csv").read_text().splitlines()
    assert curves[0].startswith("stage,step,seconds,loss") and len(curves) > 8
    facts = json.loads((run / "run.json").read_text())
    assert facts["Memory"]["peak (GiB)"] > 0 and {"stage 1", "stage 2", "evaluation"} <= facts["Seconds"].keys()
    model, processor = checkpoint.load(run / "checkpoint")
    assert model.config.rna_pool_size == processor.rna_pool_size == 8


def test_the_checkpoints_card_has_the_runs_figures(tiny_run):
    """What the evaluation found, with the swapped RNA's figure beside it, as counted from the answers themselves."""
    from rnagpt.evaluation.asking.items import read_items

    run, _ = tiny_run
    card = (run / "checkpoint" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    figures = {
        metric["name"]: metric["value"] for result in head["model-index"][0]["results"] for metric in result["metrics"]
    }
    items = read_items(run / "evaluation" / "items.jsonl")
    labels = {"stage2": "Stage 2", "stage2_swapped": "Stage 2, another RNA", "stage2_no_rna": "Stage 2, no RNA"}
    for system, label in labels.items():
        asked = [item for item in items if item.system == system and item.topic == "rna_type"]
        right = sum(item.parsed == item.gold for item in asked) / len(asked)
        if system != "stage2_no_rna":
            assert figures[f"RNA type, share right ({label})"] == pytest.approx(right, abs=1e-4)
        assert re.search(rf"\| (\*\*)?{label}(, this model\*\*)? \([^|]*\| {100 * right:.1f}% \[", card)
    assert "With the RNA's letters shuffled it is right in" in card and "no RNA at all it is right in" in card
    assert "| 2, instruction | projector and LoRA |" in card and "Training took" in card
    assert str(run) not in card and "OWNER/NAME" in card


def test_a_finished_run_is_shown_without_loading_a_model(tiny_run):
    run, _ = tiny_run
    code = (
        "import sys; from rnagpt.cli import main\n"
        f"code = main(['quickstart', '--output', {str(run)!r}])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Stage 2" in done.stdout and "report.html" in done.stdout


def test_work_of_another_recipe_is_refused_by_the_keys_name(tiny_run, tmp_path):
    run, paths = tiny_run
    changed = yaml.safe_load(paths[1].read_text()) | {"seed": 7}
    other = tmp_path / "other_stage2.yaml"
    other.write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match="another recipe .different: seed."):
        quickstart.work(run, [paths[0], other])


def test_what_is_not_installed_is_told_before_anything_trains(tmp_path, monkeypatch, capsys):
    from rnagpt.cli import main

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("trl", "edlib") else found(name))
    assert main(["quickstart", "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told == "rnagpt: error: the quick start also needs trl, edlib: pip install 'rnagpt[quickstart]'\n"
    assert not (tmp_path / "run").exists()


def test_the_extra_brings_every_package_that_is_asked_for():
    distributions = importlib.metadata.packages_distributions()
    brought = packages_of("quickstart", "")
    for name in quickstart.PACKAGES:
        assert canonicalize_name(distributions[name][0]) in brought, name


def test_an_unknown_recipe_name_is_a_users_mistake(capsys):
    from rnagpt.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["quickstart", "--recipes", "nothing"])
    assert "invalid choice: 'nothing' (choose from 'quickstart', 'demo')" in capsys.readouterr().err


def test_a_stage_that_goes_on_from_another_of_its_kind_continues_its_curve(tmp_path):
    curves = [
        [{"stage": "alignment", "step": 2, "seconds": 5.0, "loss": 3.0}],
        [{"stage": "instruction", "step": 4, "seconds": 8.0, "loss": 2.0}],
        [{"stage": "instruction", "step": 1, "seconds": 1.5, "loss": 1.0}],
    ]
    stages = [tmp_path / f"stage{n}" for n in (1, 2, 3)]
    for folder, rows in zip(stages, curves, strict=True):
        folder.mkdir()
        (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    joined = joined_curve(stages)
    seen = [(row["step"], row["seconds"], row["loss"]) for row in joined]
    assert seen == [(2, 5.0, 3.0), (4, 8.0, 2.0), (5, 9.5, 1.0)]
