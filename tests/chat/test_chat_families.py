"""Answers of every family: together as alone, and alone as the bare LLM's own `generate` gives them."""

import copy

import pytest
from llm_families import FAMILIES, build

# BLOOM and Falcon count ALiBi's distances without the gaps in a row, MPT with them
ALONE = {"lfm2", "qwen3_next", "mamba", "mamba2", "mpt"}
TEXTS = [
    "What type of RNA is this?",
    "Is it from yeast? Which organism is it from, then, and what does it carry?",
    "No.",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_concurrent_answers_are_those_of_each_alone(name, tiny_model, capsys):
    import torch

    from modeling_rnagpt import RnaGptForCausalLM
    from processing_rnagpt import RnaGptProcessor
    from rnagpt.serving.decoding import Sampling
    from rnagpt.serving.engine import Engine

    llm, tokenizer = build(FAMILIES[name])
    tiny, tiny_processor = tiny_model
    processor = RnaGptProcessor(tokenizer, tiny_processor.rna_tokenizer)
    model = RnaGptForCausalLM.from_encoder_and_llm(
        copy.deepcopy(tiny.model.rna_encoder),
        llm,
        rna_token_id=processor.rna_token_id,
        rna_drop_token_ids=processor.rna_drop_token_ids,
    )
    model.generation_config.eos_token_id = None
    rnas = ["GCGGAUUUAGCUCAGUUGGGAGAGC", "UGAGGUAGUAGGUUGUAUAGUU", None]
    asked = [
        [
            {
                "role": "user",
                "content": [*([{"type": "rna", "rna": rna}] if rna else []), {"type": "text", "text": text}],
            }
        ]
        for text, rna in zip(TEXTS, rnas, strict=True)
    ]
    together = Engine(model, processor)
    answers = [together.prepare(messages, Sampling(max_new_tokens=10)) for messages in asked]
    together.run(answers)
    assert together.together == (name not in ALONE)
    for messages, answer in zip(asked, answers, strict=True):
        alone = Engine(model, processor, cached_bytes=0)
        single = alone.prepare(messages, Sampling(max_new_tokens=10))
        alone.run([single])
        assert single.token_ids == answer.token_ids
        torch.testing.assert_close(torch.tensor(single.logprobs), torch.tensor(answer.logprobs), atol=1e-3, rtol=0)
        batch = processor(messages)
        length = batch["input_ids"].shape[1]
        settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": processor.tokenizer.pad_token_id}
        told = model.generate(**batch, **settings, suppress_tokens=None)[0, length:].tolist()
        assert told[: len(answer.token_ids)] == answer.token_ids
    # a second turn goes on from what is kept, or is computed anew
    turn = [*asked[0], {"role": "assistant", "content": answers[0].text or "-"}, {"role": "user", "content": "Why?"}]
    kept, anew = (engine.prepare(turn, Sampling(max_new_tokens=6)) for engine in (together, Engine(model, processor)))
    together.run([kept])
    Engine(model, processor, cached_bytes=0).run([anew])
    assert kept.token_ids == anew.token_ids and (kept.cached_tokens > 0) == (name not in ALONE)
