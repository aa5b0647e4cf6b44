"""RNAs over the encoder's limit: the model's features against the encoder run window by window, and at true size."""

import copy
import random

import pytest
import torch
from test_model import ask


def random_rna(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGU", k=length))


def features_by_hand(model, processor, rna: str) -> torch.Tensor:
    """(nt, hidden): each nucleotide's feature from every window that holds it, then the most central one's."""
    limit = processor.max_nucleotides
    step = limit - -(-limit // 4)
    n = 1 + max(0, -(-(len(rna) - limit) // step))
    starts = [i * (len(rna) - limit) // (n - 1) for i in range(n)] if n > 1 else [0]
    best = {}  # nucleotide -> (distance from the window's middle, feature)
    for start in starts:
        part = rna[start : start + limit]
        ids = processor.rna_tokenizer(part, return_tensors="pt")["input_ids"]
        hidden = model.model.rna_encoder(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 1:-1]
        for i, feature in enumerate(hidden):
            distance = abs(2 * i - (len(part) - 1))
            if start + i not in best or distance < best[start + i][0]:
                best[start + i] = (distance, feature)
    return torch.stack([best[i][1] for i in range(len(rna))])


@torch.no_grad()
@pytest.mark.parametrize("pool_size", [1, 7, 64])
def test_features_of_long_rnas_are_the_most_central_windows(tiny_model, pool_size):
    model, processor = copy.deepcopy(tiny_model[0]), copy.deepcopy(tiny_model[1])
    model.config.rna_pool_size = processor.rna_pool_size = pool_size
    rnas = [[random_rna(300, 1), random_rna(30, 2)], [random_rna(121, 3)], None, [random_rna(120, 4)]]
    batch = processor(["<RNAHere><RNAHere>", "<RNAHere>", "Yes.", "<RNAHere>"], rna=rnas)
    got, slots = model.model.encode_rna(*(batch[f"rna_{name}"] for name in ("input_ids", "attention_mask", "index")))
    expected = []
    for rna in [rna for row in rnas if row for rna in row]:
        expected += [chunk.mean(0) for chunk in features_by_hand(model, processor, rna).split(pool_size)]
    assert slots.tolist() == [-(-length // pool_size) for length in (300, 30, 121, 120)]
    assert (got - torch.stack(expected)).abs().max() < 1e-5
    assert (batch["input_ids"] == processor.rna_token_id).sum() == len(expected)
    assert torch.isfinite(model(**batch).logits).all()


@torch.no_grad()
def test_a_long_rna_in_a_batch_equals_it_alone_and_its_end_changes_the_answer(tiny_model):
    model, processor = tiny_model
    rna = random_rna(200, 5)
    together = model(**processor([ask("ACGU"), ask(rna), [{"role": "user", "content": "Yes."}]])).logits[1, -1]
    alone = model(**processor(ask(rna))).logits[0, -1]
    assert (together - alone).abs().max() < 1e-4
    other_end = model(**processor(ask(rna[:-20] + "G" * 20))).logits[0, -1]
    assert (alone - other_end).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("length", [1022, 1023, 1024, 10_000])
def test_rna_fms_positions_suffice_for_any_length(length):
    """RNA-FM's vocabulary and 1,026 positions in a narrow encoder, to be quick."""
    from transformers import EsmConfig, EsmModel

    from modeling_rnagpt.configuration_rnagpt import RNA_FM
    from modeling_rnagpt.modeling_rnagpt import encode_and_pool
    from processing_rnagpt.rna_sequences import RnaReader, encoder_inputs
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    torch.manual_seed(0)
    narrow = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = EsmConfig(**{**RNA_FM, **narrow})
    encoder = EsmModel(config, add_pooling_layer=False).eval()
    rna = RnaReader(build_rna_tokenizer(), [0, 2]).read([random_rna(length)])
    ids, mask, *index = (tensor[0] for tensor in encoder_inputs([rna], 1).values())
    features, slots = encode_and_pool(encoder, ids, mask, [0, 2], 1, *index)
    assert slots.tolist() == [length] and features.shape == (length, 16)
    assert torch.isfinite(features).all()


@torch.no_grad()
def test_windows_survive_beams(tiny_model):
    model, processor = tiny_model
    batch = processor([ask(random_rna(150, 6)), ask("ACGU")])
    out = model.generate(**batch, max_new_tokens=4, num_beams=3, do_sample=False)
    single = processor(ask(random_rna(150, 6)))
    alone = model.generate(**single, max_new_tokens=4, num_beams=3, do_sample=False)
    answer = alone[0, single["input_ids"].shape[1] :]
    assert torch.equal(out[0, batch["input_ids"].shape[1] :][: len(answer)], answer)
