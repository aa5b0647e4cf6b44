"""The processor: what it expands, normalises and refuses; the RNA tokenizer against the rna-fm package."""

import copy
import re

import numpy as np
import pytest
import torch

from processing_rnagpt.processing_rnagpt import RNA_TOKEN, normalize_rna


def test_rna_tokenizer_gives_rna_fms_ids():
    import fm

    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    alphabet = fm.data.Alphabet.from_architecture("roberta_large", theme="rna")
    converter = alphabet.get_batch_converter()
    sequences = ["ACGU", "GGCUAGCUCAAUCGGUAGAGCGUGAGACUCUUAAUCUC", "ACGURYKMSWBDHVN"]
    _, _, expected = converter([(str(i), s) for i, s in enumerate(sequences)])
    got = build_rna_tokenizer()(sequences, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("acgt", "ACGU"), (" AC GU\n", "ACGU"), ("AC-G.U", "ACGU"), ("NRY", "NRY")],
)
def test_normalisation(given, expected):
    assert normalize_rna(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "empty"),
        (" -- ", "empty"),
        ("ACGE", r"'E' at position 4 .*protein"),
        ("AC1", "'1' at position 3"),
        ("ACß", "'ß' at position 3"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_rna_is_named_with_its_position(given, message):
    with pytest.raises(ValueError, match=message):
        normalize_rna(given)


def test_one_placeholder_per_kept_encoder_token(tiny_model):
    _, processor = tiny_model
    batch = processor(f"<RNA>{RNA_TOKEN}</RNA> and {RNA_TOKEN}", rna=["ACGU", "acgtacgt"])
    assert (batch["input_ids"] == processor.rna_token_id).sum() == 4 + 8
    assert batch["rna_input_ids"].shape == (1, 2, 10)
    assert batch["rna_attention_mask"].sum(-1).tolist() == [[6, 10]]


def test_messages_and_strings_give_the_same_tokens(tiny_model):
    _, processor = tiny_model
    parts = [{"role": "user", "content": [{"type": "rna", "rna": "ACGU"}, {"type": "text", "text": "Type?"}]}]
    text = processor.apply_chat_template(parts, add_generation_prompt=True)
    assert text == "<|im_start|>user\n<RNA><RNAHere></RNA>\nType?<|im_end|>\n<|im_start|>assistant\n"
    assert torch.equal(processor(parts)["input_ids"], processor(text, rna="ACGU")["input_ids"])


def test_an_rna_that_was_read_stands_for_its_sequence_with_its_features(tiny_model):
    model, processor = tiny_model
    rna = processor.rna_input("ACGUACGU" * 20)
    messages = [{"role": "user", "content": [{"type": "rna", "rna": "ACGUACGU" * 20}, {"type": "text", "text": "?"}]}]
    read = [{"role": "user", "content": [{"type": "rna", "rna": rna}, {"type": "text", "text": "?"}]}]
    for sanitize in (False, True):
        batch, same = (processor(given, sanitize_control_tokens=sanitize) for given in (messages, read))
        assert batch.keys() == same.keys() and all(torch.equal(batch[name], same[name]) for name in batch)
    mixed = processor([RNA_TOKEN, RNA_TOKEN * 2], rna=[rna, ["ACGU", rna]])
    assert (mixed["input_ids"] == processor.rna_token_id).sum() == 2 * rna.soft_tokens + 4
    with torch.no_grad():
        rna.features, _ = model.model.encode_rna(**processor.rna_batch([[rna]]))
        encoded = processor(read)
        assert set(encoded) == {"input_ids", "attention_mask", "rna_features", "rna_feature_mask"}
        assert torch.allclose(model(**encoded).logits, model(**batch).logits, atol=1e-5)


def test_counts_that_disagree_are_refused_with_both_numbers(tiny_model):
    _, processor = tiny_model
    with pytest.raises(ValueError, match=r"2 <RNAHere>, but 1 RNA was given"):
        processor(f"{RNA_TOKEN} {RNA_TOKEN}", rna="ACGU")
    with pytest.raises(ValueError, match=r"0 <RNAHere>, but 1 RNA was given"):
        processor("no place", rna="ACGU")
    with pytest.raises(ValueError, match="2 texts need 2 entries"):
        processor(["a", "b"], rna=["ACGU"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"role": "user", "content": "x"}, "a string, or a list of strings or messages, got dict"),
        ([{"content": "x"}], 'a message is {"role": ..., "content": ...}'),
        ([{"role": "user", "content": [{"type": "rna", "sequence": "ACGU"}]}], '{"type": "rna", "rna": ...}'),
        ([{"role": "user", "content": ["ACGU"]}], "of type 'rna' or 'text', got None"),
        ("", "a text is empty"),
        ([[{"role": "user", "content": "x"}], [{"role": "assistant", "content": "x"}]], "part them"),
    ],
)
def test_what_is_malformed_is_named(tiny_model, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_model[1](given)


def test_truncation_never_cuts_an_rna(tiny_model):
    _, processor = tiny_model
    text = "x" * 40 + RNA_TOKEN
    assert processor(text, rna="ACGU", truncation=True, max_length=200)["input_ids"].shape[1] < 200
    with pytest.raises(ValueError, match="truncation leaves 3 of the RNAs' 30 soft tokens"):
        processor(RNA_TOKEN, rna="ACG" * 10, truncation=True, max_length=3, add_special_tokens=False)


@pytest.mark.parametrize(("return_tensors", "kind"), [("pt", torch.Tensor), ("np", np.ndarray), (None, list)])
def test_everything_comes_in_the_form_that_was_asked_for(tiny_model, return_tensors, kind):
    batch = tiny_model[1]([RNA_TOKEN, "no RNA"], rna=["ACGU", None], return_tensors=return_tensors)
    assert set(batch) == {"input_ids", "attention_mask", "rna_input_ids", "rna_attention_mask"}
    assert all(type(value) is kind for value in batch.values())
    expected = tiny_model[1]([RNA_TOKEN, "no RNA"], rna=["ACGU", None])
    assert all(torch.equal(torch.as_tensor(batch[name]), expected[name]) for name in batch)


def test_an_answer_that_was_begun_is_left_open(tiny_model):
    _, processor = tiny_model
    question = {"role": "user", "content": [{"type": "rna", "rna": "ACGU"}, {"type": "text", "text": "Type?"}]}
    opened = processor([question])["input_ids"][0].tolist()
    begun = processor([question, {"role": "assistant", "content": "It is"}])["input_ids"][0].tolist()
    assert begun == opened + processor.tokenizer("It is", add_special_tokens=False)["input_ids"]


def test_an_unknown_policy_for_long_rnas_is_refused_at_once(tiny_model):
    processor = tiny_model[1]
    with pytest.raises(ValueError, match="long_rna is one of windows, truncate, error, got 'nope'"):
        type(processor)(processor.tokenizer, processor.rna_tokenizer, long_rna="nope")


def test_an_rna_over_the_limit_is_refused_with_both_numbers_where_the_policy_says_so(tiny_model):
    processor = copy.deepcopy(tiny_model[1])
    processor.long_rna = "error"
    limit = processor.max_nucleotides
    assert processor(RNA_TOKEN, rna="A" * limit)["rna_input_ids"].shape[-1] == limit + 2
    with pytest.raises(ValueError, match=f"{limit + 1} nt, more than the {limit} nt"):
        processor(RNA_TOKEN, rna="A" * (limit + 1))


def test_processor_survives_saving(tiny_model, tmp_path):
    from processing_rnagpt import RnaGptProcessor

    _, processor = tiny_model
    processor = copy.deepcopy(processor)
    processor.long_rna, processor.rna_window_overlap = "truncate", 0.5
    processor.save_pretrained(tmp_path)
    again = RnaGptProcessor.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": [{"type": "rna", "rna": "ACGUACGU"}, {"type": "text", "text": "?"}]}]
    for name, tensor in processor(messages).items():
        assert torch.equal(tensor, again(messages)[name]), name
    assert again.chat_template == processor.chat_template
    assert again.rna_pool_size == processor.rna_pool_size
    assert (again.long_rna, again.rna_window_overlap) == ("truncate", 0.5)


def test_an_older_checkpoints_processor_reads_long_rnas_in_windows(tiny_model, tmp_path):
    import json

    from processing_rnagpt import RnaGptProcessor

    tiny_model[1].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    for field in ("long_rna", "rna_window_overlap"):
        del config[field]
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    assert RnaGptProcessor.from_pretrained(tmp_path).long_rna == "windows"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": RNA_TOKEN, "images": ["x"]}, "images, videos and audio are not supported"),
        ({"text": []}, "at least one text"),
        ({}, "at least one text"),
        ({"text": [{"role": "user", "content": [{"type": "rna", "rna": "ACGU"}]}], "rna": "ACGU"}, "not both"),
        ({"text": [{"role": "user", "content": [{"type": "image"}]}]}, "'rna' or 'text', got 'image'"),
        ({"text": RNA_TOKEN, "rna": [["ACGU", 5]]}, "RNA 1 of 1: .*got list"),
        ({"text": RNA_TOKEN, "rna": [b"ACGU"]}, "RNA 1 of 1: .*got bytes"),
        ({"text": ["a", RNA_TOKEN], "rna": [None, "AC!"]}, "RNA 1 of 1: '!' at position 3"),
        ({"text": f"{RNA_TOKEN}{RNA_TOKEN}", "rna": ["ACGU", "AC GU J"]}, "RNA 2 of 2: 'J' at position 5"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(tiny_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_model[1](**arguments)


def test_every_output_is_named_among_the_models_inputs(tiny_model):
    _, processor = tiny_model
    assert set(processor(RNA_TOKEN, rna="ACGU" * 50)) == set(processor.model_input_names)


def test_the_bulk_table_gives_the_tokenizers_own_tokens():
    import random

    from processing_rnagpt.rna_sequences import RnaReader, encoder_inputs
    from processing_rnagpt.rna_tokenizer import build_rna_tokenizer

    draw, tokenizer = random.Random(0), build_rna_tokenizer()
    letters = "ACGURYKMSWBDHVNTacgturykmswbdhvn"
    sequences = ["".join(draw.choices(letters, k=draw.randrange(1, 200))) for _ in range(200)]
    encoded = RnaReader(tokenizer, [0, 2]).read(sequences)
    assert encoded[0].tokens.dtype == "uint8"  # the table was used
    expected, got = tokenizer(sequences, padding=True, return_tensors="pt"), encoder_inputs([encoded], 1)
    assert all(torch.equal(got[f"rna_{name}"][0], expected[name]) for name in ("input_ids", "attention_mask"))
