"""Ask an OpenAI-compatible endpoint (OpenAI, vLLM, Ollama, llama.cpp, `transformers serve`): the one client, the one
way of trying again, the one way of saying what went wrong.

    endpoint = Endpoint("http://127.0.0.1:11434/v1", "llama3", api_key("OPENAI_API_KEY", url))
    async with endpoint:
        reply = await endpoint.chat({"messages": [...], "max_tokens": 100})
    replies = endpoint.chat_all([{"messages": ...}, ...], parallel=8)          # from code that is not async

Tried again, at most `TRIES` times: 408, 409, 425, 429 (as Retry-After says), 5xx, time-outs, lost connections, bodies
that are no answer. Fatal at once: a wrong key, an unknown model, a used-up quota. `Refused`: this one request.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rnagpt_core.errors import UserError

TRIES = 8
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


class TryAgain(Exception):
    """A call that may work the next time."""

    def __init__(self, reason: str, retry_after: str | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The endpoint refuses this one request (400, 413, 422: too long, say)."""


@dataclass(frozen=True)
class Reply:
    """An answer and what it took, in tokens; estimated where the endpoint does not count."""

    text: str
    prompt_tokens: int
    answer_tokens: int


def api_key(variable: str, base_url: str | None) -> str:
    """The key in this environment variable; an endpoint on this machine may go without.

    Raises:
        UserError: the variable is empty and the endpoint is elsewhere.
    """
    key = os.environ.get(variable)
    if not key and any(host in (base_url or "") for host in ("//localhost", "//127.0.0.1", "//[::1]")):
        return "none"
    if not key:
        raise UserError(f"{base_url} needs a key: put it into the environment variable {variable}")
    return key


def estimated_tokens(text: str) -> int:
    """Tokens of a text: 3.5 bytes each is on the safe side for English abstracts."""
    return int(len(text.encode("utf-8", "replace")) / 3.5) + 1


class Endpoint:
    """One model behind one base URL. `api_key` is stored nowhere else and stands in no message."""

    def __init__(self, base_url: str, model: str, api_key: str | None = None, timeout: float = 120.0):
        self.base_url, self.model, self.api_key, self.timeout = base_url, model, api_key, timeout
        self.random = random.Random()  # jitter only: answers never depend on it
        self._client: Any = None

    async def __aenter__(self) -> "Endpoint":
        from openai import AsyncOpenAI

        # retries are ours, so that they are counted and a used-up quota is not asked eight times
        self._client = AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key or "none", timeout=self.timeout, max_retries=0
        )
        return self

    async def __aexit__(self, *exc_info) -> None:
        client, self._client = self._client, None
        await client.close()

    async def attempt(self, send: Callable[..., Awaitable]):
        """One try of `send(client)`, inside `async with endpoint`.

        Raises:
            TryAgain: it may work the next time.
            Refused: the endpoint will not answer this request.
            UserError: the endpoint cannot be used at all.
        """
        import openai

        try:
            return await send(self._client)
        except openai.APITimeoutError:
            raise TryAgain("time-out") from None
        except openai.APIStatusError as error:
            raise self._meaning(error) from None
        except openai.APIConnectionError:
            raise TryAgain("connection lost") from None
        except (openai.APIResponseValidationError, ValueError):
            raise TryAgain("malformed body") from None

    def _meaning(self, error) -> Exception:
        status, text = error.status_code, " ".join(str(error.message).split())[:200]
        if "insufficient_quota" in (str(error.code), str(error.type)):
            return UserError(f"{self.base_url} says that the account's quota is used up: {text}")
        if status in AGAIN or status >= 500:
            return TryAgain(f"status {status}", error.response.headers.get("retry-after"))
        if status in (400, 413, 422):
            return Refused(f"status {status}: {text}")
        return UserError(
            f"{self.base_url} refused with status {status}: {text}; check the model's name and the API key"
        )

    async def try_chat(self, body: dict, key: str | None = None) -> Reply:
        """One try of a chat completion; `body` as in OpenAI's API, without the model. Raises as `attempt`.

        key: sent as Idempotency-Key; a gateway that honours it does not bill a repeated one twice.
        """
        headers = {"Idempotency-Key": key} if key else None
        done = await self.attempt(
            lambda client: client.chat.completions.create(model=self.model, **body, extra_headers=headers)
        )
        try:
            text, usage = done.choices[0].message.content, done.usage
        except (AttributeError, IndexError, TypeError):
            raise TryAgain("malformed body") from None
        if not isinstance(text, str):
            raise TryAgain("answer without text")
        prompt = getattr(usage, "prompt_tokens", None)
        answer = getattr(usage, "completion_tokens", None)
        if prompt is None or answer is None:
            prompt = sum(estimated_tokens(message["content"]) for message in body["messages"])
            answer = estimated_tokens(text)
        return Reply(text, prompt, answer)

    async def patiently(self, once: Callable[[], Awaitable], failed: Callable[[str], None] = lambda reason: None):
        """`await once()`, again while it raises TryAgain; `failed` hears each reason and may raise to stop.

        Raises:
            UserError: it failed `TRIES` times.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return await once()
            except TryAgain as error:
                failed(str(error))
                if attempt == TRIES:
                    raise UserError(
                        f"the language model {self.model} at {self.base_url} did not answer in {TRIES} tries, the "
                        f"last time for this reason: {error}; see to its server, and run the same command to go on"
                    ) from None
                await asyncio.sleep(backoff(attempt, error.retry_after, self.random))

    async def chat(self, body: dict, key: str | None = None) -> Reply:
        """`try_chat`, patiently."""
        return await self.patiently(lambda: self.try_chat(body, key))

    def request(self, send: Callable[..., Awaitable]):
        """`await send(client)`, patiently, for code that is not async: what is no chat. UserError as in `chat_all`."""

        async def work():
            async with self:
                return await self.patiently(lambda: self.attempt(send))

        return self._finished(work())

    def embeddings(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, patiently. UserError as in `chat_all`."""
        body = {"model": self.model, "encoding_format": "float", "input": list(texts)}
        answer = self.request(lambda client: client.embeddings.create(**body))
        return [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]

    def chat_all(self, bodies: Sequence[dict], parallel: int = 8) -> list[Reply]:
        """Replies in the bodies' order, `parallel` calls at a time, for code that is not async.

        Raises:
            UserError: a request was refused, or the endpoint cannot be used.
        """

        async def work() -> list[Reply]:
            slots = asyncio.Semaphore(parallel)

            async def one(body: dict) -> Reply:
                async with slots:
                    return await self.chat(body)

            async with self:
                return await asyncio.gather(*map(one, bodies))

        return self._finished(work())

    def _finished(self, work):
        try:
            return asyncio.run(work)
        except Refused as error:
            raise UserError(f"{self.base_url} refused a request ({error}); run the same command to go on") from None


def backoff(attempt: int, retry_after: str | None, random) -> float:
    """Seconds to wait before attempt number `attempt` + 1: the server's wish, else 0.5-8 s doubling, with jitter.

    >>> from random import Random
    >>> backoff(1, "3", Random(0)) >= 3, backoff(9, None, Random(0)) <= 8
    (True, True)
    """
    wish = seconds_of(retry_after)
    if wish is not None:
        return wish + random.random() * 0.2
    return min(8.0, 0.5 * 2**attempt) * (0.5 + random.random() / 2)


def seconds_of(retry_after: str | None) -> float | None:
    """A Retry-After header, in seconds or as a date -> seconds, at most ten minutes.

    >>> seconds_of("2"), seconds_of(None), seconds_of("soon"), seconds_of("Thu, 01 Jan 1970 00:00:10 GMT")
    (2.0, None, None, 0.0)
    """
    if not retry_after:
        return None
    try:
        wish = float(retry_after)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            wish = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(600.0, max(0.0, wish))
