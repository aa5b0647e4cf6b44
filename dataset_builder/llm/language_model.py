"""One way to ask a language model: an OpenAI-compatible endpoint over HTTP, or a local transformers model in process.

    model = LanguageModel(EndpointBackend(url, name, api_key), ledger, prices)
    answer = await model.answer(request)          # from the ledger when it was asked before

Tried again, at most `TRIES` times: 408, 409, 429 (with Retry-After), 5xx, time-outs, lost connections, bodies that are
no JSON. Fatal at once: a wrong key, an unknown model, a used-up quota, a request that is refused.
"""

import asyncio
import random
from typing import Protocol

from dataset_builder.llm.call_cache import Answer, Ledger, Prices, backoff
from dataset_builder.llm.prompts import Request
from rnagpt_core.errors import UserError

TRIES = 8
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


class TryAgain(Exception):
    """A call that may work the next time."""

    def __init__(self, reason: str, retry_after: str | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The endpoint refuses this one request (400, 413, 422: too long, say): its unit is quarantined."""


class Stopped(Exception):
    """No new call is made: the process was asked to end. What was under way has been stored."""


class Backend(Protocol):
    """What answers: a name that stands in the cache key, and one attempt."""

    name: str

    async def attempt(self, request: Request, key: str, seed: int) -> Answer: ...

    def tokens(self, text: str) -> int: ...

    def stop(self) -> None: ...

    async def close(self) -> None: ...


class LanguageModel:
    """The backend behind the ledger: equal requests in flight are asked once, answers are stored when they arrive."""

    def __init__(
        self, backend: Backend, ledger: Ledger, prices: Prices | None = None, concurrency: int = 16, seed: int = 0
    ):
        self.backend, self.ledger, self.prices, self.seed = backend, ledger, prices or Prices(), seed
        self.slots = asyncio.Semaphore(concurrency)
        self.in_flight: dict[str, asyncio.Task] = {}
        self.stopping = False
        self.draw = random.Random()  # jitter only: answers never depend on it

    @property
    def name(self) -> str:
        return self.backend.name

    def prompt_tokens(self, request: Request) -> int:
        return sum(self.backend.tokens(text) for _, text in request.messages) + 4 * len(request.messages)

    async def answer(self, request: Request) -> Answer:
        """The answer to a request, from the ledger or from the backend.

        Raises:
            BudgetReached: it could cost more than is left.
            Refused: the endpoint will not answer this request.
            UserError: the endpoint cannot be used at all, or failed `TRIES` times.
        """
        key = request.key(self.name, self.seed)
        stored = self.ledger.get(key)
        if stored is not None:
            return stored
        if key not in self.in_flight:
            task = asyncio.ensure_future(self._ask(request, key))
            self.in_flight[key] = task
            task.add_done_callback(lambda _: self.in_flight.pop(key, None))
        return await asyncio.shield(self.in_flight[key])

    async def _ask(self, request: Request, key: str) -> Answer:
        async with self.slots:
            if self.stopping:
                raise Stopped
            prompt_tokens = self.prompt_tokens(request)
            most = self.prices.usd(prompt_tokens, request.max_tokens)
            self.ledger.reserve(key, prompt_tokens + request.max_tokens, most)
            try:
                answer = await self._with_retries(request, key)
            except BaseException:
                self.ledger.release(key)
                raise
            self.ledger.put(key, request.stage, answer, self.prices.usd(answer.prompt_tokens, answer.answer_tokens))
            return answer

    async def _with_retries(self, request: Request, key: str) -> Answer:
        for attempt in range(1, TRIES + 1):
            try:
                return await self.backend.attempt(request, key, self.seed)
            except TryAgain as error:
                reason = str(error)
                self.ledger.count(f"tried again: {reason}")
                if self.stopping:
                    raise Stopped from None
                if attempt == TRIES:
                    raise UserError(
                        f"the language model {self.name} did not answer in {TRIES} tries, the last time for this "
                        f"reason: {reason}; see to its server, and run the same command to go on"
                    ) from None
                await asyncio.sleep(backoff(attempt, error.retry_after, self.draw))
        raise AssertionError("unreachable")

    async def close(self) -> None:
        await self.backend.close()

    def stop(self) -> None:
        """Make no new call. The answers under way are still waited for and stored: they are paid."""
        self.stopping = True
        self.backend.stop()

    async def finish(self) -> None:
        """Wait for the calls under way."""
        await asyncio.gather(*self.in_flight.values(), return_exceptions=True)


class EndpointBackend:
    """An OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp's server, transformers serve."""

    def __init__(self, base_url: str, name: str, api_key: str | None = None, timeout: float = 120.0):
        self.base_url, self.name, self.api_key, self.timeout = base_url, name, api_key, timeout
        self._client = None

    @property
    def client(self):
        if self._client is None:
            from openai import AsyncOpenAI

            # retries are ours, so that they are counted and a used-up quota is not asked eight times
            self._client = AsyncOpenAI(
                base_url=self.base_url, api_key=self.api_key or "none", timeout=self.timeout, max_retries=0
            )
        return self._client

    def tokens(self, text: str) -> int:
        """Tokens of a text, estimated: 3.5 bytes each is on the safe side for English abstracts."""
        return int(len(text.encode("utf-8", "replace")) / 3.5) + 1

    async def attempt(self, request: Request, key: str, seed: int) -> Answer:
        import openai

        try:
            # a gateway that honours the header does not bill a repeated key twice
            done = await self.client.chat.completions.create(
                **request.body(self.name, seed), extra_headers={"Idempotency-Key": key}
            )
        except openai.APITimeoutError:
            raise TryAgain("time-out") from None
        except openai.APIStatusError as error:
            self._status(error)
        except openai.APIConnectionError:
            raise TryAgain("connection lost") from None
        except (openai.APIResponseValidationError, ValueError):
            raise TryAgain("malformed body") from None
        try:
            text = done.choices[0].message.content
            usage = done.usage
        except (AttributeError, IndexError, TypeError):
            raise TryAgain("malformed body") from None
        if not isinstance(text, str):
            raise TryAgain("answer without text")
        prompt_tokens = getattr(usage, "prompt_tokens", None)
        answer_tokens = getattr(usage, "completion_tokens", None)
        if prompt_tokens is None or answer_tokens is None:
            prompt_tokens = sum(self.tokens(part) for _, part in request.messages)
            answer_tokens = self.tokens(text)
        return Answer(text, prompt_tokens, answer_tokens)

    def stop(self) -> None:
        """Nothing to hold back: what was sent is answered and paid."""

    def _status(self, error) -> None:
        status, said = error.status_code, " ".join(str(error.message).split())[:200]
        if "insufficient_quota" in (str(error.code), str(error.type)):
            raise UserError(f"{self.base_url} says that the account's quota is used up: {said}") from None
        if status in AGAIN or status >= 500:
            raise TryAgain(f"status {status}", error.response.headers.get("retry-after")) from None
        if status in (400, 413, 422):
            raise Refused(f"status {status}: {said}") from None
        raise UserError(f"{self.base_url} refused with status {status}: {said}; check --llm and the API key") from None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
