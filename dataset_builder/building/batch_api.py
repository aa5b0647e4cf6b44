"""The endpoint's Batch API: half the price, answers within a day. The same calls, in waves.

    run_in_batches(work, ranks, settings, say)       # then the annotate stage reads every answer from the call cache

A wave goes through all literature sets and notes what is not in the call cache (`Deferred`); those requests are sent
as batches, the answers go into the cache, and the next wave gets further: summaries, merges, questions, and what is
sent back. A batch is noted after it is made, and known by its `keys` digest, so that a restart finds it again and pays
nothing twice.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dataset_builder.building.steps import annotated, read_rank
from dataset_builder.llm.call_cache import CallCache, open_cache
from dataset_builder.llm.language_model import endpoint_of
from dataset_builder.llm.prompts import Request
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Store
from rnagpt_core.endpoint import Endpoint, Reply
from rnagpt_core.errors import UserError

REQUESTS_OF_A_BATCH = 20_000
BYTES_OF_A_BATCH = 150_000_000
UPLOAD = 300  # seconds at most
WAVES = 40  # far more than a literature set needs: a wave without progress ends it before
DISCOUNT = 0.5
GONE = ("failed", "expired", "cancelled")


class Deferred(Exception):
    """The answer is not here yet; the request was noted."""


class Noting:
    """Stands where the language model does: answers from the call cache alone, and notes what it cannot answer."""

    def __init__(self, cache: CallCache, name: str, seed: int):
        self.cache, self.name, self.seed = cache, name, seed
        self.requests: dict[str, Request] = {}  # by key

    async def answer(self, request: Request) -> Reply:
        key = request.key(self.name, self.seed)
        reply = self.cache.get(key)
        if reply is None:
            self.requests[key] = request
            raise Deferred
        return reply


def run_in_batches(work: Path, ranks: int, settings: BuildSettings, say: Callable[[str], None]) -> None:
    """Wave after wave until no literature set misses an answer.

    Raises:
        UserError: batches fail again and again, or the budget is reached (before a batch is sent).
    """
    cache = open_cache(settings, work)
    cache.db.execute("CREATE TABLE IF NOT EXISTS batch (keys TEXT PRIMARY KEY, id TEXT, ingested INTEGER)")
    batches = Batches(endpoint_of(settings.model, UPLOAD), cache, settings, say)
    fruitless = 0
    try:
        for wave in range(1, WAVES + 1):
            requests = missing(work, ranks, settings, cache)
            if not requests:
                return
            say(f"batch wave {wave}: {len(requests)} calls")
            for part in parts(requests, batches.line):
                batches.answer(part)
            fruitless = 0 if any(map(cache.get, requests)) else fruitless + 1
            if fruitless == 3:
                raise UserError("three batches in a row came back without one answer; run without --batch-api")
        raise UserError(f"not done after {WAVES} waves of batches; run the same command to go on")
    finally:
        cache.close()


def missing(work: Path, ranks: int, settings: BuildSettings, cache: CallCache) -> dict[str, Request]:
    """Go through all literature sets with what the call cache has; -> the requests that are not answered yet."""
    model = Noting(cache, settings.model.name, settings.seed)
    store = Store(work / "library.sqlite", read_only=True)

    async def through() -> None:
        for rank in range(ranks):
            for row in read_rank(work / "prepared", None, rank, ranks):
                try:
                    await annotated(row, store, model, settings)
                except Deferred:
                    others = asyncio.all_tasks() - {asyncio.current_task()}
                    await asyncio.gather(*others, return_exceptions=True)  # the other topics of this set

    try:
        asyncio.run(through())
    finally:
        store.close()
    return model.requests


def parts(requests: dict[str, Request], line: Callable[[str, Request], str]) -> Iterator[dict[str, Request]]:
    """Requests in the order of their keys, in files that the API takes."""
    part: dict[str, Request] = {}
    size = 0
    for key in sorted(requests):
        length = len(line(key, requests[key]))
        if part and (len(part) == REQUESTS_OF_A_BATCH or size + length > BYTES_OF_A_BATCH):
            yield part
            part, size = {}, 0
        part[key] = requests[key]
        size += length
    if part:
        yield part


class Batches:
    """Batches of one endpoint, whose answers go into the call cache with half the price."""

    def __init__(self, endpoint: Endpoint, cache: CallCache, settings: BuildSettings, say: Callable[[str], None]):
        self.endpoint, self.cache, self.settings, self.say = endpoint, cache, settings, say

    def line(self, key: str, request: Request) -> str:
        body = {"model": self.endpoint.model, **request.body(self.settings.seed)}
        return json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"

    def price(self, prompt_tokens: int, answer_tokens: int) -> float:
        return DISCOUNT * self.settings.model.prices.usd(prompt_tokens, answer_tokens)

    def answer(self, part: dict[str, Request]) -> None:
        """One batch: made, or found again; waited for; its answers into the call cache."""
        digest = hashlib.sha256("\n".join(part).encode()).hexdigest()
        query = "SELECT id FROM batch WHERE keys = ? AND ingested IS NULL"
        row = self.cache.db.execute(query, (digest,)).fetchone()
        batch = self._look(row[0]) if row else self.endpoint.request(lambda client: by_digest(client, digest))
        if batch is None or batch.status in GONE:
            self._reserve(part)
            batch = self._make(part, digest)
        self.cache.db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, NULL)", (digest, batch.id))
        while batch.status not in ("completed", *GONE):
            time.sleep(self.settings.model.batch_seconds)
            batch = self._look(batch.id)
            done = batch.request_counts.completed if batch.request_counts else 0
            self.say(f"batch {batch.id}: {batch.status}, {done} of {len(part)}")
        if batch.output_file_id:
            content = self.endpoint.request(lambda client: client.files.content(batch.output_file_id))
            self._ingest(content.text, part)
        self.cache.db.execute("UPDATE batch SET ingested = 1 WHERE keys = ?", (digest,))
        for key in part:
            self.cache.release(key)

    def _look(self, name: str):
        return self.endpoint.request(lambda client: client.batches.retrieve(name))

    def _make(self, part: dict[str, Request], digest: str):
        lines = "".join(self.line(key, request) for key, request in part.items()).encode()
        content = (f"batch-{digest[:16]}.jsonl", lines)
        file = self.endpoint.request(lambda client: client.files.create(file=content, purpose="batch"))
        wanted = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"keys": digest}}
        return self.endpoint.request(lambda client: client.batches.create(input_file_id=file.id, **wanted))

    def _reserve(self, part: dict[str, Request]) -> None:
        """Set the whole batch aside, or none of it: one that cannot be paid is not sent."""
        try:
            for key, request in part.items():
                prompt, answer = request.prompt_tokens, request.max_tokens
                self.cache.reserve(key, prompt + answer, self.price(prompt, answer))
        except UserError:
            for key in part:
                self.cache.release(key)
            raise

    def _ingest(self, text: str, part: dict[str, Request]) -> None:
        """Answers of an output file into the cache; lines that failed stay missing and go with the next wave."""
        for line in text.splitlines():
            try:
                row = json.loads(line)
                key, body = row["custom_id"], row["response"]["body"]
                usage = [int(body["usage"][name]) for name in ("prompt_tokens", "completion_tokens")]
                reply = Reply(body["choices"][0]["message"]["content"], *usage)
                if not isinstance(reply.text, str):
                    raise TypeError("answer without text")
            except (ValueError, KeyError, TypeError, IndexError):
                self.cache.count("batch lines without an answer")
                continue
            if key in part and self.cache.get(key) is None:
                self.cache.put(key, part[key].stage, reply, self.price(*usage))


async def by_digest(client, digest: str):
    """A batch that was made just before a crash, by its metadata, among the last thousand."""
    number = 0
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get("keys") == digest and batch.status not in GONE:
            # one whose answers were taken in already is no use: what is still missing failed in it
            return None if batch.status == "completed" and not batch.output_file_id else batch
        number += 1
        if number > 1000:
            break
    return None
