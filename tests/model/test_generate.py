"""What `generate` can do, with RNAs of several lengths, one over the encoder's limit (120 nt here)."""

import copy

import pytest
import torch
from test_model import ask

LONG = "ACGUUGCAGGCU" * 14  # 168 nt: two windows
RNAS = ["ACGUACGUACGGGUUUAC", LONG, "ACG"]
TOKENS = 10


def conversations() -> list[list[dict]]:
    """One RNA, a long one, two RNAs in one turn, RNAs in two turns, none."""
    rnas = [{"type": "rna", "rna": rna} for rna in (RNAS[0], RNAS[2])]
    return [
        ask(RNAS[0]),
        ask(LONG),
        [{"role": "user", "content": [*rnas, {"type": "text", "text": "Which is a tRNA?"}]}],
        [*ask(RNAS[0]), {"role": "assistant", "content": "It is a transfer RNA."}, *ask(RNAS[2], "And this?")],
        [{"role": "user", "content": "What type of RNA is this?"}],
    ]


def answers(model, processor, messages, **kwargs) -> torch.Tensor:
    """New tokens (rows, at most TOKENS)."""
    batch = processor(messages)
    out = model.generate(**batch, **{"max_new_tokens": TOKENS, "do_sample": False, **kwargs})
    return out[:, batch["input_ids"].shape[1] :]


def greedy_by_hand(model, processor, messages) -> list[int]:
    """The likeliest token again and again, from the whole prompt each time: no cache, no `generate`."""
    batch, new = processor(messages), []
    stop = model.generation_config.eos_token_id
    suppressed = model.generation_config.suppress_tokens or []
    while len(new) < TOKENS and (not new or new[-1] != stop):
        logits = model(**batch).logits[0, -1]
        logits[suppressed] = -torch.inf
        new.append(int(logits.argmax()))
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[new[-1]]])], dim=1)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return new


def assert_begins(row: torch.Tensor, expected: list[int]) -> None:
    """`row` is `expected`, then only padding."""
    assert row[: len(expected)].tolist() == expected
    assert len(set(row[len(expected) :].tolist())) <= 1


@torch.no_grad()
@pytest.mark.parametrize("cache", [{"use_cache": True}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_left_padded_batches_with_each_cache_equal_single_prompts_by_hand(tiny_model, cache):
    model, processor = tiny_model
    together = answers(model, processor, conversations(), **cache)
    for row, messages in zip(together, conversations(), strict=True):
        assert_begins(row, greedy_by_hand(model, processor, messages))


@torch.no_grad()
def test_beams_in_a_batch_equal_beams_alone_and_find_likelier_answers_than_greedy(tiny_model):
    model, processor = tiny_model
    beams = {"num_beams": 4, "length_penalty": 0.0}
    together = answers(model, processor, conversations(), **beams)
    gains = []
    for row, messages in zip(together, conversations(), strict=True):
        alone = answers(model, processor, messages, **beams)[0]
        assert_begins(row, alone.tolist())
        gains.append(log_likelihood(model, processor, messages, alone.tolist()))
        gains[-1] -= log_likelihood(model, processor, messages, greedy_by_hand(model, processor, messages))
    assert min(gains) > -1e-4 and max(gains) > 1e-3


def log_likelihood(model, processor, messages, answer: list[int]) -> float:
    batch = processor(messages)
    start = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([answer])], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    logits = model(**batch).logits[0, start - 1 : -1]
    logits[:, model.generation_config.suppress_tokens or []] = -torch.inf
    return float(logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())


@torch.no_grad()
def test_sampling_repeats_with_its_seed_and_only_with_it(tiny_model):
    model, processor = tiny_model

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return answers(model, processor, conversations(), do_sample=True, temperature=3.0, min_new_tokens=TOKENS)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@torch.no_grad()
def test_several_samples_of_each_prompt(tiny_model):
    model, processor = tiny_model
    torch.manual_seed(0)
    drawn = answers(model, processor, conversations(), do_sample=True, num_return_sequences=3, top_k=1)
    assert drawn.shape[0] == 3 * len(conversations())
    for i, messages in enumerate(conversations()):  # top_k=1 leaves no choice
        for row in drawn[3 * i : 3 * i + 3]:
            assert_begins(row, greedy_by_hand(model, processor, messages))


@torch.no_grad()
@pytest.mark.parametrize("number", range(5))
def test_prompt_lookup_equals_greedy(tiny_model, number):
    """Proposals come out of the prompt, where most tokens are placeholders."""
    model, processor = tiny_model
    messages = conversations()[number]
    found = answers(model, processor, messages, prompt_lookup_num_tokens=4, max_matching_ngram_size=1)
    assert_begins(found[0], greedy_by_hand(model, processor, messages))


@torch.no_grad()
def test_placeholders_proposed_from_the_prompt_are_never_taken(tiny_model):
    """ "<RNA" stands before the placeholders in the prompt: made the likeliest answer, it proposes placeholders."""
    model, processor = copy.deepcopy(tiny_model)
    batch = processor(ask(RNAS[0]))
    ids = batch["input_ids"][0].tolist()
    before = ids[ids.index(processor.rna_token_id) - 1]
    bias = torch.zeros(model.lm_head.out_features)
    bias[before] = 1e4
    model.lm_head.bias = torch.nn.Parameter(bias)
    out = answers(model, processor, ask(RNAS[0]), prompt_lookup_num_tokens=4, max_matching_ngram_size=1)
    assert out.tolist() == [[before] * TOKENS]


@torch.no_grad()
def test_an_assistant_model_changes_nothing(tiny_model):
    from transformers import LlamaForCausalLM

    model, processor = tiny_model
    torch.manual_seed(3)
    messages = conversations()[4]  # an assistant that reads text only is for prompts of text only
    assistant = LlamaForCausalLM(copy.deepcopy(model.config.text_config)).eval()
    assert_begins(
        answers(model, processor, messages, assistant_model=assistant)[0], greedy_by_hand(model, processor, messages)
    )


@torch.no_grad()
@pytest.mark.parametrize("number", range(5))
def test_a_streamer_passes_on_the_answer_as_it_is_made(tiny_model, number):
    from transformers.generation.streamers import BaseStreamer

    class Kept(BaseStreamer):
        def __init__(self):
            self.pieces, self.ended = [], False

        def put(self, value):
            self.pieces.append(value.flatten().tolist())

        def end(self):
            self.ended = True

    model, processor = tiny_model
    streamer = Kept()
    messages = conversations()[number]
    out = answers(model, processor, messages, streamer=streamer)
    prompt, *new = streamer.pieces
    assert prompt == processor(messages)["input_ids"][0].tolist()
    assert [token for piece in new for token in piece] == out[0].tolist() and streamer.ended
    assert all(len(piece) == 1 for piece in new)


@torch.no_grad()
def test_scores_are_the_logits_of_the_whole_text(tiny_model):
    model, processor = tiny_model
    batch = processor(ask(LONG))
    kwargs = {"max_new_tokens": TOKENS, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    out = model.generate(**batch, **kwargs)
    whole = {**batch, "input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences)}
    expected = model(**whole).logits[0, batch["input_ids"].shape[1] - 1 : -1]
    assert (torch.cat(out.logits) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_cached_features_give_the_same_answer(tiny_model):
    model, processor = tiny_model
    batch = processor(ask(LONG))
    features, (slots,) = model.model.encode_rna(*(batch[f"rna_{n}"] for n in ("input_ids", "attention_mask", "index")))
    out = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        rna_features=features[None, None],
        rna_feature_mask=torch.ones(1, 1, int(slots)),
        max_new_tokens=TOKENS,
        do_sample=False,
        num_beams=2,
    )
    expected = answers(model, processor, ask(LONG), num_beams=2)
    assert torch.equal(out[:, batch["input_ids"].shape[1] :], expected)


@torch.no_grad()
def test_a_second_turn_goes_on_from_the_first_ones_cache(tiny_model):
    model, processor = tiny_model
    first = processor(ask(RNAS[0]))
    out = model.generate(**first, max_new_tokens=4, min_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    more = processor.tokenizer("<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n", return_tensors="pt")["input_ids"]
    ids = torch.cat([out.sequences, more], dim=1)
    second = {**first, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    kwargs = {"max_new_tokens": TOKENS, "do_sample": False}
    went_on = model.generate(**second, **kwargs, past_key_values=out.past_key_values)
    assert torch.equal(went_on, model.generate(**second, **kwargs))


@torch.no_grad()
def test_embeddings_may_stand_in_for_text(tiny_model):
    model, processor = tiny_model
    batch = processor(conversations()[4])
    out = model.generate(
        inputs_embeds=model.get_input_embeddings()(batch["input_ids"]),
        attention_mask=batch["attention_mask"],
        max_new_tokens=TOKENS,
        do_sample=False,
    )
    assert_begins(out[0], greedy_by_hand(model, processor, conversations()[4]))


def test_wrong_counts_and_missing_rnas_stop_before_anything_is_generated(tiny_model):
    model, processor = tiny_model
    batch = processor([ask(RNAS[0]), ask(RNAS[2])])
    with pytest.raises(ValueError, match="21 <RNAHere> placeholders, but no RNA was given"):
        model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=2)
    other = processor([ask(RNAS[0]), ask("ACGU")])
    with pytest.raises(ValueError, match="21 <RNAHere> placeholders, but the RNAs give 22 soft tokens"):
        model.generate(**{**other, "input_ids": batch["input_ids"]}, max_new_tokens=2)


def test_text_and_embeddings_together_or_neither_are_refused(tiny_model):
    model, processor = tiny_model
    batch = processor(ask(RNAS[0]))
    embeddings = torch.zeros(1, 3, 32)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(input_ids=batch["input_ids"], inputs_embeds=embeddings)
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="RNA inputs need input_ids"):
        model(inputs_embeds=embeddings, **{n: batch[n] for n in ("rna_input_ids", "rna_attention_mask")})
    with pytest.raises(ValueError, match="rna_features needs rna_feature_mask"):
        model(input_ids=batch["input_ids"], rna_features=torch.zeros(1, 1, 18, 32))


@torch.no_grad()
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_decode_step_compiles_whole_and_stays_exact(tiny_model, backend):
    from transformers import StaticCache

    model, processor = tiny_model
    batch = processor(ask(RNAS[0]))
    length = batch["input_ids"].shape[1]
    expected = greedy_by_hand(model, processor, ask(RNAS[0]))
    torch.compiler.reset()
    step = torch.compile(model.forward, fullgraph=True, backend=backend)
    cache = StaticCache(config=model.config.text_config, max_cache_len=length + TOKENS)
    logits = model(**batch, past_key_values=cache, use_cache=True).logits[:, -1]
    found = []
    for i in range(len(expected)):
        logits[:, model.generation_config.suppress_tokens or []] = -torch.inf
        found.append(int(logits.argmax()))
        logits = step(
            input_ids=torch.tensor([[found[-1]]]),
            position_ids=torch.tensor([[length + i]]),
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    torch.compiler.reset()
    assert found == expected
