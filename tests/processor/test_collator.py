"""The shared prefix against the naive form: the same losses and gradients from fewer tokens."""

import copy

import pytest
import torch
import torch.nn.functional as F

from processing_rnagpt.collator import (
    IGNORED,
    EncodedPair,
    SharedPrefixCollator,
    fill_rows,
    lay_out,
    shared_prefix_length,
)

ROWS = [
    {
        "rna_id": "a",
        "sequence": "ACGUACGUACGGGUUU",
        "pairs": [
            {"question": "What type of RNA is this?", "answer": "It is a transfer RNA (tRNA)."},
            {"question": "Is this a ribosomal RNA?", "answer": "No."},
            {"question": "What is it?", "answer": "It is not known."},
        ],
    },
    {"rna_id": "b", "sequence": "GGGUUU", "pairs": [{"question": "", "answer": "This RNA is a microRNA (miRNA)."}]},
]


def loss_of(model, batch):
    """The trainer's loss of one batch, written out over all positions."""
    batch = dict(batch)
    labels, weights = batch.pop("labels"), batch.pop("loss_weights").double()
    logits = model(**batch).logits
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / weights.sum()


@pytest.mark.parametrize("template", ["default", "paper"])
def test_shared_prefix_equals_separate_sequences(tiny_model, template):
    results = []
    for share in (True, False):
        model = copy.deepcopy(tiny_model[0]).double()
        collator = SharedPrefixCollator(tiny_model[1], share_prefix=share, chat_template=template)
        batch = collator(ROWS)
        batch["attention_mask"] = batch["attention_mask"].double()
        loss = loss_of(model, batch)
        loss.backward()
        grads = (model.model.projector.weight.grad, model.lm_head.weight.grad)
        results.append((loss, *grads, batch["input_ids"].numel()))
    (shared, *shared_grads, n_shared), (separate, *separate_grads, n_separate) = results
    assert abs(shared - separate) < 1e-7
    for one, other in zip(shared_grads, separate_grads, strict=True):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max()
    assert n_shared < n_separate


@pytest.mark.parametrize("cached", [False, True])
def test_packed_rows_equal_padded_rows(tiny_model, cached):
    from rnagpt.checkpoints.features import encode_features

    model, processor = copy.deepcopy(tiny_model[0]).double(), tiny_model[1]
    rows = [*ROWS, {**ROWS[1], "rna_id": "c", "sequence": "ACG" * 9}, {**ROWS[0], "rna_id": "d", "sequence": "UUGCA"}]
    features = None
    if cached:
        sequences = {row["rna_id"]: row["sequence"] for row in rows}
        features = encode_features(model.model.rna_encoder, processor.rna_reader, sequences)
    results = []
    for pack in (True, False):
        model.zero_grad()
        batch = SharedPrefixCollator(processor, features, pack=pack)(rows)
        batch["attention_mask"] = batch["attention_mask"].double()
        loss = loss_of(model, batch)
        loss.backward()
        results.append((loss.item(), model.model.projector.weight.grad.clone(), batch["input_ids"].shape))
    (packed, packed_grad, packed_shape), (padded, padded_grad, padded_shape) = results
    assert abs(packed - padded) < 1e-7
    assert (packed_grad - padded_grad).abs().max() <= 1e-6 * padded_grad.abs().max()
    assert packed_shape[0] < padded_shape[0] and packed_shape.numel() < padded_shape.numel()


def test_loss_is_the_models_own_mean_over_pairs(tiny_model):
    """Against plain forward calls with labels, one conversation at a time, no collator."""
    model, processor = tiny_model
    losses = []
    for row in ROWS:
        for pair in row["pairs"]:
            content = [{"type": "rna", "rna": row["sequence"]}, {"type": "text", "text": pair["question"]}]
            user = [{"role": "user", "content": content}]
            prompt = processor(user)
            whole = processor.apply_chat_template(
                [*user, {"role": "assistant", "content": pair["answer"]}],
                tokenize=True,
                return_dict=True,
                processor_kwargs={"return_tensors": "pt"},
            )
            labels = whole["input_ids"].clone()
            labels[:, : prompt["input_ids"].shape[1]] = IGNORED
            labels[:, -1] = IGNORED  # the line break after the stop token
            losses.append(model(**whole, labels=labels).loss)
    batch = SharedPrefixCollator(processor)(ROWS)
    assert abs(loss_of(model, batch) - torch.stack(losses).mean()) < 1e-5


def test_cached_features_give_the_same_loss(tiny_model):
    from rnagpt.checkpoints.features import encode_features

    model, processor = tiny_model
    sequences = {row["rna_id"]: row["sequence"] for row in ROWS}
    features = encode_features(model.model.rna_encoder, processor.rna_reader, sequences)
    live = loss_of(model, SharedPrefixCollator(processor)(ROWS))
    cached = loss_of(model, SharedPrefixCollator(processor, features)(ROWS))
    assert abs(live - cached) < 1e-5


def test_only_answers_are_learned_and_end_with_the_stop_token(tiny_model):
    _, processor = tiny_model
    batch = SharedPrefixCollator(processor)(ROWS)
    learned = batch["labels"][0][batch["labels"][0] != IGNORED].tolist()
    text = processor.tokenizer.decode(learned)
    assert text == "It is a transfer RNA (tRNA).<|im_end|>No.<|im_end|>It is not known.<|im_end|>"
    assert abs(batch["loss_weights"].sum() - 4) < 1e-6  # four pairs


def test_every_answer_of_a_conversation_is_learned_and_nothing_else(tiny_model):
    """Against the plain model: the labels of a two-turn conversation, found in the rendered text."""
    model, processor = tiny_model
    turns = [{"question": "What is it?", "answer": "A tRNA."}, {"question": "From where?", "answer": "From yeast."}]
    row = {"rna_id": "a", "sequence": "ACGUACGU", "pairs": [{"turns": turns}, {"question": "Why?", "answer": "So."}]}
    batch = SharedPrefixCollator(processor)([row])
    learned = processor.tokenizer.decode(batch["labels"][batch["labels"] != IGNORED])
    assert learned == "A tRNA.<|im_end|>From yeast.<|im_end|>So.<|im_end|>"
    messages = []
    for turn in turns:
        content = [{"type": "text", "text": turn["question"]}]
        if not messages:
            content.insert(0, {"type": "rna", "rna": row["sequence"]})
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": turn["answer"]}]
    whole = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, processor_kwargs={"return_tensors": "pt"}
    )
    ids = whole["input_ids"][0]
    opened = processor.tokenizer("<|im_start|>assistant\n")["input_ids"]
    labels = torch.full_like(ids, IGNORED)
    for i in range(len(ids) - len(opened)):
        if ids[i : i + len(opened)].tolist() == opened:
            end = i + len(opened)
            while ids[end] != processor.tokenizer.eos_token_id:
                end += 1
            labels[i + len(opened) : end + 1] = ids[i + len(opened) : end + 1]
    expected = model(**whole, labels=labels[None]).loss
    conversation = SharedPrefixCollator(processor)([{**row, "pairs": row["pairs"][:1]}])
    assert abs(loss_of(model, conversation) - expected) < 1e-5


def test_rows_without_rna_train_the_text_alone(tiny_model):
    model, processor = tiny_model
    text = {"rna_id": "t", "sequence": None, "pairs": [{"question": "Is water wet?", "answer": "Yes."}]}
    alone = SharedPrefixCollator(processor)([text])
    assert not any(name.startswith("rna_") for name in alone)
    mixed = SharedPrefixCollator(processor, pack=True)([text, *ROWS])
    parts = [SharedPrefixCollator(processor)([row]) for row in (text, *ROWS)]
    total = sum(loss_of(model, part) * part["loss_weights"].sum() for part in parts)
    assert abs(loss_of(model, mixed) - total / mixed["loss_weights"].sum()) < 1e-5


def test_layout_of_a_toy():
    pairs = [EncodedPair([1, 2, 3, 10, 11], [(4, 5)]), EncodedPair([1, 2, 4, 12], [(3, 4)])]
    assert shared_prefix_length(pairs) == 2
    out = lay_out(pairs, 2)
    assert out["input_ids"] == [1, 2, 3, 10, 11, 4, 12]
    assert out["position_ids"] == [0, 1, 2, 3, 4, 2, 3]
    assert out["block"] == [0, 0, 1, 1, 1, 2, 2]
    assert out["labels"] == [IGNORED, IGNORED, IGNORED, IGNORED, 11, IGNORED, 12]


def test_pairs_that_share_the_whole_question_still_predict_apart():
    """Two answers to one question: the position that predicts their first tokens must not be shared."""
    pairs = [EncodedPair([1, 2, 3, 10], [(3, 4)]), EncodedPair([1, 2, 3, 20], [(3, 4)])]
    out = lay_out(pairs, shared_prefix_length(pairs))
    assert out["input_ids"] == [1, 2, 3, 10, 3, 20]
    assert out["labels"] == [IGNORED, IGNORED, IGNORED, 10, IGNORED, 20]


def test_a_template_without_stop_token_is_refused(tiny_model):
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
    )
    collator = SharedPrefixCollator(tiny_model[1], chat_template=template)
    with pytest.raises(ValueError, match="stop token"):
        collator(ROWS)


def test_the_mask_is_the_rule_for_every_pair_of_positions(tiny_model):
    """Row by row from each sequence laid out alone: a position sees its own sequence's prefix and its own pair."""
    _, processor = tiny_model
    rows = [*ROWS, {**ROWS[1], "rna_id": "c", "sequence": "ACG" * 9}]
    collator = SharedPrefixCollator(processor, pack=True)
    batch = collator(rows)
    laid_out = [sequence for row in rows for sequence in collator.lay_out_row(row)[0]]
    lengths = [len(sequence["input_ids"]) for sequence in laid_out]
    for members, ids, mask in zip(fill_rows(lengths), batch["input_ids"], batch["attention_mask"][:, 0], strict=True):
        places = [(i, block) for i in members for block in laid_out[i]["block"]]
        places += [(-1 - k, 0) for k in range(len(ids) - len(places))]  # padding: each alone
        for query, (sequence, block) in enumerate(places):
            seen = [key <= query and other == sequence and of in (0, block) for key, (other, of) in enumerate(places)]
            assert seen == (mask[query] == 0).tolist()
