"""How likely a model holds the true answer, with the true RNA and with another one; and how sure it is of a label.

    scored = with_likelihoods(CheckpointAnswers(model, processor), items, inputs, option_wordings(items))
    scored[0].reference_logprob, scored[0].option_logprobs

A generated answer is right or wrong; its likelihood moves before that does, so it shows a little reading of the RNA
that accuracy cannot. A model that ignores the RNA gives the same likelihood whatever RNA it gets.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice

import torch

from processing_rnagpt.collator import IGNORED, EncodedPair, block_mask, lay_out
from rnagpt.evaluation.asking.answers import CheckpointAnswers, Inputs, conversation
from rnagpt.evaluation.asking.items import Item


def with_likelihoods(
    source: CheckpointAnswers,
    items: Sequence[Item],
    inputs: Inputs,
    wordings: dict[str, dict[str, str]],
    options: bool = True,
) -> list[Item]:
    """The items with `reference_logprob` (mean per token, nats) and, where they have a label and `options` are wanted,
    `option_logprobs` (of the whole answer, nats); the RNA is that of `inputs`. wordings: of `option_wordings`.
    """
    pairs = []
    for item in items:
        words = wordings.get(item.topic, {})
        labels = [words.get(label, label) for label in item.options] if item.gold and options else []
        given = inputs[item.rna_id]
        prompt = conversation(item, given and given[1], source.as_text)
        pairs.append([(prompt, text) for text in (item.reference, *labels)])
    values = iter(answer_logprobs(source.model, source.processor, list(chain.from_iterable(pairs))))
    scored = []
    for item, of_item in zip(items, pairs, strict=True):
        (total, tokens), *labels = islice(values, len(of_item))
        logprobs = tuple(of_label for of_label, _ in labels)
        scored.append(replace(item, reference_logprob=total / tokens, option_logprobs=logprobs))
    return scored


def option_wordings(items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """Topic -> label -> how an answer with this label is worded: the commonest reference that has it.

    "Yes" and "No" alone, because what follows them depends on the question.
    """
    counts: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        counts[item.topic][item.gold][item.reference] += 1
    return {
        topic: {
            label: label.capitalize() if label in ("yes", "no") else min(texts, key=lambda text: (-texts[text], text))
            for label, texts in labels.items()
        }
        for topic, labels in counts.items()
    }


def answer_logprobs(
    model, processor, pairs: Sequence[tuple[list[dict], str]], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Sum of the log-probabilities of an answer's tokens, and their number, for each (conversation, answer).

    A conversation is read once for all of its answers: they follow it in one row, each seeing the conversation and
    itself alone, its positions counted from the conversation's end. The end of the turn is left out, so that an option
    of one word stands for every answer that begins with it.
    """
    tokenizer, prompts = processor.tokenizer, defaultdict(dict)
    for prompt, answer in pairs:
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        prompts[json.dumps(prompt)][answer] = tokens or [tokenizer.eos_token_id]
    order = sorted(prompts, key=lambda text: (len(text), sum(map(len, prompts[text].values()))))
    values = {}
    for first in range(0, len(order), batch_size):
        texts = order[first : first + batch_size]
        answers = [list(prompts[text].values()) for text in texts]
        logprobs = iter(_token_logprobs(model, processor, list(map(json.loads, texts)), answers))
        for text in texts:
            for answer, tokens in prompts[text].items():
                values[text, answer] = sum(islice(logprobs, len(tokens))), len(tokens)
    return [values[json.dumps(prompt), answer] for prompt, answer in pairs]


def _token_logprobs(model, processor, prompts: list[list[dict]], answers: list[list[list[int]]]) -> list[float]:
    """Log-probability of every token of every prompt's answers (token ids), in their order."""
    batch = dict(processor(prompts))
    read = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    sequences = []
    for prompt, of_prompt in zip([ids[mask.bool()].tolist() for ids, mask in read], answers, strict=True):
        ends = [(len(prompt), len(prompt) + len(answer)) for answer in of_prompt]
        encoded = [EncodedPair([*prompt, *answer], [end]) for answer, end in zip(of_prompt, ends, strict=True)]
        sequences.append(lay_out(encoded, len(prompt)))
    shape = len(sequences), max(len(sequence["input_ids"]) for sequence in sequences)
    ids, positions = torch.full(shape, processor.tokenizer.pad_token_id), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    # padding sees itself alone: what is read of it never matters, but a softmax over nothing is no number
    visible = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1)
    for row, sequence in enumerate(sequences):
        end = len(sequence["input_ids"])
        ids[row, :end] = torch.tensor(sequence["input_ids"])
        positions[row, :end] = torch.tensor(sequence["position_ids"])
        labels[row, : end - 1] = torch.tensor(sequence["labels"][1:])  # a position predicts the next one
        visible[row, :end, :end] = block_mask(torch.tensor(sequence["block"]))
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill(~visible, torch.finfo(model.dtype).min)[:, None]
    predicting = labels != IGNORED
    batch |= {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "logits_to_keep": predicting}
    with torch.inference_mode():
        logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits.float()
    wanted = labels[predicting].to(model.device)[:, None]
    return (logits.gather(-1, wanted)[:, 0] - logits.logsumexp(-1)).tolist()
