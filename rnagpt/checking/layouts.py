"""Whether an LLM may share the prefix of an RNA's questions, and have several sequences in a row, without a change.

Recurrent layers carry their state from one question to the next, ALiBi counts its distances along the row: such LLMs
get a row for every question. Found out by comparing losses on a tiny twin, not by a list of names.
"""

import sys
from dataclasses import dataclass

TOLERANCE = 1e-4  # nats, of a token's log-probability in fp32
_FOUND: dict[str, "Layouts"] = {}  # by the configuration


@dataclass(frozen=True)
class Layouts:
    """What is exact: one sequence for all questions of an RNA (share_prefix), several sequences in a row (pack)."""

    share_prefix: bool
    pack: bool


def exact_layouts(text_config) -> Layouts:
    """Which of the training layouts give an LLM of this configuration the losses of separate rows."""
    key = text_config.to_json_string(use_diff=False)
    if key not in _FOUND:
        _FOUND[key] = compare_layouts(text_config)
    return _FOUND[key]


def compare_layouts(text_config) -> Layouts:
    """See `exact_layouts`, which asks once for each configuration."""
    import torch

    from processing_rnagpt.collator import lay_out
    from rnagpt.checking.twins import twin_of

    llm = twin_of(text_config)
    if llm is None or getattr(llm, "_is_stateful", False):  # the family's own word for layers that carry a state
        return Layouts(False, False)
    model = around(llm)
    groups = pairs_of_tokens()
    singles = [lay_out([pair], 0) for group in groups for pair in group]
    shared = [lay_out(group, 12) for group in groups]
    rows = [[i] for i in range(len(singles))]
    with torch.inference_mode():
        wanted = losses(model, singles, rows)
        if wanted is None or not torch.isfinite(wanted).all():
            return Layouts(False, False)
        alone = [losses(model, [one], [[0]]) for one in singles]
        if not close(torch.cat(alone), wanted):  # not even a batch of padded rows
            return Layouts(False, False)
        return Layouts(
            share_prefix=close(losses(model, shared, [[i] for i in range(len(shared))]), wanted),
            pack=close(losses(model, singles, [[i for row in rows for i in row]]), wanted),
        )


def allowed_layout(text_config, share_prefix: bool, pack: bool) -> tuple[bool, bool]:
    """The recipe's `share_prefix` and `pack`, those left out that would change this LLM's losses; tells it."""
    if not (share_prefix or pack):
        return share_prefix, pack
    exact = exact_layouts(text_config)
    allowed = share_prefix and exact.share_prefix, pack and exact.pack
    if allowed != (share_prefix, pack):
        print(
            f"note: {text_config.model_type} is not shown to compute the same where questions share "
            f"{'an RNA' if share_prefix and not allowed[0] else 'a row'} (its layers carry a state, or count along "
            "the row), so each is laid out on its own",
            file=sys.stderr,
        )
    return allowed


def around(llm):
    """An RNA-GPT around an LLM, with the smallest of encoders."""
    from transformers import EsmConfig, EsmModel

    from modeling_rnagpt import RnaGptForCausalLM

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder = EsmModel(EsmConfig(vocab_size=8, pad_token_id=1, **small), add_pooling_layer=False)
    return RnaGptForCausalLM.from_encoder_and_llm(encoder, llm, rna_token_id=llm.config.vocab_size)


def pairs_of_tokens() -> list[list]:
    """Two groups of three pairs of question and answer, each after a prefix of twelve tokens that it shares."""
    import random

    from processing_rnagpt.collator import EncodedPair

    rng, groups = random.Random(0), []
    for _ in range(2):
        prefix = [rng.randrange(3, 60) for _ in range(12)]
        sizes = [rng.randrange(8, 14) for _ in range(3)]
        texts = [[*prefix, *(rng.randrange(3, 60) for _ in range(size))] for size in sizes]
        groups.append([EncodedPair(text, [(16, len(text))]) for text in texts])
    return groups


def losses(model, sequences: list[dict], bins: list[list[int]]):
    """Loss of each answer token (tokens,), in the sequences' order; None where the LLM does not take the mask."""
    import torch

    from processing_rnagpt.collator import IGNORED, batch_of

    batch = batch_of(sequences, bins, 0)
    labels = batch.pop("labels")[:, 1:]
    del batch["loss_weights"]
    try:
        logits = model(**batch, use_cache=False).logits[:, :-1].float()
    except Exception:  # noqa: BLE001  whatever a family raises at a mask that it cannot take
        return None
    answers = labels != IGNORED
    return torch.nn.functional.cross_entropy(logits[answers], labels[answers], reduction="none")


def close(found, wanted) -> bool:
    """Whether the losses are there and the same."""
    return found is not None and bool((found - wanted).abs().max() <= TOLERANCE)
