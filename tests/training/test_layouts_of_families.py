"""Shared prefixes and packed rows only where they are exact, for every family; windows joined into the mask."""

import pytest
from llm_families import FAMILIES, build

SEPARATE = {"lfm2", "qwen3_next", "mamba", "mamba2", "bloom", "falcon_alibi", "mpt"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_shares_and_packs_exactly_or_has_rows_of_its_own(name, capsys):
    import torch

    from processing_rnagpt.collator import lay_out
    from rnagpt.checking.layouts import allowed_layout, around, exact_layouts, losses, pairs_of_tokens

    llm, _ = build(FAMILIES[name])
    exact = exact_layouts(llm.config)
    assert exact.share_prefix == (name not in SEPARATE)
    # ALiBi's distances are relative, so MPT may pack: nothing but the place in the row changes
    assert exact.pack == (name not in SEPARATE or name == "mpt")
    assert allowed_layout(llm.config, True, False) == (name not in SEPARATE, False)
    assert ("laid out on its own" in capsys.readouterr().err) == (name in SEPARATE)
    if name in SEPARATE:
        return
    # and so it is on the LLM itself, not on its twin alone
    model, groups = around(llm), pairs_of_tokens()
    singles = [lay_out([pair], 0) for group in groups for pair in group]
    with torch.inference_mode():
        alone = torch.cat([losses(model, [one], [[0]]) for one in singles])
        shared = losses(model, [lay_out(group, 12) for group in groups], [[0, 1]])
    torch.testing.assert_close(shared, alone, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama3", "gemma2", "gemma3_text", "granite"])
def test_a_ridge_start_makes_soft_tokens_as_long_as_what_the_llm_reads_for_a_token(name):
    import torch

    from rnagpt.checking.layouts import around
    from rnagpt.training.trainer import ridge_start

    model = around(build(FAMILIES[name])[0])
    generator = torch.Generator().manual_seed(0)
    features = {f"r{i}": torch.randn(10, 8, generator=generator) for i in range(20)}
    ids = {name: [3 + i, 40 + i] for i, name in enumerate(features)}
    ridge_start(model, features, ids)
    tokens = model.model.embed(torch.arange(64)[None])[0]
    soft_tokens = model.model.projector(torch.cat(list(features.values())))
    assert 0.5 < float(soft_tokens.norm(dim=-1).mean() / tokens.norm(dim=-1).mean()) < 2
