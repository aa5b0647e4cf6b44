"""Tiny random LLMs of many families, by the families' own classes and configurations, each with a tokenizer.

    family = FAMILIES["gemma2"]
    llm, tokenizer = build(family)

Widths of 64, a window shorter than the tests' rows where a family has one, random weights large enough to matter.
"""

from dataclasses import dataclass, field
from functools import cache

SENTENCES = [
    "What type of RNA is this?",
    "This RNA is a transfer RNA (tRNA). It carries an amino acid to the ribosome.",
    "Which organism is it from? It is from yeast, a fungus.",
    "user\nassistant\nsystem\n<RNA></RNA>\n",
] * 3
WINDOW = 8

CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
LLAMA3 = (
    "{{ bos_token }}{%- for m in messages -%}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class Family:
    """One family: the names of its classes, what its configuration has beside the sizes, and its tokenizer's form.

    Attributes:
        name: of the family, as transformers' `model_type` has it.
        config: further or other fields of its configuration.
        sizes: names of its fields for width, layers and heads; {} where `config` says them all.
        pad: whether its tokenizer has a pad token.
        template: its chat template.
    """

    name: str
    config: dict = field(default_factory=dict)
    sizes: bool = True
    pad: bool = True
    template: str = CHATML


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
KINDS = ["sliding_attention", "full_attention"] * 2
FALCON = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MAMBA = {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
MAMBA_2 = {**MAMBA, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 16}
NEXT = {
    **{"num_hidden_layers": 4, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
    **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
}

FAMILIES = {
    "llama2": Family("llama", pad=False),
    "llama3": Family("llama", pad=False, template=LLAMA3),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3", {"head_dim": 16}),
    "gemma": Family("gemma", {"head_dim": 16}),
    "gemma2": Family("gemma2", {"head_dim": 16, "num_hidden_layers": 4, "sliding_window": WINDOW}),
    "gemma3_text": Family(
        "gemma3_text",
        {"head_dim": 16, "num_hidden_layers": 4, "sliding_window": WINDOW, "layer_types": KINDS},
    ),
    "mistral": Family("mistral", {"sliding_window": WINDOW, "head_dim": 16}, pad=False),
    "mixtral": Family("mixtral", EXPERTS),
    "phi": Family("phi"),
    "phi3": Family("phi3", {"pad_token_id": 0}),
    "granite": Family("granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.2}),
    "cohere": Family("cohere", {"logit_scale": 0.0625}),
    "smollm3": Family("smollm3", {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "pad_token_id": 0}),
    "gpt2": Family("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}, sizes=False, pad=False),
    "opt": Family("opt", {**SIZES, "ffn_dim": 96, "word_embed_proj_dim": 32}),
    "gpt_neox": Family("gpt_neox", SIZES),
    "bloom": Family("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}, sizes=False),
    "falcon": Family("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, sizes=False),
    "falcon_alibi": Family("falcon", {**FALCON, "alibi": True}, sizes=False),
    "olmo": Family("olmo"),
    "olmo2": Family("olmo2"),
    "lfm2": Family("lfm2", {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2}),
    "qwen3_next": Family("qwen3_next", NEXT),
    "mamba": Family("mamba", MAMBA, sizes=False),
    "mamba2": Family("mamba2", MAMBA_2, sizes=False),
    "stablelm": Family("stablelm"),
    "starcoder2": Family("starcoder2", {"sliding_window": WINDOW}),
    "mpt": Family("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}, sizes=False),
    "gpt_oss": Family(
        "gpt_oss",
        {"num_hidden_layers": 4, "head_dim": 16, "sliding_window": WINDOW, "layer_types": KINDS, **EXPERTS},
    ),
}


@cache
def tokenizer_backend() -> str:
    """A byte-level BPE of 500 tokens, as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin|>", "<pad>"]
    special += ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend.to_str()


def build(family: Family, seed: int = 0, **fields):
    """(causal LM in fp32, eval; tokenizer) of a family; `fields` are put into its configuration too."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    end = "<|eot_id|>" if family.template is LLAMA3 else "<|im_end|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_backend()),
        bos_token="<|begin|>",
        eos_token=end,
        **({"pad_token": "<pad>"} if family.pad else {}),
    )
    tokenizer.chat_template = family.template
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    settings = {**(SIZES if family.sizes else {}), **ids, "vocab_size": len(tokenizer), "initializer_range": 0.2}
    settings["pad_token_id"] = tokenizer.pad_token_id
    config = AutoConfig.for_model(family.name, **{**settings, **family.config, **fields})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # also what a family begins at zero or one: a bias that is nought would hide that it is left out
        for parameter in llm.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return llm.eval(), tokenizer
