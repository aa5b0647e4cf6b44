"""Both stages over an LLM in 4 and 8 bits (QLoRA), on the CPU kernels of bitsandbytes."""

import copy

import bitsandbytes
import pytest
import torch
import yaml
from test_training import recipe, train

from rnagpt.checkpoints import checkpoint
from rnagpt.checkpoints.llm import fingerprint, load_llm
from rnagpt.training.recipe import load_recipe, recipe_from
from rnagpt_core.errors import UserError

LAYERS = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}


@pytest.fixture(scope="module")
def wide_parts(tiny_parts, tmp_path_factory):
    """The tiny encoder, and an LLM wide enough for blocks of 64 weights."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("wide")
    (folder / "encoder").symlink_to(tiny_parts / "encoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_parts / "llm")
    tokenizer.save_pretrained(folder / "llm")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llm")
    return folder


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_both_stages_over_quantised_weights(wide_parts, tmp_path, monkeypatch, quantize):
    from rnagpt.training import trainer as training

    seen = []
    created = training.RnaGptTrainer.create_optimizer

    def watched(self, *args, **kwargs):
        model = self.accelerator.unwrap_model(self.model)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        frozen = {n: copy.deepcopy(p.data) for n, p in model.named_parameters() if not p.requires_grad}
        seen.append((model, base, frozen))
        return created(self, *args, **kwargs)

    monkeypatch.setattr(training.RnaGptTrainer, "create_optimizer", watched)
    for stage, name, start_from in (("alignment", "one", None), ("instruction", "two", str(tmp_path / "one"))):
        content = recipe(wide_parts, tmp_path / name, stage, start_from=start_from)
        content["model"]["quantize"] = quantize
        content["sft"] |= {"max_steps": 3, "bf16": False}
        train(content, tmp_path / f"{name}.yaml")
        model, base, frozen = seen[-1]
        layers = [m for m in base.model.language_model.modules() if isinstance(m, LAYERS[quantize])]
        assert len(layers) == 14  # seven matrices in each of two layers
        assert not any(isinstance(m, LAYERS[quantize]) for m in base.model.rna_encoder.modules())
        assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if "projector" in n)
        assert all(torch.equal(p.data, frozen[n]) for n, p in model.named_parameters() if n in frozen)
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        assert any("projector" in n for n in trained) and any("lora_" in n for n in trained) == (stage != "alignment")

    # the adapter is joined to the full LLM, where its answers are those of the quantised one but for the rounding
    joined, processor = checkpoint.load(tmp_path / "two")
    assert not any(isinstance(m, LAYERS[quantize]) for m in joined.modules())
    batch = processor("<RNAHere>What is it?", rna="ACGGUUACGU" * 3)
    with torch.no_grad():
        one, other = (m.eval()(**batch).logits.float().flatten() for m in (joined, model))
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.98


def test_a_fingerprint_is_the_same_however_the_llm_was_loaded(wide_parts):
    name = str(wide_parts / "llm")
    prints = [fingerprint(load_llm(name, dtype)[0].base_model) for dtype in ("float32", "bfloat16")]
    assert prints[0] == prints[1]
    assert fingerprint(load_llm(name, "float32", "4bit")[0].base_model) is None
    other = load_llm(name, "float32")[0]
    torch.nn.init.normal_(other.model.layers[0].self_attn.q_proj.weight)
    assert fingerprint(other.base_model) != prints[0]


def test_wrong_quantisation_is_refused(wide_parts, tmp_path, monkeypatch):
    content = recipe(wide_parts, tmp_path / "out", "instruction")
    content["model"]["quantize"] = "3bit"
    with pytest.raises(UserError, match="'model.quantize' must be '4bit' or '8bit', got '3bit'"):
        recipe_from(content)
    with pytest.raises(UserError, match="cannot be quantised again"):
        load_llm("some.gguf", "float32", "4bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="4bit weights need the package bitsandbytes"):
        load_llm(str(wide_parts / "llm"), "float32", "4bit")


def test_the_plan_counts_quantised_weights(wide_parts, tmp_path):
    from rnagpt.training import plan

    memory = {}
    for quantize in (None, "8bit", "4bit"):
        content = recipe(wide_parts, tmp_path / "out", "instruction")
        content["model"]["quantize"] = quantize
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        memory[quantize] = plan.make_plan(load_recipe(tmp_path / "recipe.yaml")).memory["LLM weights"]
    assert memory["4bit"] < memory["8bit"] < memory[None]
