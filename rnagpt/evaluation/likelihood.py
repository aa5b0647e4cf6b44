"""How likely a model holds the true answer, with the true RNA and with another one; and how sure it is of a label.

    scored = with_likelihoods(model, processor, items, shown)
    scored[0].reference_logprob, option_confidence(scored[0].option_logprobs)

A generated answer is right or wrong; its likelihood moves before that does, so it shows a little reading of the RNA
that accuracy cannot. A model that ignores the RNA gives the same likelihood whatever RNA it is shown.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rnagpt.evaluation.answers import Shown, conversation
from rnagpt.evaluation.items import Item


def with_likelihoods(model, processor, answered: Sequence[Item], shown: Shown, as_text: bool = False,
                     batch_size: int = 16, wordings: dict[str, dict[str, str]] | None = None) -> list[Item]:
    """The items with `reference_logprob` (mean per token, nats) and, where they have a label, `option_logprobs` (of
    the whole answer, nats); the RNA is the one `shown`. wordings: of `option_wordings`; of these items where absent.
    """
    wordings = option_wordings(answered) if wordings is None else wordings
    asked, place = [], []  # (conversation, answer) and where its value belongs
    for index, item in enumerate(answered):
        prompt = conversation(item, shown[item.rna_id], as_text)
        asked.append((prompt, item.reference))
        place.append((index, None))
        for number, label in enumerate(item.options if item.gold else ()):
            asked.append((prompt, wordings.get(item.topic, {}).get(label, label)))
            place.append((index, number))
    values = answer_logprobs(model, processor, asked, batch_size)
    references, labels = {}, defaultdict(dict)
    for (index, number), (total, tokens) in zip(place, values, strict=True):
        if number is None:
            references[index] = total / tokens
        else:
            labels[index][number] = total
    return [replace(item, reference_logprob=references[index],
                    option_logprobs=tuple(labels[index][n] for n in range(len(labels[index]))))
            for index, item in enumerate(answered)]


def option_wordings(items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """Topic -> label -> how an answer with this label is worded: the commonest reference that has it.

    "Yes" and "No" alone, because what follows them depends on the question.
    """
    seen: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        seen[item.topic][item.gold][item.reference] += 1
    return {topic: {label: label.capitalize() if label in ("yes", "no") else
                    min(texts, key=lambda text: (-texts[text], text))
                    for label, texts in labels.items()} for topic, labels in seen.items()}


def answer_logprobs(model, processor, asked: Sequence[tuple[list[dict], str]],
                    batch_size: int = 16) -> list[tuple[float, int]]:
    """Sum of the log-probabilities of an answer's tokens, and their number, for each (conversation, answer).

    The end of the turn is left out, so that an option of one word stands for every answer that begins with it.
    """
    import torch

    tokenizer = processor.tokenizer
    order = sorted(range(len(asked)), key=lambda i: len(str(asked[i])))
    values: dict[int, tuple[float, int]] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first:first + batch_size]
        batch = processor([asked[i][0] for i in chosen]).to(model.device)
        answers = [tokenizer(asked[i][1], add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
                   for i in chosen]
        longest, prompt = max(map(len, answers)), batch["input_ids"].shape[1]
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id, device=model.device)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(answers):
            ids[row, : len(tokens)] = torch.tensor(tokens, device=model.device)
            mask[row, : len(tokens)] = 1
        attention = torch.cat([batch["attention_mask"], mask], dim=1)
        kept = torch.zeros_like(attention, dtype=torch.bool)
        kept[:, prompt - 1 : -1] = True  # the positions whose next token belongs to the answer
        with torch.inference_mode():
            logits = model(**batch | {"input_ids": torch.cat([batch["input_ids"], ids], dim=1),
                                      "attention_mask": attention,
                                      "position_ids": (attention.cumsum(1) - 1).clamp(min=0)},
                           logits_to_keep=kept).logits
        picked = logits.view(len(chosen), longest, -1).float().log_softmax(-1).gather(2, ids[..., None])[..., 0]
        totals = (picked * mask).sum(1)
        values |= {i: (float(total), len(tokens)) for i, total, tokens in zip(chosen, totals, answers, strict=True)}
    return [values[i] for i in range(len(asked))]
