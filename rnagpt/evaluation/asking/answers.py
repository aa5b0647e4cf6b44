"""The systems that answer evaluation items, each behind one small interface, and the loop that writes down answers.

    collect(CheckpointAnswers(model, processor), items, "stage2", inputs, writer)
    collect(EndpointAnswers("gpt-4o-mini", url), items, "endpoint", inputs, writer)

A source has `batch_size`, `prompt(item, sequence)`, which gives a string (equal ones are answered once), and
`answer(prompts)`, which turns a list of those into a list of texts. `sequence` is the RNA that it gets, or None.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from rnagpt.evaluation.asking.items import Item, ItemWriter, written
from rnagpt_core.endpoint import Endpoint, api_key
from rnagpt_core.errors import UserError

MAX_NEW_TOKENS = 24  # the longest reference answer to an evaluated topic of RNA facts has 19 tokens of SmolLM2's

Inputs = Mapping[str, tuple[str, str] | None]  # rna_id -> (id, sequence) of the RNA given in its place, or None


def collect(source, items: Sequence[Item], system: str, inputs: Inputs, writer: ItemWriter) -> None:
    """Let a source answer every item that `writer` does not hold yet; each answer is on disk as soon as it is made."""
    # Without RNA many items are one and the same prompt: it is answered once.
    todo: dict[str, list[tuple[Item, str | None]]] = defaultdict(list)
    for item in items:
        if not writer.done(system, item):
            rna_id, sequence = inputs[item.rna_id] or (None, None)
            todo[source.prompt(item, sequence)].append((item, rna_id))
    # Prompts of like length together: padding is work too.
    prompts = sorted(todo, key=len)
    with tqdm(total=sum(map(len, todo.values())), desc=f"{system:<16}", unit="answer", disable=not todo) as progress:
        for first in range(0, len(prompts), source.batch_size):
            batch = prompts[first : first + source.batch_size]
            for prompt, text in zip(batch, source.answer(batch), strict=True):
                for item, rna_id in todo[prompt]:
                    writer.write(written(item, system, text, rna_id))
                progress.update(len(todo[prompt]))


class CheckpointAnswers:
    """A loaded RNA-GPT: the RNA as soft tokens, or its letters as text, which leaves the LLM alone."""

    def __init__(
        self, model, processor, as_text: bool = False, batch_size: int = 52, max_new_tokens: int = MAX_NEW_TOKENS
    ):
        self.model, self.processor, self.as_text = model, processor, as_text
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens

    def prompt(self, item: Item, sequence: str | None) -> str:
        return json.dumps(conversation(item, sequence, self.as_text))

    def answer(self, prompts: Sequence[str]) -> list[str]:
        """Greedy answers."""
        import torch

        batch = self.processor(list(map(json.loads, prompts))).to(self.model.device)
        how = {"max_new_tokens": self.max_new_tokens, "pad_token_id": self.processor.tokenizer.pad_token_id}
        with torch.inference_mode():
            ids = self.model.generate(**batch, **how, do_sample=False, temperature=None, top_p=None, top_k=None)
        texts = self.processor.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


class EndpointAnswers:
    """Any endpoint that speaks OpenAI's chat API, reading the letters as text; temperature 0, a few calls at a time.

    UserError where the key is missing. A call that fails for good stops the run; what was answered is kept.
    """

    INSTRUCTION = "You answer questions about an RNA in one sentence. If you do not know, give your best guess."

    def __init__(self, model: str, base_url: str, api_key_env="OPENAI_API_KEY", parallel=8, max_new_tokens=128):
        self.endpoint = Endpoint(base_url, model, api_key(api_key_env, base_url))
        self.batch_size, self.max_new_tokens = parallel, max_new_tokens

    def prompt(self, item: Item, sequence: str | None) -> str:
        return conversation(item, sequence, as_text=True)[0]["content"]

    def answer(self, prompts: Sequence[str]) -> list[str]:
        system, how = {"role": "system", "content": self.INSTRUCTION}, {"temperature": 0}
        asked = ([system, {"role": "user", "content": text}] for text in prompts)
        bodies = [how | {"max_tokens": self.max_new_tokens, "messages": messages} for messages in asked]
        return [reply.text.strip() for reply in self.endpoint.chat_all(bodies, self.batch_size)]


class FileAnswers:
    """Answers that were made elsewhere: JSON lines of {"rna_id", "question", "answer"}.

    A file shows no control: it holds the answers to the true RNAs. Lines about other questions are passed over.

    Raises:
        UserError: no such file, a line that is no answer, two answers to one question, or a question without one.
    """

    batch_size = 1000

    def __init__(self, path: str | Path):
        self.path, self._answers = Path(path), {}
        wanted = "expected JSON lines of rna_id, question and answer"
        if not self.path.is_file():
            raise UserError(f"no answers at {path}: {wanted}")
        try:
            lines = self.path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError:
            raise UserError(f"{path} is no UTF-8 text: {wanted}") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(line, f"line {number} of {path}")

    def _add(self, line: str, where: str) -> None:
        try:
            row = json.loads(line)
            row = {name: row[name] for name in ("rna_id", "question", "answer")}
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{where} is no answer: expected rna_id, question and answer ({reason})") from None
        for name, value in row.items():
            if not isinstance(value, str):
                came = json.dumps(value)[:40]
                raise UserError(f'{where}: {name} must be a text, got {came}; an answer that was not given is ""')
        rna_id, question, answer = row.values()
        if self._answers.setdefault((rna_id, question.strip()), answer) != answer:
            about = f"about {rna_id}: {question}"
            raise UserError(f"{where} gives another answer to a question of an earlier line, {about}")

    def prompt(self, item: Item, sequence: str | None) -> str:
        return json.dumps([item.rna_id, item.question.strip()])

    def passed_over(self, prompts: Sequence[str]) -> int:
        """How many of the file's answers are to questions that are not asked."""
        return len(self._answers.keys() - set(map(tuple, map(json.loads, prompts))))

    def answer(self, prompts: Sequence[str]) -> list[str]:
        keys = [tuple(json.loads(key)) for key in prompts]
        if missing := [key for key in keys if key not in self._answers]:
            first = f"the first about {missing[0][0]}: {missing[0][1]}"
            raise UserError(f"{self.path} lacks answers to {len(missing)} of the questions that are asked, {first}")
        return [self._answers[key] for key in keys]


def conversation(item: Item, sequence: str | None, as_text: bool) -> list[dict]:
    """One user turn: the RNA (as soft tokens, as text, or not at all), then the question."""
    content: str | list[dict] = item.question
    if sequence and as_text:
        content = f"RNA sequence: {sequence}\n{item.question}"
    elif sequence:
        content = [{"type": "rna", "rna": sequence}, {"type": "text", "text": item.question}]
    return [{"role": "user", "content": content}]
