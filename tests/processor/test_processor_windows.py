"""RNAs of any length: where windows lie, what each keeps, the three policies; at RNA-FM's own limit of 1,022 nt."""

import copy
import random

import numpy as np
import pytest
import torch

from processing_rnagpt.processing_rnagpt import RNA_TOKEN
from processing_rnagpt.rna_sequences import RnaReader, window_spans
from processing_rnagpt.rna_tokenizer import build_rna_tokenizer


def random_rna(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("ACGU", k=length))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 11, 12, 13, 16, 20, 33, 50, 1022])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_each_token_is_kept_once_from_the_window_whose_middle_is_nearest(length, size, overlap):
    spans = window_spans(length, size, overlap)
    kept = [position for _, _, first, last in spans for position in range(first, last)]
    assert kept == list(range(length))
    assert spans[0][0] == 0 and spans[-1][1] == length
    for start, stop, first, last in spans:
        assert stop - start == min(size, length) and start <= first < last <= stop
        for position in range(first, last):  # doubled, to stay among whole numbers
            distances = [abs(2 * position - (a + b - 1)) for a, b, _, _ in spans if a <= position < b]
            assert abs(2 * position - (start + stop - 1)) == min(distances)
    for (_, stop, _, _), (start, _, _, _) in zip(spans, spans[1:], strict=False):
        assert stop - start >= min(overlap * size, size - 1)


@pytest.mark.parametrize(("length", "windows"), [(1022, 1), (1023, 2), (1024, 2), (1788, 2), (1789, 3), (10_000, 13)])
def test_number_of_windows_at_rna_fms_size(length, windows):
    """1,022 nt and a quarter of overlap: a step of 1022 - 256 = 766 nt."""
    (rna,) = RnaReader(build_rna_tokenizer(), [0, 2]).read([random_rna(length)])
    assert len(rna.windows) == windows and len(rna) == length
    assert all(len(window) == min(length, 1022) + 2 for window in rna.windows)


@pytest.mark.parametrize("length", [1022, 1023, 1024, 10_000])
def test_windows_hold_rna_fms_own_tokens_and_keep_the_whole_rna(length):
    import fm

    converter = fm.data.Alphabet.from_architecture("roberta_large", theme="rna").get_batch_converter()
    sequence = random_rna(length)
    _, _, whole = converter([("", sequence)])  # the converter has no limit, only the model
    (rna,) = RnaReader(build_rna_tokenizer(), [0, 2]).read([sequence])
    kept = np.concatenate([window[keep] for window, keep in zip(rna.windows, rna.kept, strict=True)])
    assert kept.tolist() == whole[0, 1:-1].tolist()
    for window in rna.windows:
        assert (window[0], window[-1]) == (0, 2)


def test_truncate_reads_the_beginning(tiny_model):
    processor = copy.deepcopy(tiny_model[1])
    processor.long_rna = "truncate"
    limit = processor.max_nucleotides
    sequence = random_rna(3 * limit)
    batch, beginning = processor(RNA_TOKEN, rna=sequence), processor(RNA_TOKEN, rna=sequence[:limit])
    assert batch.keys() == beginning.keys()
    assert all(torch.equal(batch[name], beginning[name]) for name in batch)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("long_rna", "cut", "one of windows, truncate, error, got 'cut'"), ("rna_window_overlap", 1.0, "got 1.0")],
)
def test_settings_that_make_no_sense_are_refused(tiny_model, field, value, message):
    processor = copy.deepcopy(tiny_model[1])
    setattr(processor, field, value)
    with pytest.raises(ValueError, match=message):
        processor(RNA_TOKEN, rna="ACGU")


def test_batch_of_short_long_and_no_rnas(tiny_model):
    """Row 0: two RNAs of two windows and one; row 1: none; row 2: one of three windows."""
    _, processor = tiny_model
    limit = processor.max_nucleotides
    texts = [f"{RNA_TOKEN} {RNA_TOKEN}", "no RNA", RNA_TOKEN]
    rnas = [[random_rna(limit + 3), random_rna(9)], None, random_rna(2 * limit)]
    batch = processor(texts, rna=rnas)
    assert batch["rna_input_ids"].shape == batch["rna_index"].shape == (3, 3, limit + 2)
    present = batch["rna_attention_mask"].any(-1)
    assert present.tolist() == [[True, True, True], [False] * 3, [True, True, True]]
    numbers = [[sorted(set(row.tolist())) for row in rows] for rows in batch["rna_index"]]
    assert numbers == [[[-1, 0], [-1, 0], [-1, 1]], [[-1], [-1], [-1]], [[-1, 0], [-1, 0], [-1, 0]]]
    counts = (batch["input_ids"] == processor.rna_token_id).sum(-1)
    assert counts.tolist() == [limit + 3 + 9, 0, 2 * limit]
    assert (batch["rna_index"] >= 0).sum((1, 2)).tolist() == counts.tolist()
    # nothing is kept where nothing is read, nor of BOS and EOS
    hidden = (batch["rna_attention_mask"] == 0) | (batch["rna_input_ids"] == 0) | (batch["rna_input_ids"] == 2)
    assert (batch["rna_index"][hidden] == -1).all()


def test_bos_and_eos_of_inner_windows_are_never_kept(tiny_model):
    processor = copy.deepcopy(tiny_model[1])
    processor.keep_rna_special_tokens = True
    length = 2 * processor.max_nucleotides
    rna = processor.rna_input(random_rna(length))
    assert rna.soft_tokens == length + 2
    kept = np.concatenate([w[k] for w, k in zip(rna.windows, rna.kept, strict=True)]).tolist()
    assert kept[0] == 0 and kept[-1] == 2 and not {0, 2} & set(kept[1:-1])


@pytest.mark.parametrize("pool_size", [1, 8, 64])
def test_pooling_counts_slots_after_windows_are_joined(tiny_model, pool_size):
    processor = copy.deepcopy(tiny_model[1])
    processor.rna_pool_size = pool_size
    for length in (119, 120, 121, 127, 128, 129, 640):
        assert processor.rna_input(random_rna(length)).soft_tokens == -(-length // pool_size)
