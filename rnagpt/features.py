"""Encoder outputs computed once: the encoder is frozen, so what it says of an RNA never changes."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modeling_rnagpt.modeling_rnagpt import encode_and_pool


@torch.no_grad()
def encode_features(
    encoder: PreTrainedModel,
    rna_tokenizer: PreTrainedTokenizerBase,
    sequences: Mapping[str, str],
    drop_token_ids: list[int],
    pool_size: int,
    batch_tokens: int = 4096,
) -> dict[str, torch.Tensor]:
    """rna_id -> pooled encoder output (slots, encoder hidden), float32 on the CPU, before the projector.

    Args:
        sequences: rna_id -> RNA, in the alphabet that the tokenizer expects (see `normalize_rna`).
        drop_token_ids, pool_size: as in `RnaGptConfig` (`rna_drop_token_ids`, `rna_pool_size`).
        batch_tokens: padded encoder tokens per batch; RNAs of like length go together, so padding stays small.
    """
    encoder.eval()
    ids = dict(zip(sequences, rna_tokenizer(list(sequences.values()))["input_ids"], strict=True))
    features = {}
    batch: list[str] = []

    def run(batch: list[str]) -> None:
        padded = rna_tokenizer.pad({"input_ids": [ids[rna_id] for rna_id in batch]}, return_tensors="pt")
        tokens, mask = padded["input_ids"].to(encoder.device), padded["attention_mask"].to(encoder.device)
        pooled, slots = encode_and_pool(encoder, tokens, mask, drop_token_ids, pool_size)
        for rna_id, part in zip(batch, pooled.float().cpu().split(slots.tolist()), strict=True):
            features[rna_id] = part.clone()

    for rna_id in sorted(ids, key=lambda name: len(ids[name])):
        if batch and (len(batch) + 1) * len(ids[rna_id]) > batch_tokens:
            run(batch)
            batch = []
        batch.append(rna_id)
    if batch:
        run(batch)
    return {rna_id: features[rna_id] for rna_id in sequences}
