"""Checkpoints that leave the LLM out: projector-only and adapter-only artefacts, merging, and the true size.

pytest tests/checkpoints/test_build_checkpoint_parts.py
"""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, EsmConfig, EsmModel, LlamaConfig, LlamaForCausalLM

from modeling_rnagpt import RnaGptConfig, RnaGptForCausalLM, RnaGptModel
from modeling_rnagpt.configuration_rnagpt import RNA_FM
from rnagpt.checkpoints import checkpoint
from rnagpt.training.trainer import LORA_TARGETS
from rnagpt_core.errors import UserError

LLAMA_3_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}


def ask(processor, rna="ACGUACGUACGG"):
    return processor([{"role": "user", "content": [{"type": "rna", "rna": rna}, {"type": "text", "text": "Type?"}]}])


def test_llama_3_8b_with_rna_fm_on_the_meta_device():
    with torch.device("meta"):
        model = RnaGptForCausalLM(RnaGptConfig(text_config=LlamaConfig(**LLAMA_3_8B)))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in checkpoint.parts_of(model).items()}
    assert counts == {"encoder": 99_110_001, "projector": 2_625_536, "llm": 8_030_261_248}
    assert sum(p.numel() for p in model.parameters()) == 8_131_996_785


@pytest.fixture(scope="module")
def sources(tiny_model, tmp_path_factory):
    """The tiny model's LLM and encoder as folders of their own: {"llm": ..., "encoder": ...}. Read only."""
    model, _ = tiny_model
    folder = tmp_path_factory.mktemp("sources")
    llm = LlamaForCausalLM(copy.deepcopy(model.config.text_config))
    llm.model.load_state_dict(model.model.language_model.state_dict())
    llm.lm_head.load_state_dict(model.lm_head.state_dict())
    llm.save_pretrained(folder / "llm")
    model.model.rna_encoder.save_pretrained(folder / "encoder")
    return {"llm": str(folder / "llm"), "encoder": str(folder / "encoder")}


# --- projector only


@torch.no_grad()
def test_a_projector_alone_loads_in_one_from_pretrained(tiny_model, sources, tmp_path):
    model, processor = tiny_model
    checkpoint.save(model, processor, tmp_path / "projector", weights_from=sources, dtype="float32")
    assert model.config.weights_from is None  # the model in memory is as it was
    stored = load_file(tmp_path / "projector" / "model.safetensors")
    assert set(stored) == {"model.projector.weight", "model.projector.bias"}
    batch, expected = ask(processor), model(**ask(processor))
    for cls in (AutoModelForCausalLM, RnaGptForCausalLM):
        loaded = cls.from_pretrained(tmp_path / "projector")
        assert torch.equal(loaded(**batch).logits, expected.logits)
        assert loaded.config.weights_from is None and not loaded.training
    for cls in (AutoModel, RnaGptModel):
        body = cls.from_pretrained(tmp_path / "projector")
        assert isinstance(body, RnaGptModel)
        assert torch.equal(loaded.lm_head(body(**batch).last_hidden_state), expected.logits)
    # what came of it is a whole model: it saves whole, and loads without its sources
    checkpoint.save(loaded, processor, tmp_path / "whole")
    whole, _ = checkpoint.load(tmp_path / "whole")
    assert whole.config.weights_from is None
    assert torch.equal(whole(**batch).logits, expected.logits)


@torch.no_grad()
def test_its_own_settings_and_the_llms_dtype_are_kept(tiny_model, sources, tmp_path):
    model, processor = copy.deepcopy(tiny_model[0]), copy.deepcopy(tiny_model[1])
    model.config.rna_pool_size = processor.rna_pool_size = 4
    checkpoint.save(model, processor, tmp_path / "projector", weights_from=sources, dtype="float32")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "projector", dtype=torch.bfloat16)
    assert (loaded.config.rna_pool_size, loaded.config.rna_token_id) == (4, processor.rna_token_id)
    assert {p.dtype for p in loaded.model.language_model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.model.rna_encoder.parameters()} == {torch.float32}
    assert loaded.model.projector.weight.dtype == torch.float32
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "projector", dtype=torch.float32)
    assert torch.equal(full(**ask(processor)).logits, model(**ask(processor)).logits)


def test_a_projector_for_llama_3_8b_takes_five_megabytes(tiny_model, tmp_path):
    """The projector of the true size between one layer of RNA-FM's width and one of Llama-3-8B's."""
    _, processor = tiny_model
    small = {"num_hidden_layers": 1, "intermediate_size": 16}
    encoder = EsmModel(EsmConfig(**{**RNA_FM, **small}), add_pooling_layer=False)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8}
    llm = LlamaForCausalLM(LlamaConfig(**{**LLAMA_3_8B, **small, **heads, "vocab_size": 400}))
    model = RnaGptForCausalLM.from_encoder_and_llm(encoder, llm, rna_token_id=processor.rna_token_id)
    encoder.save_pretrained(tmp_path / "encoder")
    llm.save_pretrained(tmp_path / "llm")
    sources = {"llm": str(tmp_path / "llm"), "encoder": str(tmp_path / "encoder")}
    checkpoint.save(model, processor, tmp_path / "projector", weights_from=sources)
    size = sum(path.stat().st_size for path in (tmp_path / "projector").rglob("*") if path.is_file())
    assert 5_251_072 < size < 5_500_000  # 2 x 2,625,536 bytes and the text files
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "projector")
    rounded = model.model.projector.weight.half().float()
    assert torch.equal(loaded.model.projector.weight, rounded)


def test_a_projector_without_its_sources_is_refused(tiny_model, sources, tmp_path):
    model, processor = tiny_model
    with pytest.raises(UserError, match="wrong or missing: encoder"):
        checkpoint.save(model, processor, tmp_path / "projector", weights_from={"llm": sources["llm"]})
    gone = {**sources, "llm": str(tmp_path / "gone")}
    checkpoint.save(model, processor, tmp_path / "projector", weights_from=gone)
    with pytest.raises((OSError, ValueError), match="gone"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "projector")


def test_a_whole_checkpoint_is_not_taken_for_a_projector(tiny_model, sources, tiny_checkpoint, tmp_path):
    import shutil

    shutil.copytree(tiny_checkpoint, tmp_path / "mixed")
    path = tmp_path / "mixed" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights_from": sources}))
    with pytest.raises(OSError, match="should hold a projector alone"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "mixed")


# --- adapter only


def adapted(model, dtype=torch.float32) -> PeftModel:
    """LoRA on a copy, with B drawn and the projector moved, as after training."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=LORA_TARGETS, modules_to_save=["projector"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        peft = get_peft_model(copy.deepcopy(model).to(dtype), lora)
        for name, parameter in peft.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.data.normal_(std=0.1)
    return peft.eval()


@torch.no_grad()
@pytest.mark.parametrize("form", ["whole", "projector"])
def test_an_adapter_alone_loads_by_its_own_name(tiny_model, tiny_checkpoint, sources, tmp_path, form):
    model, processor = tiny_model
    base = tiny_checkpoint
    if form == "projector":
        base = tmp_path / "projector"
        checkpoint.save(model, processor, base, weights_from=sources, dtype="float32")
    peft = adapted(model)
    checkpoint.save(peft, processor, tmp_path / "adapter", base=str(base))
    names = {path.name for path in (tmp_path / "adapter").glob("*")}
    assert "config.json" not in names and "model.safetensors" not in names
    assert not [name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "embed" in name]
    batch = ask(processor)
    expected = peft(**batch).logits
    assert (expected - model(**batch).logits).abs().max() > 1e-2
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")(**batch).logits, expected)
    assert torch.equal(checkpoint.load(tmp_path / "adapter")[0](**batch).logits, expected)
    joined = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    assert torch.equal(joined(**batch).logits, expected)


def test_an_adapter_that_names_no_base_is_refused(tiny_model, tmp_path):
    """As PEFT writes it for a model built in memory, and a trainer in the middle of training."""
    adapted(tiny_model[0]).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="does not say which RNA-GPT it belongs to"):
        checkpoint.load(tmp_path / "adapter")
    with pytest.raises(OSError, match="does not say which RNA-GPT it belongs to"):
        RnaGptForCausalLM.from_pretrained(tmp_path / "adapter")


@torch.no_grad()
def test_merge_is_exact(tiny_model):
    model, processor = tiny_model
    batch = ask(processor)
    peft = adapted(model, torch.float64)
    expected = peft(**batch).logits
    merged = peft.merge_and_unload(safe_merge=True)
    assert not [name for name, _ in merged.named_modules() if "lora" in name]
    assert (merged(**batch).logits - expected).abs().max() <= 1e-12 * expected.abs().max()
    single = adapted(model)
    expected = single(**batch).logits
    assert (single.merge_and_unload(safe_merge=True)(**batch).logits - expected).abs().max() <= 1e-4
