"""The systems that answer evaluation items, each behind one small interface, and the loop that writes down answers.

    write_answers(model, processor, items, "stage2", shown, writer)                     # a loaded RNA-GPT
    collect(EndpointAnswers("gpt-4o-mini", url), items, "endpoint", shown, writer)      # any source of answers

A source has `batch_size`, `asks(item, sequence)`, which says what it is asked (equal strings are asked once), and
`answer(asked)`, which turns a list of those into a list of texts. `sequence` is the RNA it is shown, or None.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from rnagpt.evaluation.asking.items import Item, ItemWriter, written
from rnagpt_core.errors import UserError

MAX_NEW_TOKENS = 24  # the longest reference answer to an evaluated topic of RNA facts has 19 tokens of SmolLM2's

Shown = Mapping[str, tuple[str, str] | None]  # rna_id -> (id, sequence) of the RNA seen in its place, or None


class AnswerSource(Protocol):
    """Whatever answers: see the module's text."""

    batch_size: int

    def asks(self, item: Item, sequence: str | None) -> str: ...

    def answer(self, asked: Sequence[str]) -> list[str]: ...


def collect(source: AnswerSource, items: Sequence[Item], system: str, shown: Shown, writer: ItemWriter) -> None:
    """Let a source answer every item that `writer` does not hold yet; each answer is on disk as soon as it is made."""
    # Without RNA many items are one and the same prompt: it is answered once.
    todo: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if not writer.done(system, item):
            seen = shown[item.rna_id]
            todo[source.asks(item, seen[1] if seen else None)].append(item)
    # Prompts of like length together: padding is work too.
    prompts = sorted(todo, key=len)
    with tqdm(total=sum(map(len, todo.values())), desc=f"{system:<16}", unit="answer", disable=not todo) as progress:
        for first in range(0, len(prompts), source.batch_size):
            batch = prompts[first : first + source.batch_size]
            for prompt, text in zip(batch, source.answer(batch), strict=True):
                for item in todo[prompt]:
                    seen = shown[item.rna_id]
                    writer.write(written(item, system, text, seen[0] if seen else None))
                progress.update(len(todo[prompt]))


def write_answers(
    model,
    processor,
    items: Sequence[Item],
    system: str,
    shown: Shown,
    writer: ItemWriter,
    as_text: bool = False,
    batch_size: int = 52,
) -> None:
    """Let a loaded RNA-GPT answer every item that `writer` does not hold yet.

    Args:
        shown: rna_id -> (id, sequence) of the RNA that the model sees in its place, or None for no RNA at all.
        as_text: give the letters to the LLM as text instead of the RNA as soft tokens.
    """
    collect(CheckpointAnswers(model, processor, as_text, batch_size), items, system, shown, writer)


class CheckpointAnswers:
    """A loaded RNA-GPT: the RNA as soft tokens, or its letters as text, which leaves the LLM alone."""

    def __init__(
        self, model, processor, as_text: bool = False, batch_size: int = 52, max_new_tokens: int = MAX_NEW_TOKENS
    ):
        self.model, self.processor, self.as_text = model, processor, as_text
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens

    def asks(self, item: Item, sequence: str | None) -> str:
        return json.dumps(conversation(item, (item.rna_id, sequence) if sequence else None, self.as_text))

    def answer(self, asked: Sequence[str]) -> list[str]:
        return generate(self.model, self.processor, list(map(json.loads, asked)), self.max_new_tokens)


class EndpointAnswers:
    """Any endpoint that speaks OpenAI's chat API, reading the letters as text; temperature 0, a few calls at a time.

    UserError where the key is missing. A call that fails for good stops the run; what was answered is kept.
    """

    INSTRUCTION = "You answer questions about an RNA in one sentence. If you do not know, give your best guess."

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key_env: str = "OPENAI_API_KEY",
        parallel: int = 8,
        max_new_tokens: int = 128,
    ):
        self.model, self.base_url, self.api_key_env = model, base_url, api_key_env
        self.batch_size = self.parallel = parallel
        self.max_new_tokens = max_new_tokens
        self.tokens = {"prompt": 0, "completion": 0}  # as the endpoint counts them

    def asks(self, item: Item, sequence: str | None) -> str:
        (message,) = conversation(item, (item.rna_id, sequence) if sequence else None, as_text=True)
        return message["content"]

    def answer(self, asked: Sequence[str]) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        client = self._client()
        with ThreadPoolExecutor(self.parallel) as pool:
            replies = list(pool.map(lambda text: self._ask(client, text), asked))
        for _, usage in replies:
            if usage is not None:
                self.tokens["prompt"] += usage.prompt_tokens
                self.tokens["completion"] += usage.completion_tokens
        return [text for text, _ in replies]

    def _client(self):
        if not hasattr(self, "_opened"):
            from openai import OpenAI

            from rnagpt.evaluation.scoring.text_encoders import api_key

            self._opened = OpenAI(
                base_url=self.base_url, api_key=api_key(self.api_key_env, self.base_url), timeout=120, max_retries=6
            )
        return self._opened

    def _ask(self, client, text: str):
        import openai

        try:
            reply = client.chat.completions.create(
                model=self.model,
                temperature=0,
                max_tokens=self.max_new_tokens,
                messages=[{"role": "system", "content": self.INSTRUCTION}, {"role": "user", "content": text}],
            )
        except openai.APIError as error:
            raise UserError(
                f"{self.base_url} did not answer: {' '.join(str(error).split())[:300]}; run the same command to go on"
            ) from error
        return (reply.choices[0].message.content or "").strip(), reply.usage


class FileAnswers:
    """Answers that were made elsewhere: JSON lines of {"rna_id", "question", "answer"}.

    A file shows no control: it holds the answers to the true RNAs. Lines about other questions are passed over.

    Raises:
        UserError: no such file, a line that is no answer, two answers to one question, or a question without one.
    """

    batch_size = 1000

    def __init__(self, path: str | Path):
        self.path, self._answers = Path(path), {}
        if not self.path.is_file():
            raise UserError(f"no answers at {path}: expected JSON lines of rna_id, question and answer")
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is no UTF-8 text: expected JSON lines of rna_id, question and answer") from None
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                rna_id, question, answer = row["rna_id"], row["question"], row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"line {number} of {path} is no answer: expected a JSON object with rna_id, question "
                    f"and answer ({type(error).__name__}: {error})"
                ) from None
            for name, value in (("rna_id", rna_id), ("question", question), ("answer", answer)):
                if not isinstance(value, str):
                    raise UserError(
                        f"line {number} of {path}: {name} must be a text, got {json.dumps(value)[:40]}; "
                        'an answer that was not given is ""'
                    )
            if self._answers.setdefault((rna_id, question.strip()), answer) != answer:
                raise UserError(
                    f"line {number} of {path} gives another answer to a question of an earlier line, "
                    f"about {rna_id}: {question}"
                )

    def asks(self, item: Item, sequence: str | None) -> str:
        return json.dumps([item.rna_id, item.question])

    @staticmethod
    def _keys(asked: Sequence[str]) -> list[tuple[str, str]]:
        return [(rna_id, question.strip()) for rna_id, question in map(json.loads, asked)]

    def passed_over(self, asked: Sequence[str]) -> int:
        """How many of the file's answers are to questions that are not asked."""
        return len(self._answers.keys() - set(self._keys(asked)))

    def answer(self, asked: Sequence[str]) -> list[str]:
        keys = self._keys(asked)
        missing = [key for key in keys if key not in self._answers]
        if missing:
            raise UserError(
                f"{self.path} lacks answers to {len(missing)} of the questions that are asked here, the "
                f"first about {missing[0][0]}: {missing[0][1]}"
            )
        return [self._answers[key] for key in keys]


def conversation(item: Item, shown: tuple[str, str] | None, as_text: bool) -> list[dict]:
    """One user turn: the RNA (as soft tokens, as text, or not at all), then the question."""
    if shown is None:
        return [{"role": "user", "content": item.question}]
    if as_text:
        return [{"role": "user", "content": f"RNA sequence: {shown[1]}\n{item.question}"}]
    return [{"role": "user", "content": [{"type": "rna", "rna": shown[1]}, {"type": "text", "text": item.question}]}]


def generate(model, processor, conversations: list[list[dict]], max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
    """Greedy answers, one per conversation."""
    import torch

    batch = processor(conversations).to(model.device)
    with torch.inference_mode():
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
