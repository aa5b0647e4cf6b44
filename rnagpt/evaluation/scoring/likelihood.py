"""How likely a model holds the true answer, with the true RNA and with another one; and how sure it is of a label.

    scored = with_likelihoods(model, processor, items, shown)
    scored[0].reference_logprob, option_confidence(scored[0].option_logprobs)

A generated answer is right or wrong; its likelihood moves before that does, so it shows a little reading of the RNA
that accuracy cannot. A model that ignores the RNA gives the same likelihood whatever RNA it is shown.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rnagpt.evaluation.asking.answers import Shown, conversation
from rnagpt.evaluation.asking.items import Item


def with_likelihoods(
    model,
    processor,
    answered: Sequence[Item],
    shown: Shown,
    as_text: bool = False,
    batch_size: int = 8,
    wordings: dict[str, dict[str, str]] | None = None,
    options: bool = True,
) -> list[Item]:
    """The items with `reference_logprob` (mean per token, nats) and, where they have a label and `options` are wanted,
    `option_logprobs` (of the whole answer, nats); the RNA is the one `shown`. wordings: of `option_wordings`; of these
    items where absent.
    """
    wordings = option_wordings(answered) if wordings is None else wordings
    asked, place = [], []  # (conversation, answer) and where its value belongs
    for index, item in enumerate(answered):
        prompt = conversation(item, shown[item.rna_id], as_text)
        asked.append((prompt, item.reference))
        place.append((index, None))
        for number, label in enumerate(item.options if item.gold and options else ()):
            asked.append((prompt, wordings.get(item.topic, {}).get(label, label)))
            place.append((index, number))
    values = answer_logprobs(model, processor, asked, batch_size)
    references, labels = {}, defaultdict(dict)
    for (index, number), (total, tokens) in zip(place, values, strict=True):
        if number is None:
            references[index] = total / tokens
        else:
            labels[index][number] = total
    return [
        replace(
            item,
            reference_logprob=references[index],
            option_logprobs=tuple(labels[index][n] for n in range(len(labels[index]))),
        )
        for index, item in enumerate(answered)
    ]


def option_wordings(items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """Topic -> label -> how an answer with this label is worded: the commonest reference that has it.

    "Yes" and "No" alone, because what follows them depends on the question.
    """
    seen: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        seen[item.topic][item.gold][item.reference] += 1
    return {
        topic: {
            label: label.capitalize() if label in ("yes", "no") else min(texts, key=lambda text: (-texts[text], text))
            for label, texts in labels.items()
        }
        for topic, labels in seen.items()
    }


def answer_logprobs(
    model, processor, asked: Sequence[tuple[list[dict], str]], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Sum of the log-probabilities of an answer's tokens, and their number, for each (conversation, answer).

    A conversation is read once for all of its answers: they follow it in one row, each seeing the conversation and
    itself alone, its positions counted from the conversation's end. The end of the turn is left out, so that an
    option of one word stands for every answer that begins with it.
    """
    tokenizer, prompts = processor.tokenizer, {}
    for conversation_, answer in asked:
        answers = prompts.setdefault(json.dumps(conversation_), {})
        if answer not in answers:
            answers[answer] = tokenizer(answer, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
    order = sorted(prompts, key=lambda text: (len(text), sum(map(len, prompts[text].values()))))
    values: dict[tuple[str, str], tuple[float, int]] = {}
    for first in range(0, len(order), batch_size):
        texts = order[first : first + batch_size]
        totals = _one_batch(
            model, processor, [json.loads(text) for text in texts], [list(prompts[text].values()) for text in texts]
        )
        for text, of_row in zip(texts, totals, strict=True):
            for (answer, tokens), total in zip(prompts[text].items(), of_row, strict=True):
                values[text, answer] = total, len(tokens)
    return [values[json.dumps(conversation_), answer] for conversation_, answer in asked]


def _one_batch(model, processor, conversations: list[list[dict]], answers: list[list[list[int]]]) -> list[list[float]]:
    """Per conversation and answer (token ids) the sum of the answer's log-probabilities."""
    import torch

    from processing_rnagpt.collator import block_mask

    batch = processor(conversations)
    width = batch["input_ids"].shape[1]
    longest = max(sum(map(len, of_row)) for of_row in answers)
    shape = len(conversations), width + longest
    ids = torch.full(shape, processor.tokenizer.pad_token_id)
    ids[:, :width] = batch["input_ids"]
    block = torch.full(shape, -1)  # -1: padding; 0: the conversation; k: its k-th answer
    block[:, :width] = batch["attention_mask"] - 1
    positions = torch.zeros(shape, dtype=torch.long)
    positions[:, :width] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    asks, answered = [], []  # (row, column that predicts, token), and (row, answer) that it belongs to
    for row, of_row in enumerate(answers):
        end = width  # prompts are padded on the left
        for number, tokens in enumerate(of_row):
            ids[row, end : end + len(tokens)] = torch.tensor(tokens)
            block[row, end : end + len(tokens)] = number + 1
            positions[row, end : end + len(tokens)] = positions[row, width - 1] + 1 + torch.arange(len(tokens))
            asks += [(row, width - 1 if i == 0 else end + i - 1, token) for i, token in enumerate(tokens)]
            answered += [(row, number)] * len(tokens)
            end += len(tokens)
    # block -1 sees itself alone: what is read of it never matters, but a softmax over nothing is no number
    seen = torch.stack([block_mask(of_row) for of_row in block])
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)[:, None]
    rows, columns, tokens = torch.tensor(asks).T
    kept = torch.zeros(shape, dtype=torch.bool)
    kept[rows, columns] = True
    place = kept.flatten().cumsum(0).view(shape) - 1
    whole = batch | {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    with torch.inference_mode():
        logits = model(
            **{name: tensor.to(model.device) for name, tensor in whole.items()}, logits_to_keep=kept.to(model.device)
        ).logits
    logits, which = logits.float(), place[rows, columns].to(model.device)
    logprobs = (logits[which, tokens.to(model.device)] - logits.logsumexp(-1)[which]).tolist()
    totals = [[0.0] * len(of_row) for of_row in answers]
    for (row, number), logprob in zip(answered, logprobs, strict=True):
        totals[row][number] += logprob
    return totals
