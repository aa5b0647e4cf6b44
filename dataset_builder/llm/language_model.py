"""Ask an OpenAI-compatible endpoint, with the answers kept in the call cache and their price in its account.

model = LanguageModel(endpoint, cache, prices)
async with endpoint:
    reply = await model.answer(request)          # from the cache when it was asked before
"""

import asyncio
import os

from dataset_builder.llm.call_cache import CallCache
from dataset_builder.llm.prompts import Request
from dataset_builder.storage.settings import ModelSettings, Prices
from rnagpt_core.endpoint import Endpoint, Reply


class Stopped(Exception):
    """No new call is made: the process was asked to end. What was under way has been stored."""


def endpoint_of(settings: ModelSettings, timeout: float | None = None) -> Endpoint:
    """`timeout`: seconds, where the settings' own, for a call, does not fit."""
    return Endpoint(settings.url, settings.name, os.environ.get(settings.key_variable), timeout or settings.timeout)


class LanguageModel:
    """Equal requests in flight are asked once, and answers are stored when they arrive."""

    def __init__(self, endpoint: Endpoint, cache: CallCache, prices: Prices, concurrency: int = 16, seed: int = 0):
        self.endpoint, self.cache, self.prices, self.seed = endpoint, cache, prices, seed
        self.slots = asyncio.Semaphore(concurrency)
        self.in_flight: dict[str, asyncio.Task] = {}
        self.stopping = False

    async def answer(self, request: Request) -> Reply:
        """The answer to a request, from the cache or from the endpoint.

        Raises:
            BudgetReached: it could cost more than is left.
            Refused: the endpoint will not answer this request.
            UserError: the endpoint cannot be used at all, or failed again and again.
            Stopped: `stop` was called.
        """
        key = request.key(self.endpoint.model, self.seed)
        stored = self.cache.get(key)
        if stored is not None:
            return stored
        if key not in self.in_flight:
            task = asyncio.ensure_future(self._ask(request, key))
            self.in_flight[key] = task
            task.add_done_callback(lambda _: self.in_flight.pop(key, None))
        return await asyncio.shield(self.in_flight[key])

    async def _ask(self, request: Request, key: str) -> Reply:
        async with self.slots:
            if self.stopping:
                raise Stopped
            body, prompt_tokens = request.body(self.seed), request.prompt_tokens
            most = self.prices.usd(prompt_tokens, request.max_tokens)
            self.cache.reserve(key, prompt_tokens + request.max_tokens, most)
            try:
                reply = await self.endpoint.patiently(lambda: self.endpoint.try_chat(body, key), self._failed)
            except BaseException:
                self.cache.release(key)
                raise
            self.cache.put(key, request.stage, reply, self.prices.usd(reply.prompt_tokens, reply.answer_tokens))
            return reply

    def _failed(self, reason: str) -> None:
        self.cache.count(f"tried again: {reason}")
        if self.stopping:
            raise Stopped

    def stop(self) -> None:
        """Make no new call. The answers under way are still waited for and stored: they are paid."""
        self.stopping = True

    async def finish(self) -> None:
        """Wait for the calls under way."""
        await asyncio.gather(*self.in_flight.values(), return_exceptions=True)
