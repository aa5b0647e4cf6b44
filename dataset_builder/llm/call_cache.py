"""Calls to a language model, each paid once: a cache on disk keyed by what was asked, and a budget that stops in time.

One SQLite file (WAL) serves the processes of one machine. On a cluster, where a network filesystem cannot hold WAL,
each rank writes a file of its own and reads everyone's; the budget is then divided by ranks.

    cache.get(key) -> stored reply or None        cache.reserve(...) before a call, cache.put(...) after it
"""

import os
import sqlite3
import zlib
from collections import Counter
from pathlib import Path

from dataset_builder.storage.settings import UNLIMITED, Budget, BuildSettings
from dataset_builder.storage.store import open_read_only, transaction
from rnagpt_core.endpoint import Reply
from rnagpt_core.errors import UserError

TABLES = """
CREATE TABLE IF NOT EXISTS call (
    key TEXT PRIMARY KEY, stage TEXT, answer BLOB, prompt_tokens INTEGER, answer_tokens INTEGER, usd REAL);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), calls INTEGER, tokens INTEGER, usd REAL);
CREATE TABLE IF NOT EXISTS reservation (owner TEXT, key TEXT, tokens INTEGER, usd REAL, PRIMARY KEY (owner, key));
CREATE TABLE IF NOT EXISTS event (name TEXT PRIMARY KEY, number INTEGER);
INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0);
"""
OF_A_STAGE = "SELECT stage, count(*), sum(prompt_tokens), sum(answer_tokens), sum(usd) FROM call GROUP BY stage"


class BudgetReached(UserError):
    """The next call could cost more than what is left: nothing was sent."""


class CallCache:
    """The cache and the account in one file, so that an answer and its price are written together or not at all."""

    def __init__(self, path: str | Path, budget: Budget = UNLIMITED, others: tuple[Path, ...] = (), wal: bool = True):
        self.path, self.budget = Path(path), budget
        self.owner = f"{os.uname().nodename}:{os.getpid()}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        self.db.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(TABLES)
        self.others = [open_read_only(other) for other in others if other != self.path]

    def close(self) -> None:
        for db in (self.db, *self.others):
            db.close()

    def get(self, key: str) -> Reply | None:
        for db in (self.db, *self.others):
            row = db.execute("SELECT answer, prompt_tokens, answer_tokens FROM call WHERE key = ?", (key,)).fetchone()
            if row:
                return Reply(zlib.decompress(row[0]).decode(), row[1], row[2])
        return None

    def reserve(self, key: str, tokens: int, usd: float) -> None:
        """Set aside what a call can cost at most.

        Raises:
            BudgetReached: spent, reserved and this together would pass the budget.
        """
        if self.budget == UNLIMITED:
            return
        with transaction(self.db):
            spent_tokens, spent_usd = self.db.execute("SELECT tokens, usd FROM total").fetchone()
            reserved = "SELECT coalesce(sum(tokens), 0), coalesce(sum(usd), 0) FROM reservation"
            reserved_tokens, reserved_usd = self.db.execute(reserved).fetchone()
            most = self.budget
            over = None
            if most.usd is not None and spent_usd + reserved_usd + usd > most.usd + 1e-12:
                over = f"{most.usd:g} USD ({spent_usd:.4f} spent); raise --budget-usd"
            elif most.tokens is not None and spent_tokens + reserved_tokens + tokens > most.tokens:
                over = f"{most.tokens} tokens ({spent_tokens} used); raise --budget-tokens"
            if over:
                raise BudgetReached(
                    f"the next call would pass the budget of {over} and run the same command to go on, nothing is "
                    "paid twice"
                )
            self.db.execute("INSERT OR REPLACE INTO reservation VALUES (?, ?, ?, ?)", (self.owner, key, tokens, usd))

    def release(self, key: str) -> None:
        """Give a reservation back: the call was not answered."""
        self.db.execute("DELETE FROM reservation WHERE owner = ? AND key = ?", (self.owner, key))

    def put(self, key: str, stage: str, reply: Reply, usd: float) -> None:
        """Store an answer with its price. An answer that another process stored meanwhile stays; both were paid."""
        values = (key, stage, zlib.compress(reply.text.encode()), reply.prompt_tokens, reply.answer_tokens, usd)
        with transaction(self.db):
            self.db.execute("INSERT OR IGNORE INTO call VALUES (?, ?, ?, ?, ?, ?)", values)
            self.db.execute(
                "UPDATE total SET calls = calls + 1, tokens = tokens + ?, usd = usd + ?",
                (reply.prompt_tokens + reply.answer_tokens, usd),
            )
            self.release(key)

    def count(self, event: str) -> None:
        """Count an event of the wire (a retry, a malformed body) for the run report."""
        self.db.execute(
            "INSERT INTO event VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET number = number + 1", (event,)
        )

    def forget_reservations(self) -> None:
        """Of processes that were killed: call it only while none runs."""
        self.db.execute("DELETE FROM reservation")

    def spent(self) -> dict:
        """{"calls", "tokens", "usd", "by_stage", "events"} so far, in this file and the others."""
        total: Counter = Counter(calls=0, tokens=0, usd=0.0)
        by_stage: dict[str, Counter] = {}
        events: Counter = Counter()
        for db in (self.db, *self.others):
            total.update(dict(zip(total, db.execute("SELECT calls, tokens, usd FROM total").fetchone(), strict=True)))
            for stage, *numbers in db.execute(OF_A_STAGE):
                names = ("calls", "prompt_tokens", "answer_tokens", "usd")
                by_stage.setdefault(stage, Counter()).update(dict(zip(names, numbers, strict=True)))
            events.update(dict(db.execute("SELECT name, number FROM event ORDER BY name")))
        return {
            **total,
            "by_stage": {stage: dict(counts) for stage, counts in by_stage.items()},
            "events": dict(events),
        }


def open_cache(settings: BuildSettings, work: Path, rank: int | None = None, ranks: int = 1) -> CallCache:
    """The account of calls of a work folder: one file on one machine, one file per rank on a cluster."""
    folder = work / "calls"
    if rank is None or settings.executor == "local":
        return CallCache(folder / "calls.sqlite", settings.budget, tuple(sorted(folder.glob("rank-*.sqlite"))))
    own = folder / f"rank-{rank:05d}.sqlite"
    return CallCache(own, settings.budget.divided(ranks), tuple(sorted(folder.glob("*.sqlite"))), wal=False)
