"""Both stages on a tiny model: what trains, what stays frozen bit for bit, and that a killed run ends the same."""

import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml

from rnagpt.training.recipe import load_recipe, recipe_from
from rnagpt_core.errors import UserError

ROOT = Path(__file__).parents[2]


def recipe(tiny_parts, output, stage="alignment", **changes):
    content = {
        "stage": stage,
        "output": str(output),
        "model": {
            "llm": str(tiny_parts / "llm"),
            "encoder": str(tiny_parts / "encoder"),
            "rna_pool_size": 8,
            "template": "chatml",
        },
        "data": {"samples": 24, "validation_rnas": 8},
        "sft": {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "logging_steps": 2,
            "save_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 3,
        },
    }
    if stage == "instruction":
        content["lora"] = {"r": 2, "lora_alpha": 4}
    return content | changes


def train(content, path):
    import train_sft

    path.write_text(yaml.safe_dump(content))
    return train_sft.train(load_recipe(path))


def test_stage_1_changes_the_projector_and_nothing_else(tiny_parts, tmp_path, monkeypatch):
    from rnagpt.checkpoints import checkpoint
    from rnagpt.training import trainer as training

    states = {}

    class Watched(training.RnaGptTrainer):
        def train(self, *args, **kwargs):
            states["before"] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            result = super().train(*args, **kwargs)
            states["after"] = self.model.state_dict()
            return result

    monkeypatch.setattr(training, "RnaGptTrainer", Watched)
    output = train(recipe(tiny_parts, tmp_path / "stage1"), tmp_path / "recipe.yaml")
    changed = {name for name in states["before"] if not torch.equal(states["before"][name], states["after"][name])}
    assert changed == {"model.projector.weight", "model.projector.bias"}
    model, _ = checkpoint.load(output)
    assert torch.equal(model.model.projector.weight, states["after"]["model.projector.weight"])
    assert sorted(path.name for path in output.iterdir()) == [
        "curve.csv",
        "curve.jsonl",
        "curve.svg",
        "parts.json",
        "projector.safetensors",
        "training.json",
    ]
    assert not (tmp_path / "stage1.work").exists()
    curve = [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]
    assert {"loss", "eval_true_loss", "eval_swapped_loss"} <= {name for row in curve for name in row}


def test_stage_2_changes_projector_and_adapter_and_reloads_merged(tiny_parts, tmp_path, monkeypatch):
    from rnagpt.checkpoints import checkpoint
    from rnagpt.training import trainer as training

    kept = {}

    class Watched(training.RnaGptTrainer):
        def train(self, *args, **kwargs):
            before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            result = super().train(*args, **kwargs)
            after = self.model.state_dict()
            kept["changed"] = {name for name in before if not torch.equal(before[name], after[name])}
            kept["model"] = self.model
            return result

    first = train(recipe(tiny_parts, tmp_path / "stage1"), tmp_path / "recipe1.yaml")
    monkeypatch.setattr(training, "RnaGptTrainer", Watched)
    content = recipe(tiny_parts, tmp_path / "stage2", "instruction", start_from=str(first), projector_lr_scale=2.0)
    content["sft"]["report_to"] = "tensorboard"
    output = train(content, tmp_path / "recipe2.yaml")
    check_curves(output)
    assert kept["changed"] and all("lora_" in name or "projector.modules_to_save" in name for name in kept["changed"])
    assert any("lora_A" in name for name in kept["changed"])
    model, processor = checkpoint.load(output)
    messages = [{"role": "user", "content": [{"type": "rna", "rna": "ACGU" * 8}, {"type": "text", "text": "Type?"}]}]
    batch = processor(messages)
    with torch.no_grad():
        merged, trained = model(**batch).logits, kept["model"].eval()(**batch).logits
    assert (merged - trained).abs().max() < 1e-4


def check_curves(output: Path) -> None:
    """The CSV, the picture and TensorBoard's events tell what curve.jsonl does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept = [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in kept if "loss" in row]
    swapped = [row["eval_swapped_loss"] for row in kept if "eval_swapped_loss" in row]
    assert len(losses) == 3 and len(swapped) == 2
    with open(output / "curve.csv", newline="") as file:
        told = [row for row in csv.DictReader(file) if row["loss"]]
    assert [(int(row["step"]), float(row["loss"])) for row in told] == losses
    picture = ElementTree.parse(output / "curve.svg")  # a file of its own: whatever it uses, it brings
    assert picture.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in (output / "curve.svg").read_text()
    events = EventAccumulator(str(output) + ".tensorboard").Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (step, pytest.approx(loss)) for step, loss in losses
    ]


@pytest.mark.parametrize("stage", ["alignment", "instruction"])
def test_killed_training_ends_with_the_weights_of_an_unbroken_run(tiny_parts, tmp_path, stage):
    content = recipe(tiny_parts, tmp_path / "unbroken", stage)
    content["sft"]["save_steps"] = 1
    whole = train(content, tmp_path / "whole.yaml")
    content["output"] = str(tmp_path / "broken")
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, str(ROOT / "train_sft.py"), "--recipe", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "broken.work").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken").exists()
    # a half-written checkpoint, as a kill in mid-save leaves it, must not stop the resumed run
    torn = tmp_path / "broken.work" / "checkpoint-99"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    assert "passing over checkpoint-99" in done.stdout
    name = "projector.safetensors" if stage == "alignment" else "adapter_model.safetensors"
    assert (tmp_path / "broken" / name).read_bytes() == (whole / name).read_bytes()
    steps = [json.loads(line) for line in (tmp_path / "broken" / "curve.jsonl").read_text().splitlines()]
    logged = [row["step"] for row in steps if "loss" in row]
    assert logged == sorted(set(logged)), "a step was logged twice"


@pytest.mark.parametrize("hidden", [None, 24])
def test_ridge_start_puts_slot_features_onto_mean_annotation_embeddings(tiny_model, hidden):
    """Against scikit-learn's ridge regression on the same standardised slots, each RNA weighing the same; of a
    projector with a hidden layer, on what that one makes of them."""
    import copy
    import math

    import numpy as np
    from sklearn.linear_model import Ridge

    from modeling_rnagpt.modeling_rnagpt import build_projector
    from rnagpt.training.trainer import ridge_start

    model = copy.deepcopy(tiny_model[0])
    rng = np.random.default_rng(0)
    sizes = {str(i): 1 + i % 4 for i in range(60)}
    features = {name: torch.tensor(rng.normal(size=(n, 32)) * 2 + 1, dtype=torch.float32) for name, n in sizes.items()}
    ids = {name: rng.integers(0, 200, 7).tolist() for name in features}
    if hidden:
        model.config.projector_hidden_size = hidden
        model.model.projector = build_projector(model.config, model.config.text_config.hidden_size)
    ridge_start(model, features, ids)
    table = model.get_input_embeddings().weight.detach().double().numpy()
    x = np.concatenate([f.double().numpy() for f in features.values()])
    given = torch.tensor(x, dtype=torch.float32)
    if hidden:
        w, b = (p.detach().double().numpy() for p in model.model.projector[0].parameters())
        x = x @ w.T + b
        x = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    means = np.stack([table[ids[name]].mean(0) for name in features])
    y = np.repeat(means - means.mean(0), list(sizes.values()), axis=0)
    share = np.concatenate([[1 / n / 60] * n for n in sizes.values()])
    mean = np.average(x, axis=0, weights=share)
    z = (x - mean) / np.sqrt(np.average((x - mean) ** 2, axis=0, weights=share))
    expected = Ridge(alpha=0.01, fit_intercept=False).fit(z, y, sample_weight=share).predict(z)
    got = model.model.projector(given).detach().numpy()
    scale = np.linalg.norm(got) / np.linalg.norm(expected)
    assert np.abs(got - expected * scale).max() < 1e-4 * np.abs(got).max()
    norms = np.linalg.norm(table, axis=1).mean()
    assert np.average(np.linalg.norm(got, axis=1), weights=share) == pytest.approx(norms, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": "both"}, "unknown key 'stages': did you mean stage"),
        ({"stage": "pretraining"}, "'stage' must be 'alignment', 'instruction' or 'preference', got 'pretraining'"),
        ({"data": {"samples": "many"}}, "key 'data.samples' must be a whole number, got 'many'"),
        ({"data": {"samples": 0}}, "key 'data.samples' must be at least 1, got 0"),
        ({"data": {"sources": "rna-qa"}}, "key 'data.sources' must be a list, got 'rna-qa'"),
        ({"data": {"sources": [{"paths": "x"}]}}, "unknown key 'data.sources.1.paths': did you mean path"),
        ({"data": {"sources": [{"path": "x", "weight": 0}]}}, "key 'data.sources.1.weight' must be above 0, got 0"),
        ({"data": {"sources": [{"path": "x", "streaming": True}]}}, "key 'streaming' is gone: it is always False now"),
        ({"data": {"scored_share": 2}}, "key 'data.scored_share' must be at most 1, got 2"),
        ({"early_stopping": 0}, "key 'early_stopping' must be at least 1, got 0"),
        ({"attention": "flex"}, "key 'attention' is gone: it is always 'sdpa' now; leave it out"),
        ({"token_budget": 512}, "leave sft.per_device_train_batch_size out"),
        ({"features_folder": "x", "cache_features": False}, "features_folder is for cache_features: true"),
        ({"projector_start": "ridge", "cache_features": False}, "ridge needs cache_features: true"),
        ({"stage": "instruction", "lora": {"r": "eight"}}, "lora.r must be a whole number, at least 1, got 'eight'"),
        ({"pakc": True}, "unknown key 'pakc': did you mean pack"),
        ({"model": {"llm": "x", "encoder": "y", "rna_pool_size": -1}}, "rna_pool_size' must be at least 1, got -1"),
        ({"model": {"llm": "x", "encoder": "y", "projector_hidden_size": 0}}, "must be at least 1, got 0"),
        ({"lora": {"r": 8}}, "lora is for the instruction stage"),
        ({"model": {"llm": "x", "encoder": "y", "pool": 2}}, "unknown key 'model.pool'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_keys_name(tiny_parts, tmp_path, change, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tiny_parts, tmp_path) | change))
    with pytest.raises(UserError, match=message):
        load_recipe(path)


def test_recipes_and_records_of_the_version_before_are_read(tiny_parts, tmp_path, capsys):
    from rnagpt.checkpoints.forms import assets
    from rnagpt.training.recipe import changed_keys

    new = recipe(tiny_parts, tmp_path / "out") | {"data": {"samples": 24, "pairs_per_sample": 2}}
    gone = {"ridge_gain": 1.0, "attention": "sdpa", "features_gb": 100.0, "loss_per": "question"}
    old = new | {"data": {"visits": 24, "pairs_per_visit": 2}} | gone
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    assert load_recipe(tmp_path / "old.yaml") == recipe_from(new)
    assert "old.yaml: key 'visits' is called 'samples' now" in capsys.readouterr().err
    assert changed_keys(recipe_from(new), old) == []
    demo = json.loads((assets() / "demo" / "training.json").read_text())["recipe"]
    assert recipe_from(demo).data.samples == 1600
    assert changed_keys(load_recipe(ROOT / "recipes" / "demo_stage3.yaml"), demo) == []
    assert capsys.readouterr().err == ""  # a record is not the user's to change


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*_stage?.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_is_valid(path, tmp_path):
    from rnagpt.training import trainer as training
    from rnagpt.training.recipe import check_sft

    content = load_recipe(path)
    preference = path.name == "fast_stage3.yaml"
    assert content.stage == ("alignment" if "stage1" in path.name else "preference" if preference else "instruction")
    check_sft(content.sft, content.stage)
    start_from = adapter(tmp_path) if preference else None
    on_cpu = dataclasses.replace(content, start_from=start_from, sft={**content.sft, "use_cpu": True})
    training.settings(on_cpu, tmp_path)


def adapter(folder: Path) -> str:
    """A folder with the name of an adapter in it: what a preference stage asks for before anything loads."""
    (folder / "adapter_model.safetensors").touch()
    return str(folder)


def test_what_is_finished_or_anothers_is_not_touched(tiny_parts, tmp_path, capsys):
    content = recipe(tiny_parts, tmp_path / "out")
    done = train(content, tmp_path / "recipe.yaml")
    weights = (done / "projector.safetensors").stat()
    train(content, tmp_path / "recipe.yaml")
    assert "is finished already: remove it to train it again" in capsys.readouterr().out
    assert (done / "projector.safetensors").stat() == weights
    with pytest.raises(UserError, match=r"out belongs to another recipe \(different: seed\)"):
        train({**content, "seed": 7}, tmp_path / "recipe.yaml")
    # work that another recipe began
    work = tmp_path / "begun.work"
    work.mkdir()
    (work / "recipe.json").write_text(json.dumps(dataclasses.asdict(load_recipe(tmp_path / "recipe.yaml"))))
    with pytest.raises(UserError, match=r"begun.work belongs to another recipe \(different: data, seed\)"):
        train({**content, "output": str(tmp_path / "begun"), "data": {"samples": 8}}, tmp_path / "recipe.yaml")
    # a folder of somebody's own
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("ACGU")
    with pytest.raises(UserError, match="mine holds other files, which would be lost"):
        train({**content, "output": str(tmp_path / "mine")}, tmp_path / "recipe.yaml")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "ACGU"


def test_a_stage_starts_from_parts_of_its_own_kind(tiny_parts, tmp_path, capsys):
    from train_sft import check_start

    (tmp_path / "one").mkdir()
    built = {"llm": "x", "encoder": "y", "rna_pool_size": 8, "template": "llm"}
    (tmp_path / "one" / "parts.json").write_text(json.dumps({"build": built, "llm_fingerprint": "abc"}))
    content = recipe(tiny_parts, tmp_path / "two", "instruction", start_from=str(tmp_path / "one"))
    check_start(recipe_from(content), tmp_path / "one", "abc")
    assert "trained with the chat template llm, not chatml" in capsys.readouterr().err
    check_start(recipe_from(content), tmp_path / "one", None)  # quantised: it cannot be told
    with pytest.raises(UserError, match=r"one was trained with another LLM \(x\) than"):
        check_start(recipe_from(content), tmp_path / "one", "def")
    content["model"]["rna_pool_size"] = 4
    with pytest.raises(UserError, match="trained with rna_pool_size 8, and this recipe has 4"):
        check_start(recipe_from(content), tmp_path / "one", "abc")
    content["model"] |= {"rna_pool_size": 8, "projector_hidden_size": 16}
    with pytest.raises(UserError, match="trained with projector_hidden_size None, and this recipe has 16"):
        check_start(recipe_from(content), tmp_path / "one", "abc")


def test_a_hidden_layer_in_the_projector_goes_through_both_stages_and_every_form(tiny_parts, tmp_path):
    from transformers import AutoModelForCausalLM

    from rnagpt.checkpoints import checkpoint

    content = recipe(tiny_parts, tmp_path / "stage1", sft={"per_device_train_batch_size": 4, "learning_rate": 1e-2})
    content["model"]["projector_hidden_size"] = 24
    content |= {"projector_start": "ridge", "data": {"samples": 8}}
    first = train(content, tmp_path / "recipe1.yaml")
    content |= {
        "stage": "instruction",
        "output": str(tmp_path / "stage2"),
        "start_from": str(first),
        "lora": {"r": 2, "lora_alpha": 4},
        "projector_start": "random",
    }
    second = train(content, tmp_path / "recipe2.yaml")

    aligned, processor = checkpoint.load(first)
    tuned, _ = checkpoint.load(second)
    assert [layer.weight.shape for layer in (aligned.model.projector[0], aligned.model.projector[2])] == [
        (24, aligned.config.rna_config.hidden_size),
        (aligned.config.text_config.hidden_size, 24),
    ]
    for before, after in zip(aligned.model.projector.parameters(), tuned.model.projector.parameters(), strict=True):
        assert not torch.equal(before, after)
    # a soft token by hand, from the encoder's features
    batch = processor([{"role": "user", "content": [{"type": "rna", "rna": "ACGUACGUAC"}]}])
    rna = {name: batch[name] for name in batch if name.startswith("rna_")}
    with torch.no_grad():
        features, _ = aligned.model.encode_rna(**rna)
        one, _, two = aligned.model.projector
        by_hand = torch.nn.functional.gelu(features @ one.weight.T + one.bias) @ two.weight.T + two.bias
        assert torch.allclose(aligned.model.get_rna_features(**rna), by_hand, atol=1e-6)
        # whole, and the projector alone
        expected = aligned(**batch).logits
        checkpoint.save(aligned, processor, tmp_path / "whole")
        origins = {"llm": str(tiny_parts / "llm"), "encoder": str(tiny_parts / "encoder")}
        checkpoint.save(aligned, processor, tmp_path / "alone", weights_from=origins, dtype="float32")
        for form in ("whole", "alone"):
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path / form)
            assert torch.equal(loaded(**batch).logits, expected)


def test_early_stopping_looks_at_the_true_rna_alone():
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from rnagpt.training.trainer import EarlyStopping

    callback, control = EarlyStopping(2), TrainerControl()
    args = TrainingArguments(
        "unused",
        load_best_model_at_end=False,
        metric_for_best_model="eval_true_loss",
        greater_is_better=False,
        use_cpu=True,
    )
    state = TrainerState(best_metric=1.0)
    for _ in range(5):
        callback.on_evaluate(args, state, control, {"eval_swapped_loss": 9.0})
    assert not control.should_training_stop
    for _ in range(2):
        callback.on_evaluate(args, state, control, {"eval_true_loss": 2.0})
    assert control.should_training_stop


def test_samples_hold_every_rna_of_a_type_before_any_again_and_the_scored_share():
    from dataset_builder.facts_table.facts import EVALUATION_TYPES, load_facts
    from rnagpt.training.recipe import DataRecipe
    from rnagpt.training.training_rows import samples

    facts, data = load_facts(split="train"), DataRecipe(samples=3000)
    sampled = samples(facts, data, seed=1)
    assert sampled == samples(list(reversed(facts)), data, seed=1)
    for rna_type in {fact.rna_type for fact in facts}:
        times = [before for fact, before in sampled if fact.rna_type == rna_type]
        names = [fact.rna_id for fact, before in sampled if fact.rna_type == rna_type and before == 0]
        assert times == sorted(times) and len(names) == len(set(names))
    shared = samples(facts, DataRecipe(samples=3000, scored_share=0.85), seed=1)
    assert abs(sum(fact.rna_type in EVALUATION_TYPES for fact, _ in shared) / 3000 - 0.85) < 0.02
    assert len({fact.rna_type for fact, _ in shared}) == 14


def test_an_instruction_stage_goes_on_from_another_one(tiny_parts, tmp_path):
    """With a learning rate of 0 it gives back the very adapter it started from; with more, it moves it."""
    from safetensors.torch import load_file

    first = train(recipe(tiny_parts, tmp_path / "first", "instruction"), tmp_path / "first.yaml")
    states = [load_file(first / "adapter_model.safetensors")]
    for rate in (0.0, 1e-2):
        content = recipe(tiny_parts, tmp_path / f"second{rate}", "instruction", start_from=str(first))
        del content["lora"]
        content["sft"]["learning_rate"] = rate
        states.append(load_file(train(content, tmp_path / "second.yaml") / "adapter_model.safetensors"))
    start, same, moved = states
    assert start.keys() == same.keys() == moved.keys()
    assert all(torch.equal(start[name], same[name]) for name in start)
    name = next(name for name in start if name.endswith("projector.weight"))
    assert not torch.equal(start[name], moved[name])


def test_an_adapter_is_gone_on_from_by_an_instruction_stage_without_lora_alone(tiny_parts, tmp_path):
    (tmp_path / "first").mkdir()
    for name in ("parts.json", "adapter_model.safetensors"):
        (tmp_path / "first" / name).touch()
    for stage in ("alignment", "instruction"):
        content = recipe(tiny_parts, tmp_path / "second", stage, start_from=str(tmp_path / "first"))
        with pytest.raises(UserError, match="only an instruction stage goes on from it, without the recipe key lora"):
            train(content, tmp_path / "second.yaml")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_over_both_stages_leave_no_trace(tiny_parts, tmp_path):
    """Killed five times in each stage, while loading, in a step or in a save, it ends as if nobody had touched it."""
    rng = random.Random(0)
    outputs = {}
    for name in ("whole", "broken"):
        one = recipe(tiny_parts, tmp_path / name / "one")
        two = recipe(tiny_parts, tmp_path / name / "two", "instruction", start_from=one["output"])
        for content in (one, two):
            content["data"]["samples"] = 96  # 24 steps
            content["sft"] |= {"save_steps": 1, "eval_steps": 8}
        path = tmp_path / f"{name}.yaml"
        command = [sys.executable, str(ROOT / "train_sft.py"), "--recipe", str(path)]
        for content in (one, two):
            path.write_text(yaml.safe_dump(content))
            work = Path(content["output"] + ".work")
            for steps in [0, 1, 2, 3, 4] if name == "broken" else []:
                process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                begun, first = time.monotonic(), last_step(work)
                while steps and last_step(work) < first + steps:
                    assert process.poll() is None and time.monotonic() < begun + 300, "it ended before the kill"
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, 0.2 if steps else 8))
                assert process.poll() is None, "the run ended before it could be killed"
                process.kill()
                process.wait()
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-1500:]
        outputs[name] = [
            (Path(content["output"]) / weights).read_bytes()
            for content, weights in ((one, "projector.safetensors"), (two, "adapter_model.safetensors"))
        ]
    assert outputs["whole"] == outputs["broken"]


def last_step(work: Path) -> int:
    """Number of the newest checkpoint in a run's folder of work, complete or not."""
    return max((int(folder.name.split("-")[1]) for folder in work.glob("checkpoint-*")), default=0)
