"""What training tools need of the model: checkpointing, placement, precision, quantisation, adapters, sharding."""

import copy

import pytest
import torch
from test_model import ask

from modeling_rnagpt import RnaGptForCausalLM

RNAS = ["ACGUACGUACGGGUUUAC", "ACGUUGCAGGCU" * 12, "ACG"]
LORA = {"target_modules": r".*language_model\..*\.(q_proj|v_proj|down_proj)", "modules_to_save": ["projector"]}


def batch_of(processor) -> dict:
    batch = dict(processor([ask(rna) for rna in RNAS]))
    hidden = (batch["input_ids"] == processor.rna_token_id) | (batch["attention_mask"] == 0)
    return {**batch, "labels": batch["input_ids"].masked_fill(hidden, -100)}


def real_logits(model, batch) -> torch.Tensor:
    """Logits at real tokens; those at padding are nobody's."""
    return model(**batch).logits[batch["attention_mask"].bool()]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, use_reentrant):
    model, batch = copy.deepcopy(tiny_model[0]).requires_grad_(True), batch_of(tiny_model[1])

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.train()
    expected = gradients()
    assert {"model.projector.weight", "model.rna_encoder.encoder.layer.0.attention.self.query.weight"} <= set(expected)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = count_calls(model.model.language_model.layers[0].mlp)
    if use_reentrant:  # which needs an input with a gradient, as peft and the trainer arrange it
        model.enable_input_require_grads()
    got = gradients()
    assert len(calls) == 2  # run again in the backward pass: checkpointing was on
    for name in expected:
        if use_reentrant and "rna_encoder" in name:
            continue  # its input, token ids, carries no gradient: frozen encoders only
        assert torch.allclose(got[name], expected[name], atol=1e-6), name


def count_calls(module: torch.nn.Module) -> list:
    calls = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_a_frozen_encoder_and_llm_leave_gradients_to_the_projector_alone(tiny_model):
    model = copy.deepcopy(tiny_model[0]).train()
    model.requires_grad_(False)
    model.model.projector.requires_grad_(True)
    model.gradient_checkpointing_enable()
    model(**batch_of(tiny_model[1]), use_cache=False).loss.backward()
    assert model.model.projector.weight.grad.abs().max() > 0
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "model.projector.weight",
        "model.projector.bias",
    ]


# --- placement


def test_pieces_that_stay_whole_are_classes_of_this_model(tiny_model):
    model = tiny_model[0]
    for part in (model, model.model):
        assert part._no_split_modules == {"EsmLayer", "EsmEmbeddings", "LlamaDecoderLayer"}


@torch.no_grad()
def test_a_device_map_may_cut_anywhere_but_inside_a_layer(tiny_model, tiny_checkpoint):
    from accelerate import infer_auto_device_map

    model, processor = tiny_model
    total = sum(p.numel() * 4 for p in model.parameters())
    device_map = infer_auto_device_map(
        model, max_memory={0: total // 3, "cpu": total}, no_split_module_classes=list(model._no_split_modules)
    )
    assert set(device_map.values()) == {0, "cpu"}
    layers = [name for name, module in model.named_modules() if type(module).__name__ in model._no_split_modules]
    assert not [part for part in device_map for layer in layers if part.startswith(f"{layer}.")]


@torch.no_grad()
@pytest.mark.parametrize(
    "device_map",
    [
        "auto",
        {"": "cpu"},
        {"model.rna_encoder": "cpu", "model.projector": "cpu", "model.language_model": "disk", "lm_head": "cpu"},
        {"model.rna_encoder": "disk", "model.projector": "disk", "model.language_model": "cpu", "lm_head": "cpu"},
    ],
    ids=["auto", "cpu", "LLM on disk", "encoder on disk"],
)
def test_placed_by_a_device_map_it_computes_the_same(tiny_model, tiny_checkpoint, tmp_path, device_map):
    model, processor = tiny_model
    placed = RnaGptForCausalLM.from_pretrained(tiny_checkpoint, device_map=device_map, offload_folder=tmp_path)
    batch = batch_of(processor)
    assert torch.equal(real_logits(placed, batch), real_logits(model, batch))
    prompt = processor(ask(RNAS[0]))
    kwargs = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(placed.generate(**prompt, **kwargs), model.generate(**prompt, **kwargs))


# --- precision


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_auto_is_what_was_saved_and_half_keeps_encoder_and_projector_whole(tiny_model, tmp_path, dtype):
    model, processor = tiny_model
    copy.deepcopy(model).to(dtype).save_pretrained(tmp_path)
    again = RnaGptForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert again.lm_head.weight.dtype == dtype
    assert again.model.projector.weight.dtype == torch.float32
    assert {p.dtype for p in again.model.rna_encoder.parameters()} == {torch.float32}
    batch = batch_of(processor)
    expected = real_logits(model, batch).log_softmax(-1)
    got = real_logits(again, batch).float().log_softmax(-1)
    allowed = {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.5}[dtype]
    assert (got - expected).abs().max() < allowed


@pytest.fixture(scope="module")
def wide_model(tiny_model):
    """The tiny model with an LLM of 64 dimensions: bitsandbytes packs weights in blocks of 64."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model, processor = tiny_model
    torch.manual_seed(0)
    config = {**model.config.text_config.to_dict(), "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    llm = LlamaForCausalLM(LlamaConfig(**config)).eval()
    encoder = copy.deepcopy(model.model.rna_encoder)
    return RnaGptForCausalLM.from_encoder_and_llm(encoder, llm, rna_token_id=processor.rna_token_id), processor


@torch.no_grad()
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("skip", [None, ["lm_head"]], ids=["no skip list", "a skip list of one's own"])
def test_bitsandbytes_leaves_encoder_and_projector_out(wide_model, tmp_path, bits, skip):
    import bitsandbytes
    from transformers import BitsAndBytesConfig

    model, processor = wide_model
    model.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        **{f"load_in_{bits}bit": True}, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=skip
    )
    quantized = RnaGptForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, device_map="cpu", dtype=torch.float32
    )
    kind = {4: bitsandbytes.nn.Linear4bit, 8: bitsandbytes.nn.Linear8bitLt}[bits]
    names = {name for name, module in quantized.named_modules() if isinstance(module, kind)}
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert names == {name for name in linears if name.startswith("model.language_model.layers.")}
    batch = batch_of(processor)
    inputs = [batch[f"rna_{name}"] for name in ("input_ids", "attention_mask", "index")]
    assert torch.equal(quantized.model.get_rna_features(*inputs), model.model.get_rna_features(*inputs))
    # the same model with the quantised weights written out again
    written_out = copy.deepcopy(model)
    for name in names:
        weight = quantized.get_submodule(name).weight
        if bits == 4:
            full = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        else:
            full = weight.data.float() * weight.SCB[:, None] / 127
        written_out.get_submodule(name).weight.copy_(full)
    one, other = real_logits(quantized, batch).flatten(), real_logits(written_out, batch).flatten()
    assert torch.corrcoef(torch.stack([one, other]))[0, 1] > {4: 0.999, 8: 0.99}[bits]


# --- adapters


@pytest.fixture
def adapted(tiny_model):
    """A PeftModel whose adapter and projector copy have been moved away from their start."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(tiny_model[0]), LoraConfig(r=4, **LORA)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def test_an_adapter_merges_and_unloads_exactly(tiny_model, adapted):
    model, batch = tiny_model[0], batch_of(tiny_model[1])
    trained = real_logits(adapted, batch)
    assert (trained - real_logits(model, batch)).abs().max() > 0.1
    merged = copy.deepcopy(adapted).merge_and_unload(safe_merge=True)
    assert type(merged) is RnaGptForCausalLM
    assert (real_logits(merged, batch) - trained).abs().max() < 1e-4
    with adapted.disable_adapter():
        assert torch.equal(real_logits(adapted, batch), real_logits(model, batch))
    unloaded = adapted.unload()
    for name, tensor in model.model.language_model.state_dict().items():
        assert torch.equal(unloaded.model.language_model.state_dict()[name], tensor), name


@torch.no_grad()
def test_an_adapters_file_holds_adapter_and_projector_and_loads_exactly(tiny_model, adapted, tmp_path):
    from peft import PeftModel
    from safetensors import safe_open

    adapted.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name.rsplit(".", 2)[-2] for name in names} == {"lora_A", "lora_B", "projector"}
    assert all(".rna_encoder." not in name for name in names)
    again = PeftModel.from_pretrained(copy.deepcopy(tiny_model[0]), tmp_path).eval()
    batch = batch_of(tiny_model[1])
    assert torch.equal(real_logits(again, batch), real_logits(adapted, batch))


# --- sharding


def test_accelerates_fsdp_wraps_the_layers_of_both(tiny_model):
    """Names that the model lacks (EsmModel lists its folding blocks too) would be an error here."""
    from accelerate import FullyShardedDataParallelPlugin

    model = tiny_model[0]
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    plugin.set_auto_wrap_policy(model)
    wrapped = {kind.__name__ for kind in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]}
    assert wrapped == {"EsmLayer", "EsmEmbeddings", "LlamaDecoderLayer"}


def test_sharded_by_fsdp_it_gives_the_same_loss_and_gradients(tiny_model, tmp_path):
    """In one process over gloo: the wrapping and its hooks are those of any number of processes."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    model, batch = copy.deepcopy(tiny_model[0]).train(), batch_of(tiny_model[1])
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        for module in [m for m in model.modules() if type(m).__name__ in model._no_split_modules]:
            fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        sharded = model(**batch, use_cache=False).loss
        sharded.backward()
        assert torch.allclose(sharded, loss, atol=1e-6)
        for name, p in model.named_parameters():
            if name in expected:
                assert torch.allclose(p.grad.full_tensor(), expected[name], atol=1e-6), name
    finally:
        dist.destroy_process_group()
