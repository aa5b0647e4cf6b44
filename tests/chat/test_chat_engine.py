"""The engine against transformers' own `generate`: with and without kept keys and values, alone and in company.

pytest tests/chat/test_chat_engine.py
"""

import time

import numpy as np
import pytest
import torch
from test_chat import LET7, TRNA, TYPE, YEAST, said_directly, user_turn

from rnagpt.chat.conversation import Conversation
from rnagpt.serving.decoding import AnswerStream, Sampling, sample
from rnagpt.serving.engine import Engine
from rnagpt.serving.key_values import PrefixCache
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import Record


def answer_to(engine, messages, n=12, **options):
    answer = engine.prepare(messages, Sampling(max_new_tokens=n, **options))
    engine.run([answer])
    return answer


# --- what is kept between turns changes nothing


def test_turns_with_kept_keys_equal_those_without(tiny_model):
    questions = [TYPE, YEAST, "Is this a ribosomal RNA?", TYPE, YEAST]
    kept, anew = Conversation(Engine(*tiny_model)), Conversation(Engine(*tiny_model, cached_bytes=0))
    turns = []
    for conversation in (kept, anew):
        conversation.read(TRNA)
    for number, question in enumerate(questions):
        answers = [conversation.ask(question, Sampling(8)) for conversation in (kept, anew)]
        turns.append(user_turn(question, TRNA if number == 0 else None))
        assert answers[0] == answers[1] == said_directly(tiny_model, turns, 8)
        turns.append({"role": "assistant", "content": answers[0]})
        assert anew.last.cached_tokens == 0
        # all of the earlier turns, the RNA above all, was taken from what is kept
        assert (kept.last.cached_tokens > len(TRNA)) == (number > 0)
        np.testing.assert_allclose(kept.last.logprobs, anew.last.logprobs, atol=2e-5)


def test_the_rna_is_encoded_once(tiny_model, monkeypatch):
    model, processor = tiny_model
    calls = []
    encode = model.model.encode_rna
    monkeypatch.setattr(model.model, "encode_rna", lambda **inputs: calls.append(1) or encode(**inputs))
    conversation = Conversation(Engine(model, processor))
    conversation.read(TRNA)
    for question in (TYPE, YEAST):
        conversation.ask(question, Sampling(4))
    conversation.forget()
    conversation.ask(YEAST, Sampling(4))
    assert len(calls) == 1


def test_another_rna_of_the_same_length_shares_only_what_stands_before_it(tiny_model):
    engine = Engine(*tiny_model)
    other = TRNA.sequence[::-1]
    first = answer_to(engine, [user_turn(TYPE, TRNA)])
    second = answer_to(engine, [user_turn(TYPE, Record("x", "", other))])
    placeholders = first.prompt_ids.index(engine.processor.rna_token_id)
    assert first.prompt_ids == second.prompt_ids
    assert second.cached_tokens == placeholders
    assert second.text == said_directly(tiny_model, [user_turn(TYPE, Record("x", "", other))], 12)


def test_several_rnas_in_one_question(tiny_model):
    conversation = Conversation(Engine(*tiny_model))
    conversation.read(TRNA, LET7)
    parts = [("text", "RNA 1:"), ("rna", TRNA.sequence), ("text", "RNA 2:"), ("rna", LET7.sequence)]
    parts.append(("text", "Which of these two is a tRNA?"))
    turns = [{"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}]
    first = conversation.ask("Which of these two is a tRNA?", Sampling(10))
    assert first == said_directly(tiny_model, turns, 10)
    turns += [{"role": "assistant", "content": first}, user_turn(YEAST)]
    assert conversation.ask(YEAST, Sampling(10)) == said_directly(tiny_model, turns, 10)
    assert conversation.last.cached_tokens > len(TRNA) + len(LET7)
    conversation.read(LET7, TRNA)  # the other order is another question
    assert conversation.ask("Which of these two is a tRNA?", Sampling(10)) != first


# --- in company as alone


def conversations() -> list[list[dict]]:
    rnas = [TRNA, LET7, Record("n", "", "ACGU"), None]
    return [[user_turn(question, rna)] for rna in rnas for question in (TYPE, "Is it? " * 9)]


def test_answered_together_as_alone(tiny_model):
    expected = [said_directly(tiny_model, messages, 14) for messages in conversations()]
    for cached_bytes in (0, 1 << 30):
        engine = Engine(*tiny_model, max_answers=3, cached_bytes=cached_bytes)
        for _ in range(2):  # the second time prompts are found in the cache
            answers = [engine.prepare(messages, Sampling(14)) for messages in conversations()]
            engine.run(answers)
            assert [answer.text for answer in answers] == expected
            assert {answer.finish_reason for answer in answers} == {"length"}
    assert all(answer.cached_tokens == len(answer.prompt_ids) - 1 for answer in answers)


def test_answers_join_and_leave_while_others_go_on(tiny_model):
    engine = Engine(*tiny_model)
    expected = [said_directly(tiny_model, messages, 5 + 3 * i) for i, messages in enumerate(conversations())]
    answers = [engine.prepare(messages, Sampling(5 + 3 * i)) for i, messages in enumerate(conversations())]
    for answer in answers:  # one joins at each second step; the short ones are gone before the last come
        engine.start(answer)
        engine.step()
        engine.step()
    assert len(engine.active) < len(answers)
    while engine.busy:
        engine.step()
    assert [answer.text for answer in answers] == expected


def test_cancelled_and_late_answers_leave_the_others_alone(tiny_model):
    engine = Engine(*tiny_model, max_answers=2)
    done = []
    first, second, third = (
        engine.prepare([user_turn(TYPE, rna)], Sampling(20), when_done=done.append) for rna in (TRNA, LET7, TRNA)
    )
    third.deadline = time.monotonic() - 1  # while it waits
    for answer in (first, second, third):
        engine.start(answer)
    for _ in range(5):
        engine.step()
    second.cancel()
    while engine.busy:
        engine.step()
    assert [a.finish_reason for a in (first, second, third)] == ["length", "cancelled", "timeout"]
    assert len(done) == 3 and done[-1] is first
    assert first.text == said_directly(tiny_model, [user_turn(TYPE, TRNA)], 20)
    assert 0 < len(second.token_ids) < 20 and third.token_ids == []


def test_each_answer_draws_by_its_own_seed(tiny_model):
    engine = Engine(*tiny_model)
    alone = answer_to(engine, [user_turn(TYPE, TRNA)], temperature=1.0, seed=5).text
    answers = [
        engine.prepare([user_turn(TYPE, TRNA)], Sampling(12, temperature=1.0, seed=seed)) for seed in (5, 6, 7, 5)
    ]
    engine.run(answers)
    texts = [answer.text for answer in answers]
    assert texts[0] == texts[3] == alone and len(set(texts)) > 1


# --- numbers


def test_the_placeholder_is_never_drawn(tiny_model, monkeypatch):
    engine = Engine(*tiny_model)
    forward = engine.forward

    def favouring(*arguments):
        logits, held = forward(*arguments)
        logits[:, engine.processor.rna_token_id] = 1e9
        return logits, held

    monkeypatch.setattr(engine, "forward", favouring)
    for temperature in (0.0, 1.0):
        answer = answer_to(engine, [user_turn(TYPE, TRNA)], n=3, temperature=temperature, seed=0)
        assert len(answer.token_ids) == 3 and engine.processor.rna_token_id not in answer.token_ids


def test_logprobs_are_the_models_own(tiny_model):
    model, processor = tiny_model
    engine = Engine(*tiny_model)
    answer = engine.prepare([user_turn(TYPE, TRNA)], Sampling(10), confidence=True)
    engine.run([answer])
    for messages, found in (
        ([user_turn(TYPE, TRNA)], answer.logprobs),
        ([{"role": "user", "content": TYPE}], answer.plain_logprobs),
    ):
        batch = processor(messages)
        ids = torch.cat([batch["input_ids"], torch.tensor([answer.token_ids])], dim=1)
        batch = {name: batch[name] for name in batch if name.startswith("rna")}
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **batch).logits[0, :-1]
        n = len(answer.token_ids)
        expected = torch.log_softmax(logits[-n:], -1)[torch.arange(n), ids[0, -n:]]
        np.testing.assert_allclose(found, expected.tolist(), atol=2e-5)


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def shares(sampling):
        drawn = torch.tensor([sample(logits, sampling, generator) for _ in range(4000)])
        return (torch.bincount(drawn, minlength=4) / 4000).numpy()

    np.testing.assert_allclose(shares(Sampling(temperature=1.0)), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(shares(Sampling(temperature=0.5)), squared / squared.sum(), atol=0.03)
    np.testing.assert_allclose(shares(Sampling(temperature=1.0, top_p=0.7)), [0.625, 0.375, 0, 0], atol=0.03)
    assert shares(Sampling(temperature=1.0, top_p=0))[0] == 1


def test_repetition_penalty_of_the_llms_settings_holds(tiny_model, monkeypatch):
    monkeypatch.setattr(tiny_model[0].generation_config, "repetition_penalty", 1.5)
    engine = Engine(*tiny_model)
    text = answer_to(engine, [user_turn(TYPE, None)], n=20).text
    assert text == said_directly(tiny_model, [user_turn(TYPE, None)], 20)
    monkeypatch.setattr(tiny_model[0].generation_config, "repetition_penalty", 1.0)
    assert text != said_directly(tiny_model, [user_turn(TYPE, None)], 20)


# --- ends


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(tiny_model):
    whole = said_directly(tiny_model, [user_turn(TYPE, TRNA)], 30)
    stop = whole[12:16]
    pieces = []
    engine = Engine(*tiny_model)
    sampling = Sampling(30, stop=(stop, "never said"))
    answer = engine.prepare([user_turn(TYPE, TRNA)], sampling, stream_to=pieces.append)
    engine.run([answer])
    assert "".join(pieces) == answer.text == whole[: whole.index(stop)].rstrip()
    assert answer.finish_reason == "stop" and len(answer.token_ids) < 30


def test_a_stop_text_over_several_tokens_is_held_back(tiny_model):
    tokenizer = tiny_model[1].tokenizer
    pieces = []
    stream = AnswerStream(tokenizer, pieces.append, ("###END", "##?"))
    for token in tokenizer("a ## b ###ENX ###END tail")["input_ids"]:
        stream.add(token)
        assert "###END" not in "".join(pieces)
        if stream.stopped:
            break
    stream.end()
    assert "".join(pieces) == stream.text == "a ## b ###ENX"


def test_an_error_while_answering_leaves_a_usable_engine(tiny_model):
    engine = Engine(*tiny_model)

    def broken(piece):
        raise OSError("the reader is gone")

    answers = [engine.prepare([user_turn(TYPE, rna)], Sampling(9), stream_to=broken) for rna in (TRNA, LET7)]
    with pytest.raises(OSError, match="reader is gone"):
        engine.run(answers)
    assert not engine.busy and {answer.finish_reason for answer in answers} == {"cancelled"}
    assert answer_to(engine, [user_turn(TYPE, TRNA)]).text == said_directly(tiny_model, [user_turn(TYPE, TRNA)], 12)


@pytest.mark.parametrize(("rna", "sentence"), [("ACGE", "'E' at position 4"), ("A" * 10_000_000, "10,000,000 nt")])
def test_an_rna_that_cannot_be_read(tiny_model, rna, sentence):
    with pytest.raises(UserError, match=sentence):
        Engine(*tiny_model).prepare([user_turn(TYPE, Record("x", "", rna))])


def test_messages_that_are_empty_can_be_answered(tiny_model):
    engine = Engine(*tiny_model)
    rna_alone = {"role": "user", "content": [{"type": "rna", "rna": TRNA.sequence}]}
    for messages in (
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": ""}]}],
        [user_turn(TYPE, TRNA), {"role": "assistant", "content": ""}, user_turn(YEAST)],
        [rna_alone],
    ):
        answer = engine.prepare(messages, Sampling(2), confidence=True)
        engine.run([answer])
        assert len(answer.token_ids) == 2 and (answer.plain_logprobs is None) == (not answer.rnas)


# --- the cache itself


def layers(length: int, value: float = 0.0):
    return [(torch.full((1, 2, length, 4), value), torch.full((1, 2, length, 4), value))]  # 64 bytes a token


def test_prefix_cache_finds_the_longest_and_forgets_the_oldest():
    cache = PrefixCache(max_bytes=64 * 10)
    cache.put(np.array([1, 2, 3]), layers(3, 1.0))
    cache.put(np.array([1, 2, 3, 4]), layers(4, 2.0))  # takes the place of what it begins with
    assert (len(cache.entries), cache.bytes) == (1, 256)
    cache.put(np.array([1, 9, 9]), layers(3, 3.0))
    length, found = cache.longest(np.array([1, 2, 3, 5, 6]))
    assert length == 3 and found[0][0].shape == (1, 2, 3, 4) and found[0][0].unique().tolist() == [2.0]
    assert cache.longest(np.array([7, 2, 3])) == (0, [])
    cache.put(np.array([8] * 6), layers(6))  # 13 tokens: the one used longest ago goes
    assert cache.longest(np.array([1, 9, 9]))[0] == 1 and cache.bytes == 640
    cache.put(np.array([5] * 11), layers(11))  # too large to hold at all
    assert cache.bytes == 640
