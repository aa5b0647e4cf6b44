"""A transformers model in this process as the builder's language model: no server, no network, no price.

Requests that wait are answered together in one batch, greedily, each held to its JSON schema token by token
(answer_form.py). The schema fixes the form, not the truth: what the model says is checked like any other answer.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

from dataset_builder.answer_form import FormRows, schema_pattern, token_texts
from dataset_builder.calls import Answer
from dataset_builder.errors import BuildError
from dataset_builder.language_model import Refused, Stopped
from dataset_builder.prompts import Request


class LocalBackend:
    """`model` and `tokenizer` as transformers has them; `name` stands in the cache key and in the published rows."""

    def __init__(self, model, tokenizer, name: str, batch: int = 8, context: int | None = None):
        self.model, self.tokenizer, self.name, self.batch = model, tokenizer, name, batch
        self.context = context or getattr(model.config, "max_position_embeddings", 2048)
        if tokenizer.chat_template is None:
            raise BuildError(f"{name} has no chat template: the builder needs an instruction-tuned model")
        self.waiting: list[tuple[Request, asyncio.Future]] = []
        self.worker: asyncio.Task | None = None
        self.thread = ThreadPoolExecutor(1)
        self._texts: list | None = None

    def tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def attempt(self, request: Request, key: str, seed: int) -> Answer:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.ensure_future(self._work())
        return await future

    def stop(self) -> None:
        """Begin nothing more: of the requests that were made, those of the batch in work are answered."""
        for _, future in self.waiting:
            if not future.done():
                future.set_exception(Stopped())
        self.waiting.clear()

    async def _work(self) -> None:
        await asyncio.sleep(0.05)  # so that requests made together are answered together
        while self.waiting:
            # the longest prompts first and alike together: padding is wasted work
            self.waiting.sort(key=lambda item: -sum(len(text) for _, text in item[0].messages))
            now, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
            loop = asyncio.get_running_loop()
            try:
                answers = await loop.run_in_executor(self.thread, self._generate, [request for request, _ in now])
            except Exception as error:
                for _, future in now:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(now, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _generate(self, requests: list[Request]) -> list[Answer | Refused]:
        import torch

        prompts = [self._prompt(request) for request in requests]
        fits = [i for i, ids in enumerate(prompts) if len(ids) + requests[i].max_tokens <= self.context]
        answers: list = [
            Refused(f"prompt of {len(ids)} tokens and {request.max_tokens} to answer, the context has {self.context}")
            for ids, request in zip(prompts, requests, strict=True)
        ]
        if not fits:
            return answers
        longest = max(len(prompts[i]) for i in fits)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        input_ids = torch.full((len(fits), longest), pad)  # (batch, length), padded on the left
        mask = torch.zeros((len(fits), longest), dtype=torch.long)
        for row, i in enumerate(fits):
            input_ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=input_ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max(requests[i].max_tokens for i in fits),
                do_sample=False,
                repetition_penalty=1.1,
                pad_token_id=pad,
                logits_processor=self._constraint([requests[i] for i in fits], longest),
            )
        for row, i in enumerate(fits):
            ids = out[row, longest:].tolist()
            end = next((place for place, token in enumerate(ids) if token in self._stops()), len(ids))
            text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
            answers[i] = Answer(text, len(prompts[i]), end)
        return answers

    def _prompt(self, request: Request) -> list[int]:
        messages = [{"role": role, "content": text} for role, text in request.messages]
        # the data cannot hold the template's own tokens: they are literature, not turns
        for message in messages:
            for token in self.tokenizer.all_special_tokens:
                message["content"] = message["content"].replace(token, " ")
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    def _stops(self) -> set[int]:
        stop = self.model.generation_config.eos_token_id
        return set(stop if isinstance(stop, list) else [stop]) | {self.tokenizer.eos_token_id}

    def _constraint(self, requests: list[Request], prompt_length: int):
        """What holds each row to its schema: logits processors for `generate`."""
        if self._texts is None:
            self._texts = token_texts(self.tokenizer)
        patterns = [schema_pattern(json.loads(request.schema)) for request in requests]
        limits = [request.max_tokens for request in requests]
        return [FormRows(patterns, limits, prompt_length, sorted(self._stops()), self._texts)]

    async def close(self) -> None:
        self.thread.shutdown(wait=False)
