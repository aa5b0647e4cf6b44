"""A tiny random twin of an LLM: its family's own class, with its kinds of layers, a short window and few of all else.

What is exact for the twin is exact for the LLM: masks, caches and heads follow from kinds of layers, not from sizes.
"""

import copy

WINDOW = 6
MOST_PARAMETERS = 50_000_000  # a twin that could not be made smaller than this is not made
# sizes that transformers' families name, and what a twin has
FEWER = {
    **{"intermediate_size": 64, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "ffn_dim": 64},
    **{"num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4},
    **{"num_experts_per_tok": 2, "max_position_embeddings": 256, "n_positions": 256},
}


def twin_of(text_config, seed: int = 0):
    """A causal LM (fp32, eval) of the same family, or None where none can be made small.

    Args:
        text_config: the LLM's configuration; it stays as it is.
    """
    import torch
    from transformers import AutoModelForCausalLM

    for shrink in (narrow, lambda config: config):
        try:
            config = shrink(shallow(text_config))
            with torch.device("meta"):
                size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
            if size > MOST_PARAMETERS:
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
                for parameter in llm.parameters():  # also those that begin at zero
                    parameter.data += 0.05 * torch.randn_like(parameter)
                llm(input_ids=torch.arange(3, 12)[None])
            return llm
        except Exception:  # noqa: BLE001  sizes that a family does not allow raise anything
            continue
    return None


def shallow(text_config):
    """A copy with one layer of each kind, at least two, a small vocabulary and a short window."""
    config = copy.deepcopy(text_config)
    config._attn_implementation = "eager"
    layers = config.num_hidden_layers
    kinds = list(getattr(config, "layer_types", None) or [])
    kept = max([2, *(kinds.index(kind) + 1 for kind in set(kinds))])
    names = [name for name, value in vars(config).items() if isinstance(value, list) and len(value) == layers]
    for name in names:
        setattr(config, name, getattr(config, name)[:kept])
    config.num_hidden_layers = min(kept, layers)
    config.vocab_size = 64
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, 0)
    if getattr(config, "sliding_window", None):
        config.sliding_window = WINDOW
    if getattr(config, "attention_chunk_size", None):
        config.attention_chunk_size = WINDOW
    config.quantization_config = None
    return config


def narrow(config):
    """Fewer heads of 16, fewer experts; the ratio of heads to keys' heads stays above one where it was."""
    for name, most in FEWER.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, min(getattr(config, name), most))
    heads = config.num_attention_heads if hasattr(config, "num_attention_heads") else None
    if not heads:
        return config
    keys = getattr(config, "num_key_value_heads", None) or heads
    few = 1 if keys == 1 else 2
    config.num_attention_heads = few if keys == heads else 2 * few
    if getattr(config, "num_key_value_heads", None):
        config.num_key_value_heads = few
    if getattr(config, "head_dim", None):
        config.head_dim = 16
    config.hidden_size = 16 * config.num_attention_heads
    if getattr(config, "word_embed_proj_dim", None):
        config.word_embed_proj_dim = config.hidden_size
    return config
