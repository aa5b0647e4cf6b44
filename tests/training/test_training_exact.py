"""The same gradients, however the work is laid out (packed, shared, accumulated, two processes); the paper's rates."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_training import recipe, train

from rnagpt.training.recipe import load_recipe
from rnagpt_core.errors import UserError

ROOT = Path(__file__).parents[2]


def one_step(tiny_parts, output, batch: int, accumulation: int = 1, **changes) -> dict:
    """A recipe whose one step of plain gradient descent with rate 1 moves the projector by minus its gradient."""
    content = recipe(tiny_parts, output, **changes)
    content["data"] = {"sources": [{"path": str(tiny_parts / "uneven"), "config": "qa"}], "pairs_per_sample": 5}
    content["stage"] = "instruction"
    content["lora"] = {"r": 2, "lora_alpha": 4}
    content["sft"] = {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0e9,
        "use_cpu": True,
    }
    return content


@pytest.fixture(scope="module")
def uneven(tiny_parts):
    """RNAs with one to five questions each, so that batches differ in how many answers they hold."""
    folder = tiny_parts / "uneven"
    folder.mkdir()
    records = [
        {"rna_id": f"rna{i}", "sequence": "ACGGU" * (2 + i % 7), "question": f"What is {k}?", "answer": "Ab" * (1 + k)}
        for i in range(16)
        for k in range(1 + i % 5)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "README.md").write_text(
        "---\n" + yaml.safe_dump({"configs": [{"config_name": "qa", "data_files": "train.jsonl"}]}) + "---\n"
    )
    return folder


def gradient(output: Path) -> torch.Tensor:
    state = load_file(output / "adapter_model.safetensors")
    return next(tensor for name, tensor in state.items() if name.endswith("projector.weight"))


def test_packed_shared_and_accumulated_steps_equal_one_by_one(tiny_parts, uneven, tmp_path):
    layouts = {
        "naive": {"batch": 8, "share_prefix": False, "cache_features": False},
        "fast": {"batch": 8, "pack": True},
        "accumulated": {"batch": 1, "accumulation": 8, "share_prefix": False},
        "accumulated fast": {"batch": 4, "accumulation": 2, "pack": True},
    }
    weights = {}
    for name, changes in layouts.items():
        content = one_step(tiny_parts, tmp_path / name, **changes)
        weights[name] = gradient(train(content, tmp_path / "recipe.yaml"))
    content = one_step(tiny_parts, tmp_path / "start", batch=8)
    content["sft"]["learning_rate"] = 0.0
    start = gradient(train(content, tmp_path / "recipe.yaml"))
    naive = weights.pop("naive") - start
    assert naive.abs().max() > 1e-4
    for name, moved in weights.items():
        assert (moved - start - naive).abs().max() <= 1e-5 * naive.abs().max(), name


def test_batches_by_token_budget_and_features_on_disk_give_the_same_gradient(tiny_parts, uneven, tmp_path):
    whole = gradient(train(one_step(tiny_parts, tmp_path / "whole", batch=16), tmp_path / "whole.yaml"))
    content = one_step(tiny_parts, tmp_path / "start", batch=16)
    content["sft"]["learning_rate"] = 0.0
    start = gradient(train(content, tmp_path / "recipe.yaml"))
    content = one_step(
        tiny_parts,
        tmp_path / "budget",
        batch=1,
        accumulation=99,
        token_budget=150,
        pack=True,
        features_folder=str(tmp_path / "features"),
    )  # one step: fewer batches than 99 make it whole
    budget = gradient(train(content, tmp_path / "recipe.yaml"))
    assert (budget - whole).abs().max() <= 1e-5 * (whole - start).abs().max()
    assert list((tmp_path / "features").rglob("*.safetensors"))


@pytest.mark.parametrize("share_prefix", [True, False])
def test_a_batch_ends_before_its_token_budget(tiny_model, share_prefix):
    from processing_rnagpt.collator import SharedPrefixCollator
    from rnagpt.training.training_rows import BatchedRows, _dataset, fill_batches, row

    pairs = [{"question": f"What is {k}?", "answer": "A" * k} for k in range(1, 4)]
    rows = _dataset(row(f"rna{i}", "ACGU" * (1 + 7 * i % 30), pairs[: 1 + i % 3]) for i in range(40))
    collator = SharedPrefixCollator(tiny_model[1], share_prefix=share_prefix)
    batches = fill_batches(collator, rows, 300, seed=0)
    members = [batch["members"] for batch in batches]
    assert sorted(i for batch in members for i in batch) == list(range(40)) and 5 < len(batches) < 40
    assert members == [batch["members"] for batch in fill_batches(collator, rows, 300, seed=0)]
    assert members != [batch["members"] for batch in fill_batches(collator, rows, 300, seed=1)]
    whole = BatchedRows(collator, rows)

    def width(row: dict) -> int:  # of a row alone, or of each of its pairs alone: there is no padding
        alone = [row] if share_prefix else [{**row, "pairs": [pair]} for pair in row["pairs"]]
        return sum(collator([part])["input_ids"].shape[1] for part in alone)

    tokens = [sum(width(rows[i]) for i in batch) for batch in members]
    assert max(tokens) > 200
    over = [batch for batch, n in zip(members, tokens, strict=True) if n > 300]
    assert all(len(batch) == 1 for batch in over)
    plain = whole([rows[3]])  # as in evaluation, where rows are not batched beforehand
    assert plain["input_ids"].tolist() == collator([rows[3]])["input_ids"].tolist()


def test_two_processes_take_the_step_of_one(tiny_parts, uneven, tmp_path):
    # a step of all 16 rows, so that their order, which each process draws for itself, does not matter
    alone = gradient(train(one_step(tiny_parts, tmp_path / "alone", batch=16, pack=True), tmp_path / "alone.yaml"))
    content = one_step(tiny_parts, tmp_path / "both", batch=8, pack=True)
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, str(ROOT / "train_sft.py"), "--recipe", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    content = one_step(tiny_parts, tmp_path / "start", batch=8)
    content["sft"]["learning_rate"] = 0.0
    start = gradient(train(content, tmp_path / "start.yaml"))
    both = gradient(tmp_path / "both")
    assert (both - alone).abs().max() <= 1e-5 * (alone - start).abs().max()


@pytest.mark.parametrize("stage", ["alignment", "instruction"])
def test_parts_of_a_sharded_model_are_those_of_the_whole(tiny_model, tmp_path, stage):
    """FSDP2 over gloo, in one process: what is written comes from the gathered weights."""
    import torch.distributed as dist
    from peft import LoraConfig, get_peft_model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.llm import fingerprint
    from rnagpt.training import trainer as training

    model = copy.deepcopy(tiny_model[0])
    training.freeze_all_but_projector(model)
    if stage == "instruction":
        model = get_peft_model(
            model, LoraConfig(r=2, target_modules=training.LORA_TARGETS, modules_to_save=["projector"])
        )
    base = model.get_base_model() if stage == "instruction" else model
    llm_fingerprint = fingerprint(base.model.language_model)
    checkpoint.save_parts(model, tmp_path / "whole", {"llm": "x"})
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for module in [m for m in model.modules() if type(m).__name__ in base.model._no_split_modules]:
            fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert all(hasattr(parameter, "full_tensor") for parameter in model.parameters())
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        checkpoint.save_parts(model, tmp_path / "sharded", {"llm": "x"}, "float32", state, llm_fingerprint)
    finally:
        dist.destroy_process_group()
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "sharded").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "sharded" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_accelerates_settings_for_clusters_are_read(name):
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(ROOT / "recipes" / f"cluster_{name}.yaml"))
    assert settings.num_processes == 16 and settings.num_machines == 2 and settings.mixed_precision == "bf16"
    assert settings.distributed_type == name.upper()


def test_a_sharded_checkpoint_of_the_trainer_is_gone_on_from_when_it_is_whole(tmp_path):
    from rnagpt.training.trainer import last_complete_checkpoint

    for step, complete in ((2, True), (4, False)):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "optimizer_0").mkdir(parents=True)
        (folder / "trainer_state.json").write_text("{}")
        if complete:
            (folder / "optimizer_0" / ".metadata").touch()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rnas(tiny_parts, uneven, tmp_path):
    content = one_step(tiny_parts, tmp_path / "out", batch=4)
    content["sft"] |= {"learning_rate": float("inf"), "max_steps": 2}
    with pytest.raises(UserError, match="the loss is nan at step 1: the batch's RNAs are listed in"):
        train(content, tmp_path / "recipe.yaml")
    told = json.loads((tmp_path / "out.work" / "not_finite.json").read_text())
    assert told["step"] == 1 and len(told["rna_ids"]) == 4 and all(name.startswith("rna") for name in told["rna_ids"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "warm_up"), [("paper_stage1", 2048), ("paper_stage2", 200)])
def test_the_papers_learning_rates_step_by_step(name, warm_up):
    """Appendix A: from 1e-6 up to 1e-4 in a straight line, then half a cosine down to 8e-5."""
    from transformers import get_scheduler

    content = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    sft = content.sft
    assert (sft["per_device_train_batch_size"], sft["num_train_epochs"], sft["weight_decay"]) == (1, 10, 0.05)
    assert (sft["adam_beta1"], sft["adam_beta2"], sft["warmup_steps"], sft["bf16"]) == (0.9, 0.98, warm_up, True)
    assert content.data.pairs_per_sample == 1 or content.stage == "alignment"
    total = 50_000
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=sft["learning_rate"])
    scheduler = get_scheduler(
        sft["lr_scheduler_type"], optimizer, sft["warmup_steps"], total, sft["lr_scheduler_kwargs"]
    )
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    for step in range(total):
        if step < warm_up:
            expected = 1e-6 + (1e-4 - 1e-6) * step / (warm_up - 1)
        else:
            progress = (step - warm_up + 1) / (total - warm_up)
            expected = 8e-5 + (1e-4 - 8e-5) * (1 + math.cos(math.pi * progress)) / 2
        assert rates[step] == pytest.approx(expected, rel=1e-9), step
    assert rates[0] == pytest.approx(1e-6) and max(rates) == pytest.approx(1e-4) and rates[-1] == pytest.approx(8e-5)
