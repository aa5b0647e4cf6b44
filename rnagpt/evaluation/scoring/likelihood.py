"""How likely a model holds the true answer, with the true RNA and with another one; and how sure it is of a label.

    scored = with_likelihoods(CheckpointAnswers(model, processor), items, shown, option_wordings(items))
    scored[0].reference_logprob, option_confidence(scored[0].option_logprobs)

A generated answer is right or wrong; its likelihood moves before that does, so it shows a little reading of the RNA
that accuracy cannot. A model that ignores the RNA gives the same likelihood whatever RNA it is shown.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import torch

from processing_rnagpt.collator import IGNORED, EncodedPair, SharedPrefixCollator
from rnagpt.evaluation.asking.answers import CheckpointAnswers, Shown, conversation
from rnagpt.evaluation.asking.items import Item


def with_likelihoods(
    source: CheckpointAnswers,
    items: Sequence[Item],
    shown: Shown,
    wordings: dict[str, dict[str, str]],
    options: bool = True,
) -> list[Item]:
    """The items with `reference_logprob` (mean per token, nats) and, where they have a label and `options` are wanted,
    `option_logprobs` (of the whole answer, nats); the RNA is the one `shown`. wordings: of `option_wordings`.
    """
    asked = []
    for item in items:
        words = wordings.get(item.topic, {})
        labels = [words.get(label, label) for label in item.options] if item.gold and options else []
        seen = shown[item.rna_id]
        prompt = conversation(item, seen and seen[1], source.as_text)
        asked.append([(prompt, text) for text in (item.reference, *labels)])
    pairs = [pair for of_item in asked for pair in of_item]
    values = iter(answer_logprobs(source.model, source.processor, pairs))
    scored = []
    for item, of_item in zip(items, asked, strict=True):
        (total, tokens), *labels = islice(values, len(of_item))
        logprobs = tuple(of_label for of_label, _ in labels)
        scored.append(replace(item, reference_logprob=total / tokens, option_logprobs=logprobs))
    return scored


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


class AnswersCollator(SharedPrefixCollator):
    """Collates rows {"rna_id", "sequence", "prompt" (a conversation), "answers": [token ids, ...]}.

    Unlike in training, the end of the turn is left out, so that an option of one word stands for every answer that
    begins with it.
    """

    def encode_pairs(self, row: dict) -> list[EncodedPair]:
        (prompt,) = self._token_ids([row["prompt"]], add_generation_prompt=True)
        ends = [(len(prompt), len(prompt) + len(answer)) for answer in row["answers"]]
        return [EncodedPair([*prompt, *answer], [end]) for answer, end in zip(row["answers"], ends, strict=True)]


def answer_logprobs(
    model, processor, asked: Sequence[tuple[list[dict], str]], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Sum of the log-probabilities of an answer's tokens, and their number, for each (conversation, answer).

    A conversation is read once for all of its answers: they follow it in one row, each seeing the conversation and
    itself alone, its positions counted from the conversation's end.
    """
    tokenizer, prompts = processor.tokenizer, defaultdict(dict)
    for prompt, answer in asked:
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        prompts[json.dumps(prompt)][answer] = tokens or [tokenizer.eos_token_id]
    order = sorted(prompts, key=lambda text: (len(text), sum(map(len, prompts[text].values()))))
    collator, values = AnswersCollator(processor), {}
    for first in range(0, len(order), batch_size):
        texts = order[first : first + batch_size]
        rows = [row_of(json.loads(text), list(prompts[text].values())) for text in texts]
        logprobs = iter(_label_logprobs(model, collator(rows)))
        for text in texts:
            for answer, tokens in prompts[text].items():
                values[text, answer] = sum(islice(logprobs, len(tokens))), len(tokens)
    return [values[json.dumps(prompt), answer] for prompt, answer in asked]


def row_of(prompt: list[dict], answers: list[list[int]]) -> dict:
    """A row of `AnswersCollator`: the RNA stands in the conversation's one turn, if there is one."""
    content = prompt[0]["content"]
    sequence = content[0]["rna"] if isinstance(content, list) else None
    return {"rna_id": "", "sequence": sequence, "prompt": prompt, "answers": answers}


def _label_logprobs(model, batch: dict) -> list[float]:
    """Log-probability of every label of a batch, row by row."""
    labels = batch.pop("labels").roll(-1, 1)  # position i predicts what is at i + 1, and the first is never learned
    del batch["loss_weights"]
    batch["attention_mask"] = batch["attention_mask"].clamp(min=torch.finfo(model.dtype).min).to(model.dtype)
    kept = labels != IGNORED
    batch = {name: tensor.to(model.device) for name, tensor in (batch | {"logits_to_keep": kept}).items()}
    with torch.inference_mode():
        logits = model(**batch).logits.float()
    wanted = labels[kept].to(model.device)[:, None]
    return (logits.gather(-1, wanted)[:, 0] - logits.logsumexp(-1)).tolist()
