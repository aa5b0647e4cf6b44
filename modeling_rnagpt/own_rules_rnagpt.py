"""The LLM's own rules (ships with every checkpoint): its family's causal class runs body and head, not ours.

A family scales its logits, caps them, gives its head a bias, names its cache otherwise. The class that transformers
has for it is built once without weights, and RNA-GPT's body and head are put into it: `forward` is the family's own,
bit for bit, while every weight stays where RNA-GPT's checkpoints have it.
"""

import inspect

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_utils import slice_logits_to_keep


class OwnRules:
    """A family's causal class around the body and head of an RNA-GPT.

    No `nn.Module`, and so no part of the RNA-GPT that holds it: its weights are named, saved, moved and counted once.

    Args:
        text_config: the LLM's configuration.

    Raises:
        ValueError: the family has no causal class with a linear head, or keeps weights outside its body and head.
    """

    def __init__(self, text_config):
        with torch.device("meta"):
            self.shell: PreTrainedModel = AutoModelForCausalLM.from_config(text_config)
        family, head = text_config.model_type, self.shell.get_output_embeddings()
        body_name = self.shell.base_model_prefix
        if not isinstance(head, nn.Linear) or not isinstance(getattr(self.shell, body_name, None), nn.Module):
            raise ValueError(f"{family} is no causal LM with a body and a linear head, which RNA-GPT needs")
        self.head_name = next(name for name, module in self.shell.named_modules() if module is head)
        self.body_name = body_name
        own = (body_name + ".", self.head_name + ".")
        others = [name for name, _ in self.shell.named_parameters() if not name.startswith(own)]
        others += [name for name, _ in self.shell.named_buffers() if not name.startswith(own)]
        if others or "." in self.head_name:
            raise ValueError(f"{family} keeps {(others or [self.head_name])[0]} outside its body and head")
        self.head_bias, self.head_width = head.bias is not None, head.in_features
        self.takes = parameters_of(self.shell)

    def link(self, body: nn.Module, head: nn.Module, training: bool) -> None:
        """Put in what stands in the RNA-GPT now: PEFT and FSDP may have put others there since."""
        if getattr(self.shell, self.body_name) is not body:
            setattr(self.shell, self.body_name, body)
            self.shell.config = body.config
        if getattr(self.shell, self.head_name) is not head:
            setattr(self.shell, self.head_name, head)
        if self.shell.training is not training:
            self.shell.training = training

    def __call__(self, inputs_embeds: torch.Tensor, logits_to_keep: int | torch.Tensor, **arguments):
        """The family's `forward` -> its output, the cache called past_key_values whatever the family calls it."""
        named = fitting(arguments, self.takes)
        selects = "logits_to_keep" in self.takes
        outputs = self.shell(
            inputs_embeds=inputs_embeds, **({"logits_to_keep": logits_to_keep} if selects else {}), **named
        )
        if not selects:
            outputs.logits = slice_logits_to_keep(outputs.logits, logits_to_keep)
        return outputs


def parameters_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the arguments of a module's `forward`; "**" among them where it takes any other too."""
    found = inspect.signature(module.forward).parameters.values()
    return tuple("**" if one.kind is inspect.Parameter.VAR_KEYWORD else one.name for one in found)


def fitting(arguments: dict, takes: tuple[str, ...]) -> dict:
    """Arguments by the names that `forward` has for them (`parameters_of`); without those that it could not take.

    Recurrent families call their cache cache_params, and have no positions.
    """
    arguments = dict(arguments)
    cache = arguments.pop("past_key_values", None)
    if cache is not None:
        arguments["past_key_values" if "past_key_values" in takes else "cache_params"] = cache
    return {k: value for k, value in arguments.items() if k in takes or ("**" in takes and value is not None)}


def cache_of(outputs) -> Cache | None:
    """The cache in a family's output, by either name."""
    return getattr(outputs, "past_key_values", None) or getattr(outputs, "cache_params", None)


def masks_by_kind(text_config, attention_mask, positions: torch.Tensor | None, key_positions=None):
    """A mask that says which token sees which, narrowed to what each kind of attention layer sees.

    A family makes its window's mask from a mask of padding, (batch, seq); one of (batch, 1, seq, keys) it takes as it
    stands, for every layer. Distances are counted in positions, as for sequences that stand alone: in a row of several
    they restart.

    Args:
        attention_mask: (batch, 1, seq, keys) float, 0 where seen; anything else is returned as it is.
        positions, key_positions: (batch, seq) and (batch, keys) int64; the keys' are the same when left out.

    Returns:
        One mask where all layers are of one kind, else kind of layer -> mask, as families with several take it.
    """
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.dim() != 4 or positions is None:
        return attention_mask
    if key_positions is None and attention_mask.shape[-1] != positions.shape[-1]:
        return attention_mask  # there are keys of earlier tokens, and whoever made the mask knew their positions
    window = getattr(text_config, "sliding_window", None)
    kinds = list(dict.fromkeys(getattr(text_config, "layer_types", None) or []))
    kinds = kinds or ["full_attention" if window is None else "sliding_attention"]
    keys = positions if key_positions is None else key_positions
    distance = positions[:, None, :, None] - keys[:, None, None, :]  # (batch, 1, seq, keys)
    masks = {}
    for kind in kinds:
        masks[kind] = attention_mask
        if kind == "sliding_attention" and window is not None:
            hidden = distance >= window
        elif kind == "chunked_attention":
            chunk = text_config.attention_chunk_size
            hidden = positions[:, None, :, None] // chunk != keys[:, None, None, :] // chunk
        else:
            continue
        masks[kind] = attention_mask.masked_fill(hidden, torch.finfo(attention_mask.dtype).min)
    return masks if len(masks) > 1 else next(iter(masks.values()))


def embedding_name(body: PreTrainedModel) -> str:
    """Where a body has its token embeddings: "embed_tokens" in Llama, "wte" in GPT-2."""
    table = body.get_input_embeddings()
    return next(name for name, module in body.named_modules() if module is table)


def embedding_width(body: PreTrainedModel) -> int:
    """Width of what a body reads as `inputs_embeds`: mostly its hidden size, less in some OPTs."""
    return body.get_input_embeddings().weight.shape[1]


__all__ = ["OwnRules", "cache_of", "embedding_name", "embedding_width", "fitting", "masks_by_kind", "parameters_of"]
