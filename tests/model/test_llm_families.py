"""Every family of LLMs keeps its own forward in RNA-GPT: head, scaling, caps, windows, caches, bit for bit."""

import pytest
from llm_families import FAMILIES, build

TEXT = "What type of RNA is this? It is from yeast, a fungus. It carries an amino acid to the ribosome."


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tiny_model):
    """(bare LLM, RNA-GPT around a copy of it, tokenizer)."""
    import copy

    from modeling_rnagpt import RnaGptForCausalLM

    llm, tokenizer = build(FAMILIES[request.param])
    encoder = copy.deepcopy(tiny_model[0].model.rna_encoder)
    model = RnaGptForCausalLM.from_encoder_and_llm(encoder, copy.deepcopy(llm), rna_token_id=len(tokenizer))
    return llm, model, tokenizer


def test_text_logits_are_the_bare_llms_bit_for_bit(family):
    import torch

    llm, model, tokenizer = family
    ids = torch.tensor([tokenizer(text)["input_ids"][:24] for text in (TEXT, TEXT[::-1])])
    with torch.inference_mode():
        wanted = llm(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.equal(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, wanted)
        chosen = torch.rand(ids.shape) < 0.5
        kept = model(input_ids=ids, logits_to_keep=chosen).logits
        assert torch.allclose(kept, llm(input_ids=ids).logits[chosen], atol=1e-5)


def test_generated_tokens_are_the_bare_llms(family):
    import torch

    llm, model, tokenizer = family
    ids = tokenizer(TEXT[:40], return_tensors="pt")["input_ids"]
    settings = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    settings |= {"pad_token_id": tokenizer.eos_token_id, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **settings), llm.generate(ids, **settings))


def test_saved_and_loaded_again_it_is_the_same(family, tmp_path):
    import torch

    from modeling_rnagpt import RnaGptForCausalLM

    _, model, tokenizer = family
    model.save_pretrained(tmp_path)
    again = RnaGptForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
