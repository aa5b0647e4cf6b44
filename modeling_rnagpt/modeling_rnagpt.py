"""RNA-GPT: frozen RNA encoder -> linear projector -> causal LM (ships with every checkpoint).

    rna_input_ids (batch, n_rna, length) -> encoder -> pool -> projector -> soft tokens
    input_ids     (batch, seq)           -> embed; each <RNAHere> is overwritten by one soft token -> LLM

The sequence length never changes inside the model, so labels made outside stay aligned. The processor decides how many
`<RNAHere>` a prompt holds; here both numbers are only compared.
"""

import inspect

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from .base_weights_rnagpt import BaseWeights, encoder_arguments, encoder_class
from .configuration_rnagpt import RnaGptConfig
from .own_rules_rnagpt import (
    OwnRules,
    cache_of,
    embedding_name,
    embedding_width,
    fitting,
    masks_by_kind,
    parameters_of,
)
from .pipeline_rnagpt import RnaTextGenerationPipeline  # not used here: imported, it ships with the model

RNA_INPUTS = ("rna_input_ids", "rna_attention_mask", "rna_index", "rna_features", "rna_feature_mask")
# encoders whose first token has the position after pad_token_id's
COUNT_FROM_PADDING = (
    *("esm", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text"),
    *("longformer", "ibert", "mpnet", "luke"),
)
# encoder tokens computed at once, padding included: enough to fill a GPU, about half a GB of activations in RNA-FM
BATCH_TOKENS = 8_192


class RnaGptPreTrainedModel(BaseWeights, PreTrainedModel):
    config_class = RnaGptConfig
    base_model_prefix = "model"
    input_modalities = ("rna", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # Half the encoder's and projector's work is lost in 16 bits, and they are 1% of the model. The first list holds
    # for fp16 alone, the second for bf16 too.
    _keep_in_fp32_modules = ["model.rna_encoder", "model.projector", "rna_encoder", "projector"]
    _keep_in_fp32_modules_strict = _keep_in_fp32_modules
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @property
    def dtype(self) -> torch.dtype:
        """The LLM's. The first parameter's, as in transformers, would be the encoder's, and be saved as everyone's."""
        return self.get_input_embeddings().weight.dtype


class RnaGptModel(RnaGptPreTrainedModel):
    """Encoder, projector and LLM body, without the LM head."""

    base_model_prefix = "model"

    def __init__(self, config: RnaGptConfig):
        super().__init__(config)
        self.rna_encoder = build_body(config.rna_config, **encoder_arguments(config.rna_config))
        self.rna_encoder.requires_grad_(not config.freeze_rna_encoder)
        language_model = build_body(config.text_config)
        self.projector = build_projector(config, embedding_width(language_model))
        self.language_model = language_model
        self.post_init()
        # What encoder and LLM name as one piece, without the classes that other models of their family have (Esm's
        # folding blocks): FSDP refuses names that it does not find.
        present = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = {name for name in self._no_split_modules if name in present}

    def train(self, mode: bool = True) -> "RnaGptModel":
        """A frozen encoder stays in evaluation mode: with its dropout on, an RNA's features would be noisy."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.rna_encoder.parameters()):
            self.rna_encoder.eval()
        return self

    @classmethod
    def from_encoder_and_llm(cls, encoder: PreTrainedModel, llm: PreTrainedModel, **kwargs) -> "RnaGptModel":
        """See `RnaGptForCausalLM.from_encoder_and_llm`; without the LM head."""
        return RnaGptForCausalLM.from_encoder_and_llm(encoder, llm, **kwargs).model

    def encode_rna(
        self,
        rna_input_ids: torch.LongTensor,
        rna_attention_mask: torch.Tensor,
        rna_index: torch.LongTensor | None = None,
    ) -> tuple[torch.Tensor, torch.LongTensor]:
        """Run the encoder, join the windows of long RNAs and pool; what a feature cache stores.

        Args:
            rna_input_ids: (batch, n_rna, length) int64, encoder tokens.
            rna_attention_mask: (batch, n_rna, length), 1 on real tokens; a row of zeros is an absent RNA.
            rna_index: (batch, n_rna, length) int64, where an RNA takes several rows: the number, in its prompt, of
                the RNA that a position gives a feature of, or -1. Without it each row is an RNA of its own.

        Returns:
            features (slots of all present RNAs in order, encoder hidden size) and the number of slots of each present
            RNA, (present RNAs,) int64.

        Raises:
            ValueError: a row is longer than the encoder has positions for.
        """
        limit = encoder_max_tokens(self.config.rna_config)
        if limit is not None and rna_input_ids.shape[-1] > limit:
            raise ValueError(
                f"rna_input_ids has rows of {rna_input_ids.shape[-1]:,} tokens, but the encoder has {limit:,} "
                "positions: let RnaGptProcessor cut windows, with an RNA tokenizer whose model_max_length is at most "
                f"{limit:,}"
            )
        mask = rna_attention_mask.flatten(0, 1)  # (batch * n_rna, length)
        present = mask.any(dim=-1)
        if rna_index is not None:
            # numbers within a prompt -> numbers within the batch
            first = torch.arange(len(rna_index), device=rna_index.device)[:, None, None] * rna_index.shape[1]
            rna_index = torch.where(rna_index < 0, -1, rna_index + first).flatten(0, 1)[present]
        ids = rna_input_ids.flatten(0, 1)[present]
        config = self.config
        return encode_and_pool(
            self.rna_encoder, ids, mask[present], config.rna_drop_token_ids, config.rna_pool_size, rna_index
        )

    def get_rna_features(
        self,
        rna_input_ids: torch.LongTensor | None = None,
        rna_attention_mask: torch.Tensor | None = None,
        rna_index: torch.LongTensor | None = None,
        rna_features: torch.Tensor | None = None,
        rna_feature_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Soft tokens (slots of all RNAs, LLM hidden size); None where there is no RNA. Args as of `forward`."""
        if rna_features is not None:
            if rna_feature_mask is None:
                raise ValueError("rna_features needs rna_feature_mask (batch, n_rna, slots) to tell slots from pads")
            features = rna_features[rna_feature_mask.bool()]
        elif rna_input_ids is None:
            return None
        elif rna_attention_mask is None:
            raise ValueError("rna_input_ids needs rna_attention_mask: without it the encoder would read its padding")
        else:
            features, _ = self.encode_rna(rna_input_ids, rna_attention_mask, rna_index)
        return self.projector(features.to(next(self.projector.parameters()).dtype))

    def embed(self, input_ids: torch.LongTensor, *rna_inputs, **named_rna_inputs) -> torch.Tensor:
        """What the LLM reads, (batch, seq, LLM hidden size): the text's embeddings, a soft token on each `<RNAHere>`.

        RNA inputs as of `get_rna_features`; errors as in `forward`.
        """
        soft_tokens = self.get_rna_features(*rna_inputs, **named_rna_inputs)
        placeholder = input_ids == self.config.rna_token_id  # (batch, seq)
        # The placeholder's id may lie beyond the embedding table: look up row 0, which is overwritten below.
        inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        # Not while a graph is traced, which could not go on from a number that depends on the data; and without
        # transformers' check for that case, which imports a computer algebra system (half a second) to make one.
        if not torch.compiler.is_compiling():
            count, given = int(placeholder.sum()), 0 if soft_tokens is None else soft_tokens.shape[0]
            if count and soft_tokens is None:
                raise ValueError(
                    f"The prompts hold {count} <RNAHere> placeholders, but no RNA was given: pass rna_input_ids and "
                    "rna_attention_mask as RnaGptProcessor returns them."
                )
            if count != given:
                raise ValueError(
                    f"The prompts hold {count} <RNAHere> placeholders, but the RNAs give {given} soft tokens. Let "
                    "RnaGptProcessor expand <RNAHere>, with the same rna_pool_size as the model's "
                    f"({self.config.rna_pool_size})."
                )
        if soft_tokens is None:
            return inputs_embeds
        return inputs_embeds.masked_scatter(
            placeholder.unsqueeze(-1), soft_tokens.to(inputs_embeds.device, inputs_embeds.dtype)
        )

    def embed_or_given(
        self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor | None, *rna_inputs
    ) -> torch.Tensor:
        """What `embed` gives for `input_ids`, or the `inputs_embeds` that stand in for it, without RNA."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            return self.embed(input_ids, *rna_inputs)
        rna_input_ids, _, _, rna_features, _ = rna_inputs
        if rna_input_ids is not None or rna_features is not None:
            raise ValueError("RNA inputs need input_ids: inputs_embeds does not say where the placeholders are")
        return inputs_embeds

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        rna_input_ids: torch.LongTensor | None = None,
        rna_attention_mask: torch.Tensor | None = None,
        rna_index: torch.LongTensor | None = None,
        rna_features: torch.Tensor | None = None,
        rna_feature_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Embed the text, put one soft token on each `<RNAHere>` and run the LLM body.

        Args:
            input_ids: (batch, seq) int64. `inputs_embeds` (batch, seq, hidden) may stand in for it, without RNA.
            rna_input_ids, rna_attention_mask, rna_index: (batch, n_rna, length), see `encode_rna`.
            rna_features, rna_feature_mask: (batch, n_rna, slots, encoder hidden) and (batch, n_rna, slots): what
                `encode_rna` returned before, instead of running the encoder again.

        Raises:
            ValueError: placeholders and soft tokens disagree in number, or one is there without the other.
        """
        inputs_embeds = self.embed_or_given(
            input_ids, inputs_embeds, rna_input_ids, rna_attention_mask, rna_index, rna_features, rna_feature_mask
        )
        arguments = {
            "attention_mask": masks_by_kind(self.config.text_config, attention_mask, position_ids),
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            **kwargs,
        }
        named = fitting(arguments, parameters_of(self.language_model))
        outputs = self.language_model(inputs_embeds=inputs_embeds, **named)
        return BaseModelOutputWithPast(
            last_hidden_state=outputs[0],
            past_key_values=cache_of(outputs),
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )


class RnaGptForCausalLM(RnaGptPreTrainedModel, GenerationMixin):
    """RNA-GPT with its LM head: `forward` for training and scoring, `generate` for answers.

    Body and head run by the rules of the LLM's own class (own_rules_rnagpt.py).
    """

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: RnaGptConfig):
        super().__init__(config)
        self.model = RnaGptModel(config)
        body = self.model.language_model
        self.own_rules = OwnRules(body.config)
        self.lm_head = nn.Linear(
            self.own_rules.head_width, config.text_config.vocab_size, bias=self.own_rules.head_bias
        )
        self._tied_weights_keys = {"lm_head.weight": f"model.language_model.{embedding_name(body)}.weight"}
        # a state that cannot be taken back, as recurrent layers have it
        self._is_stateful = getattr(self.own_rules.shell, "_is_stateful", False)
        self.post_init()

    @classmethod
    def from_encoder_and_llm(
        cls, encoder: PreTrainedModel, llm: PreTrainedModel, *, rna_token_id: int, **config_fields
    ) -> "RnaGptForCausalLM":
        """Join a loaded encoder and a loaded causal LM by a fresh projector; their weights are taken over, not copied.

        Args:
            encoder: any model with `last_hidden_state`, e.g. `EsmModel`; frozen by the training stages.
            llm: any causal LM with a body (`base_model`) and a linear head.
            rna_token_id: id of `<RNAHere>` in the LLM's tokenizer.
            config_fields: further fields of `RnaGptConfig`, e.g. `rna_pool_size`.
        """
        config = RnaGptConfig(
            rna_config=encoder.config, text_config=llm.config, rna_token_id=rna_token_id, **config_fields
        )
        with torch.device("meta"):
            model = cls(config)
        projector = build_projector(config, embedding_width(llm.base_model))
        for layer in projector.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=getattr(config.text_config, "initializer_range", 0.02))
                nn.init.zeros_(layer.bias)
        if encoder_arguments(encoder.config) and getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # nobody reads it, and the saved model is built again without it
        model.model.rna_encoder = encoder.eval().requires_grad_(not config.freeze_rna_encoder)
        model.model.projector = projector
        model.model.language_model = llm.base_model
        model.lm_head = llm.get_output_embeddings()
        model.generation_config = llm.generation_config
        if rna_token_id < llm.config.vocab_size:
            # an LLM whose embeddings are padded beyond its tokenizer's words could emit the placeholder
            others = model.generation_config.suppress_tokens or []
            model.generation_config.suppress_tokens = sorted({*others, rna_token_id})
        return model.eval()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        rna_input_ids: torch.LongTensor | None = None,
        rna_attention_mask: torch.Tensor | None = None,
        rna_index: torch.LongTensor | None = None,
        rna_features: torch.Tensor | None = None,
        rna_feature_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Logits and, with `labels` (batch, seq), the mean next-token loss.

        -100 is ignored among the labels, and so are placeholders: `labels=input_ids` learns the text alone.
        `logits_to_keep` is passed to `slice_logits_to_keep`: a boolean (batch, seq) mask projects only those positions
        through the LM head, which gives logits (kept, vocabulary); it cannot be combined with `labels`.
        """
        inputs_embeds = self.model.embed_or_given(
            input_ids, inputs_embeds, rna_input_ids, rna_attention_mask, rna_index, rna_features, rna_feature_mask
        )
        self.own_rules.link(self.model.language_model, self.lm_head, self.training)
        outputs = self.own_rules(
            inputs_embeds,
            logits_to_keep,
            attention_mask=masks_by_kind(self.config.text_config, attention_mask, position_ids),
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        logits = outputs.logits
        loss = None
        if labels is not None:
            labels = labels.masked_fill(labels == self.config.rna_token_id, -100)
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=cache_of(outputs) if kwargs.get("cache_params") is None else None,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        if "past_key_values" not in self.own_rules.takes and "past_key_values" in model_kwargs:
            # `generate` asks what it knows by that name for the number of its tokens, and a state has none
            model_kwargs["cache_params"] = model_kwargs.pop("past_key_values")

    def prepare_inputs_for_generation(
        self, input_ids, inputs_embeds=None, use_cache=True, is_first_iteration=False, **kwargs
    ):
        arguments = {"inputs_embeds": inputs_embeds, "use_cache": use_cache, "is_first_iteration": is_first_iteration}
        # the family's own: Mamba leaves the mask out after the prompt, Phi-3 begins anew where its positions scale
        self.own_rules.link(self.model.language_model, self.lm_head, self.training)
        inputs = self.own_rules.shell.prepare_inputs_for_generation(input_ids, **arguments, **kwargs)
        if not use_cache:
            return inputs
        new = inputs.get("input_ids")
        if is_first_iteration and (new is None or bool((new == self.config.rna_token_id).any())):
            return inputs
        # The placeholders are in the cache: new tokens bring no RNA.
        for name in RNA_INPUTS:
            inputs.pop(name, None)
        if new is not None:
            # Prompt-lookup decoding proposes what the prompt holds, placeholders too; whatever stands there instead,
            # the LLM never emits a placeholder, so the proposal ends before it.
            inputs["input_ids"] = new.masked_fill(new == self.config.rna_token_id, 0)
        return inputs


def encode_and_pool(
    encoder: nn.Module,
    ids: torch.LongTensor,
    mask: torch.Tensor,
    drop_token_ids: list[int],
    pool_size: int,
    rna_index: torch.LongTensor | None = None,
) -> tuple[torch.Tensor, torch.LongTensor]:
    """Encoder output of the kept positions, averaged over runs of `pool_size` of them.

    Args:
        ids, mask: (windows, length), encoder tokens and 1 on the real ones, padded on the right.
        drop_token_ids: tokens whose positions are left out (BOS, EOS).
        rna_index: (windows, length) int64, the RNA that a position gives a feature of, rising from window to window,
            or -1; without it each window is an RNA.

    Returns:
        features (slots of all RNAs in order, hidden) and slots per RNA (rnas,) int64.
    """
    dropped = torch.tensor(drop_token_ids, device=ids.device, dtype=ids.dtype)
    kept = mask.bool() & ~torch.isin(ids, dropped)  # (windows, length)
    if rna_index is None:
        rna_index = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    else:
        kept &= rna_index >= 0
    # An RNA's windows stand in order and keep each of its positions once, so taking the kept ones row by row joins the
    # windows: no RNA is padded to another's length, and a run of equal numbers is one RNA.
    hidden = run_by_length(encoder, ids, mask, kept)  # (kept positions of all RNAs, hidden)
    _, rna, positions = rna_index[kept].unique_consecutive(return_inverse=True, return_counts=True)
    slots = (positions + pool_size - 1) // pool_size  # (rnas,)
    if pool_size == 1:
        return hidden, slots
    # Kept position k of an RNA belongs to that RNA's slot k // pool_size: sum into slots, then divide by their sizes.
    # Pooled after the join, so that where a long RNA was cut does not show, and the last slot averages what it has.
    k = torch.arange(len(rna), device=ids.device) - (positions.cumsum(0) - positions)[rna]
    slot = (slots.cumsum(0) - slots)[rna] + k // pool_size  # (kept positions of all RNAs,)
    total = int(slots.sum())
    summed = hidden.new_zeros(total, hidden.shape[-1]).index_add(0, slot, hidden)
    return summed / torch.bincount(slot, minlength=total)[:, None], slots


def run_by_length(encoder: nn.Module, ids: torch.LongTensor, mask: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Last hidden states of the kept positions of all windows in order, (kept positions, hidden).

    Windows of like length go through the encoder together, so that hardly any padding is computed; of one length
    alone, without a mask, in an encoder that takes none (HyenaDNA, Caduceus).

    Args:
        ids, mask, kept: (windows, length), encoder tokens, 1 on the real ones, True where the output is wanted.
    """
    place = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    lengths = (mask.bool() * place).amax(dim=-1).tolist()
    parts: list[torch.Tensor | None] = [None] * len(lengths)
    masked = takes_mask(encoder)
    for bucket in length_buckets(lengths, BATCH_TOKENS, spread=0.9 if masked else 1.0):
        rows, longest = torch.tensor(bucket, device=ids.device), max(lengths[i] for i in bucket)
        masks = {"attention_mask": mask[rows, :longest]} if masked else {}
        hidden = encoder(input_ids=ids[rows, :longest], **masks)[0]  # code of a repository may give a plain tuple
        wanted = kept[rows, :longest]
        # a device map may have put the encoder elsewhere than its inputs
        found = hidden.to(ids.device)[wanted].split(wanted.sum(dim=-1).tolist())
        for i, part in zip(bucket, found, strict=True):
            parts[i] = part
    return torch.cat(parts)


def takes_mask(encoder: nn.Module) -> bool:
    """Whether an encoder's forward has an attention mask; those of HyenaDNA and Caduceus have none."""
    takes = inspect.signature(encoder.forward).parameters.values()
    return any(argument.name == "attention_mask" or argument.kind == argument.VAR_KEYWORD for argument in takes)


def length_buckets(lengths: list[int], batch_tokens: int, spread: float = 0.9) -> list[list[int]]:
    """Indices of `lengths` in groups that are run together, longest first.

    A group takes at most `batch_tokens` tokens with its padding, and its shortest is at least `spread` of its longest.

    >>> length_buckets([10, 100, 95, 9, 96], batch_tokens=200)
    [[1, 4], [2], [0, 3]]
    """
    buckets: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[buckets[-1][0]] if buckets else 0
        if buckets and lengths[i] >= spread * longest and (len(buckets[-1]) + 1) * longest <= batch_tokens:
            buckets[-1].append(i)
        else:
            buckets.append([i])
    return buckets


def build_projector(config: RnaGptConfig, llm_width: int) -> nn.Module:
    """Encoder features (slots, encoder hidden size) -> soft tokens (slots, `llm_width`, the LLM's embeddings'): one
    linear layer as in the paper, or two around a GELU (LLaVA-1.5, arXiv:2310.03744)."""
    width = config.rna_config.hidden_size
    hidden = config.projector_hidden_size
    if hidden is None:
        return nn.Linear(width, llm_width)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, llm_width))


def build_body(config, **arguments) -> PreTrainedModel:
    """Encoder or LLM body from its configuration; with eager attention where it refuses the implementation asked for.

    One `attn_implementation` is asked for of both, and an encoder may lack what the LLM has.
    """
    auto_class = encoder_class(config)
    try:
        return auto_class.from_config(config, **arguments)
    except (ValueError, ImportError):
        if config._attn_implementation in (None, "eager"):
            raise
        config._attn_implementation = "eager"
        return auto_class.from_config(config, **arguments)


def encoder_max_tokens(rna_config) -> int | None:
    """Most tokens that the encoder has positions for, special tokens included; None where positions have no end.

    >>> encoder_max_tokens(RnaGptConfig().rna_config)
    1024
    """
    # rotary or relative positions, and states, without saying so by type; of T5 n_positions is no limit
    if rna_config.model_type in ("modernbert", "nomic_bert", "eurobert", "t5", "mt5", "umt5", "mamba", "mamba2"):
        return None
    if rna_config.model_type in ("deberta", "deberta-v2") and not getattr(rna_config, "position_biased_input", True):
        return None
    positions = getattr(rna_config, "max_position_embeddings", getattr(rna_config, "max_seq_len", None))
    if positions is None or getattr(rna_config, "position_embedding_type", "absolute") in ("rotary", "alibi"):
        return None
    if rna_config.model_type in COUNT_FROM_PADDING:
        return positions - rna_config.pad_token_id - 1
    return positions


__all__ = ["RnaGptForCausalLM", "RnaGptModel", "RnaGptPreTrainedModel", "RnaTextGenerationPipeline"]
