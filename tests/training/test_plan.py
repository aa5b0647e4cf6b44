"""The planner's figures against what a run really does."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import yaml
from test_training import recipe

from rnagpt.cli import main
from rnagpt.training import plan
from rnagpt.training.recipe import load_recipe
from rnagpt_core.errors import UserError


@pytest.fixture(scope="module", params=["alignment", "instruction"])
def planned(request, tiny_parts, tmp_path_factory):
    """A recipe, its plan, and the real model, collator and rows that it is about."""
    from peft import LoraConfig, get_peft_model

    from processing_rnagpt.collator import SharedPrefixCollator
    from rnagpt.checkpoints import checkpoint
    from rnagpt.training import trainer as training
    from rnagpt.training.training_rows import load_rows

    path = tmp_path_factory.mktemp("plan") / "recipe.yaml"
    content = recipe(tiny_parts, path.parent / "out", request.param)
    content["sft"]["activation_checkpointing"] = False
    content["data"]["samples"] = 8
    path.write_text(yaml.safe_dump(content))
    content = load_recipe(path)
    figures = plan.make_plan(content)
    model, processor = checkpoint.build(str(tiny_parts / "llm"), str(tiny_parts / "encoder"), 8, "chatml")
    # torch counts no FLOPs of the attention kernel that it takes on a CPU, but it does those of the matrix products
    model.set_attn_implementation("eager")
    if request.param == "alignment":
        training.freeze_all_but_projector(model)
    else:
        model.requires_grad_(False)
        lora = LoraConfig(target_modules=training.LORA_TARGETS, modules_to_save=["projector"], **content.lora)
        model = get_peft_model(model, lora)
    return content, figures, model, SharedPrefixCollator(processor), load_rows(content).train


def test_no_weight_is_read_for_a_plan(planned):
    skeleton, _ = plan.skeleton(planned[0])
    assert all(parameter.is_meta for parameter in skeleton.parameters())


def test_parameters_are_those_of_the_model_that_trains(planned):
    _, figures, model, _, _ = planned
    assert figures.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    own = [p for name, p in model.named_parameters() if "lora_" not in name and "original_module" not in name]
    assert figures.total == sum(p.numel() for p in own)


def test_pairs_tokens_and_steps_are_those_of_an_epoch(planned):
    content, figures, _, collator, rows = planned
    separate = sum(len(pair.input_ids) for row in rows for pair in collator.encode_pairs(row)[0])
    assert figures.separate.tokens == pytest.approx(separate)  # one pair per sequence: no padding
    assert figures.as_run.pairs == figures.separate.pairs == sum(len(row["pairs"]) for row in rows)
    assert figures.steps == 8 / content.sft["per_device_train_batch_size"]
    shared = sum((collator([row])["loss_weights"].shape[1]) for row in rows)
    assert figures.as_run.tokens >= shared  # and padding


def test_batches_by_token_budget_are_counted(planned, tmp_path):
    from rnagpt.training.training_rows import fill_batches

    content, _, _, collator, rows = planned
    sft = {**content.sft, "per_device_train_batch_size": 1}
    figures = plan.make_plan(dataclasses.replace(content, token_budget=400, sft=sft))
    assert figures.steps == len(fill_batches(collator, rows, 400, seed=0)) > 1


def test_flops_are_near_those_that_torch_counts(planned):
    """Counted by torch over every pair of an epoch; the plan leaves out norms and activations."""
    from torch.utils.flop_counter import FlopCounterMode

    content, figures, model, collator, rows = planned
    model.train()
    counted = 0
    for row in rows:
        for pair in row["pairs"]:
            batch = collator([{**row, "pairs": [pair]}])
            labels = batch.pop("labels")[:, 1:]
            batch.pop("loss_weights")
            answers = labels != -100
            with FlopCounterMode(display=False) as step:
                logits = model(**batch, logits_to_keep=F.pad(answers, (0, 1)), use_cache=False).logits
                F.cross_entropy(logits.float(), labels[answers]).backward()
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            names = {key: batch[key] for key in batch if key.startswith("rna_")}
            with FlopCounterMode(display=False) as features, torch.no_grad():
                base.model.encode_rna(**names)
            counted += step.get_total_flops() - features.get_total_flops()
    expected = plan.epoch_flops(plan.skeleton(content)[0], figures.trainable, figures.separate)
    assert expected == pytest.approx(counted, rel=0.1)


def test_an_unknown_gpu_and_no_device_are_refused(tiny_parts, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tiny_parts, tmp_path / "out")))
    assert main(["train", "--recipe", str(path), "--plan", "--gpu", "tpu"]) == 2
    assert "--gpu tpu is not known: choose one of a100-40gb" in capsys.readouterr().err
    with pytest.raises(UserError, match="--devices must be at least 1, got 0"):
        plan.make_plan(load_recipe(path), devices=0)


def test_the_plan_says_what_it_counts(planned):
    _, figures, _, _, _ = planned
    text = "\n".join(plan.lines(figures, "l4-24gb", 2))
    assert f"{figures.trainable:,} (" in text and "2 x l4-24gb" in text and "of 24 GB" in text


def test_a_recipe_of_true_size_is_planned_without_its_weights(tmp_path, tiny_parts, capsys):
    """Llama-3-8B's shape and RNA-FM's: the published parameter counts."""
    from transformers import AutoTokenizer, LlamaConfig

    AutoTokenizer.from_pretrained(tiny_parts / "llm").save_pretrained(tmp_path / "llm")
    LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path / "llm")
    content = recipe(tiny_parts, tmp_path / "out", "instruction", lora={"r": 16})
    content["model"] |= {"llm": str(tmp_path / "llm"), "encoder": "config:rna-fm"}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["train", "--recipe", str(path), "--plan"]) == 0
    said = capsys.readouterr().out
    # 8,030,261,248: Llama-3-8B. LoRA r = 16 on its seven matrices: 41,943,040; projector 640 x 4,096 + 4,096
    assert "LLM 8,030,261,248" in said and f"trainable    {41_943_040 + 2_625_536:,}" in said
    assert not (tmp_path / "out").exists()
