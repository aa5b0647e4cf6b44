"""A model's answers to evaluation items: batched greedy generation, written one by one, resumable per item."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm

from rnagpt.evaluation.items import Item, ItemWriter, answered

MAX_NEW_TOKENS = 24  # the longest reference answer to an evaluated topic has 19 tokens of SmolLM2's


def write_answers(
    model,
    processor,
    items: Sequence[Item],
    system: str,
    shown: Mapping[str, tuple[str, str] | None],
    writer: ItemWriter,
    as_text: bool = False,
    batch_size: int = 52,
) -> None:
    """Let the model answer every item that `writer` does not hold yet.

    Args:
        shown: rna_id -> (id, sequence) of the RNA that the model sees in its place, or None for no RNA at all.
        as_text: give the letters to the LLM as text instead of the RNA as soft tokens.
    """
    # Without RNA many items are one and the same prompt: it is answered once.
    todo: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if not writer.done(system, item):
            todo[json.dumps(conversation(item, shown[item.rna_id], as_text))].append(item)
    # Prompts of like length together: padding is work too.
    prompts = sorted(todo, key=len)
    with tqdm(total=sum(map(len, todo.values())), desc=f"{system:<16}", unit="answer", disable=not todo) as progress:
        for first in range(0, len(prompts), batch_size):
            batch = prompts[first : first + batch_size]
            texts = generate(model, processor, [json.loads(prompt) for prompt in batch])
            for prompt, text in zip(batch, texts, strict=True):
                for item in todo[prompt]:
                    seen = shown[item.rna_id]
                    writer.write(answered(item, system, text, seen[0] if seen else None))
                progress.update(len(todo[prompt]))


def conversation(item: Item, shown: tuple[str, str] | None, as_text: bool) -> list[dict]:
    """One user turn: the RNA (as soft tokens, as text, or not at all), then the question."""
    if shown is None:
        return [{"role": "user", "content": item.question}]
    if as_text:
        return [{"role": "user", "content": f"RNA sequence: {shown[1]}\n{item.question}"}]
    return [
        {"role": "user", "content": [{"type": "rna", "rna": shown[1]}, {"type": "text", "text": item.question}]}
    ]


@torch.inference_mode()
def generate(model, processor, conversations: list[list[dict]], max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
    """Greedy answers, one per conversation."""
    batch = processor(conversations).to(model.device)
    output = model.generate(
        **batch,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return [
        text.strip()
        for text in processor.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    ]
