"""The endpoint's Batch API: half the price, answers within a day. The same calls, in waves.

    run_in_batches(work, ranks, settings)       # then the annotate stage reads every answer from the ledger

A wave goes through all units and notes what is not in the ledger (`Deferred`); those requests are sent as batches, the
answers go into the ledger, and the next wave gets further: summaries, merges, questions, and what is sent back. A
batch is noted before and after it is made, and known by its `keys` digest, so that a restart finds it again and pays
nothing twice.
"""

import asyncio
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from dataset_builder.llm.call_cache import Answer, Ledger
from dataset_builder.llm.language_model import EndpointBackend, LanguageModel
from dataset_builder.llm.prompts import Request
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Library
from rnagpt_core.errors import UserError

REQUESTS_OF_A_BATCH = 20_000
BYTES_OF_A_BATCH = 150_000_000
WAVES = 40  # far more than a unit needs: a wave without progress ends it before
DISCOUNT = 0.5


class Deferred(Exception):
    """The answer is not here yet; the request was noted."""


class DeferringBackend(EndpointBackend):
    """Notes requests instead of sending them: {key: (stage, body)}."""

    def __init__(self, base_url: str, name: str):
        super().__init__(base_url, name)
        self.noted: dict[str, tuple[str, dict]] = {}

    async def attempt(self, request: Request, key: str, seed: int) -> Answer:
        self.noted[key] = (request.stage, request.body(self.name, seed))
        raise Deferred


def run_in_batches(
    work: Path, ranks: int, settings: BuildSettings, say: Callable[[str], None], seconds: float = 30.0
) -> None:
    """Wave after wave until no unit misses an answer. `seconds`: between looks at the batches.

    Raises:
        UserError: batches fail again and again, or the budget is reached (before a batch is sent).
    """
    from openai import OpenAI

    backend = settings.model.backend()
    client = OpenAI(base_url=backend.base_url, api_key=backend.api_key or "none", timeout=300, max_retries=6)
    ledger = settings.ledger(work)
    ledger.db.execute("CREATE TABLE IF NOT EXISTS batch (keys TEXT PRIMARY KEY, id TEXT, ingested INTEGER)")
    fruitless = 0
    try:
        for wave in range(1, WAVES + 1):
            noted = missing(work, ranks, settings, ledger)
            if not noted:
                return
            say(f"batch wave {wave}: {len(noted)} calls")
            before = len(noted)
            for part in parts(noted):
                send(client, ledger, part, settings, work, say, seconds)
            left = sum(ledger.get(key) is None for key in noted)
            fruitless = fruitless + 1 if left == before else 0
            if fruitless == 3:
                raise UserError("three batches in a row came back without one answer; run without --batch-api")
        raise UserError(f"not done after {WAVES} waves of batches; run the same command to go on")
    finally:
        ledger.close()
        client.close()


def missing(work: Path, ranks: int, settings: BuildSettings, ledger: Ledger) -> dict[str, tuple[str, dict]]:
    """Go through all units with what the ledger has; -> the requests that are not answered yet."""
    from dataset_builder.building.steps import annotated

    backend = DeferringBackend(settings.model.url, settings.model.name)
    library = Library(work / "library.sqlite", read_only=True)
    # nothing is sent here, so nothing is reserved: the budget is asked when a batch is
    unbound = LedgerView(ledger)

    async def through() -> None:
        model = LanguageModel(backend, unbound, settings.model.prices, 10_000, settings.seed)
        for rank in range(ranks):
            with open(work / "prepared" / f"{rank:05d}.jsonl", encoding="utf-8") as handle:
                for line in handle:
                    task = asyncio.ensure_future(annotated(json.loads(line), library, model, settings))
                    await asyncio.gather(task, return_exceptions=True)
                    error = task.exception()
                    if error is not None and not isinstance(error, Deferred):
                        raise error
                    others = asyncio.all_tasks() - {asyncio.current_task()}
                    await asyncio.gather(*others, return_exceptions=True)  # the other topics of this unit

    try:
        asyncio.run(through())
    finally:
        library.close()
    return backend.noted


@dataclasses.dataclass
class LedgerView:
    """A ledger's stored answers, without its account."""

    ledger: Ledger

    def get(self, key: str) -> Answer | None:
        return self.ledger.get(key)

    def reserve(self, key: str, tokens: int, usd: float) -> None: ...

    def release(self, key: str) -> None: ...


def parts(noted: dict[str, tuple[str, dict]]):
    """Requests in the order of their keys, in files that the API takes."""
    part: dict[str, tuple[str, dict]] = {}
    size = 0
    for key in sorted(noted):
        length = len(json.dumps(noted[key][1])) + 200
        if part and (len(part) == REQUESTS_OF_A_BATCH or size + length > BYTES_OF_A_BATCH):
            yield part
            part, size = {}, 0
        part[key] = noted[key]
        size += length
    if part:
        yield part


def send(client, ledger: Ledger, part, settings: BuildSettings, work: Path, say, seconds: float) -> None:
    """One batch: made, or found again; waited for; its answers into the ledger with half the price."""
    digest = hashlib.sha256("\n".join(part).encode()).hexdigest()
    row = ledger.db.execute("SELECT id FROM batch WHERE keys = ? AND ingested IS NULL", (digest,)).fetchone()
    found = client.batches.retrieve(row[0]) if row else by_digest(client, digest)
    if found is None or found.status in ("failed", "expired", "cancelled"):
        reserve(ledger, part, settings)
        lines = (
            json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body})
            for key, (_, body) in part.items()
        )
        path = work / "calls" / f"batch-{digest[:16]}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with open(path, "rb") as handle:
            file = client.files.create(file=handle, purpose="batch")
        found = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"keys": digest},
        )
        path.unlink()
    ledger.db.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, NULL)", (digest, found.id))
    while found.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(seconds)
        found = client.batches.retrieve(found.id)
        counts = found.request_counts
        say(f"batch {found.id}: {found.status}, {counts.completed if counts else 0} of {len(part)}")
    if found.output_file_id:
        ingest(ledger, client.files.content(found.output_file_id).text, part, settings)
    ledger.db.execute("UPDATE batch SET ingested = 1 WHERE keys = ?", (digest,))
    for key in part:
        ledger.release(key)


def by_digest(client, digest: str):
    """A batch that was made just before a crash, by its metadata."""
    for number, batch in enumerate(client.batches.list(limit=100)):
        if (batch.metadata or {}).get("keys") == digest and batch.status not in ("failed", "expired", "cancelled"):
            # one whose answers were taken in already is no use: what is still missing failed in it
            return None if batch.status == "completed" and not batch.output_file_id else batch
        if number >= 1000:
            return None
    return None


def reserve(ledger: Ledger, part, settings: BuildSettings) -> None:
    """Set the whole batch aside, or none of it: one that cannot be paid is not sent."""
    tokens = EndpointBackend("", "").tokens
    reserved = []
    try:
        for key, (_, body) in part.items():
            prompt = sum(tokens(message["content"]) for message in body["messages"])
            most = DISCOUNT * settings.model.prices.usd(prompt, body["max_tokens"])
            ledger.reserve(key, prompt + body["max_tokens"], most)
            reserved.append(key)
    except UserError:
        for key in reserved:
            ledger.release(key)
        raise


def ingest(ledger: Ledger, text: str, part, settings: BuildSettings) -> None:
    """Answers of an output file into the ledger; lines that failed stay missing and go with the next wave."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            key, body = row["custom_id"], row["response"]["body"]
            answer = body["choices"][0]["message"]["content"]
            usage = body["usage"]
            found = Answer(answer, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        except (ValueError, KeyError, TypeError, IndexError):
            ledger.count("batch lines without an answer")
            continue
        if key in part and isinstance(answer, str) and ledger.get(key) is None:
            price = DISCOUNT * settings.model.prices.usd(found.prompt_tokens, found.answer_tokens)
            ledger.put(key, part[key][0], found, price)
