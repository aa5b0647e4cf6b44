"""Calls to a language model, each paid once: a cache on disk keyed by what was asked, and a budget that stops in time.

One SQLite file (WAL) serves the processes of one machine. On a cluster, where a network filesystem cannot hold WAL,
each rank writes a file of its own and reads everyone's (`own_file_per_rank`); the budget is then divided by ranks.

    ledger.get(key) -> stored answer or None        ledger.reserve(...) before a call, ledger.put(...) after it
"""

import os
import sqlite3
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from rnagpt_core.errors import UserError

TABLES = """
CREATE TABLE IF NOT EXISTS call (
    key TEXT PRIMARY KEY, stage TEXT, answer BLOB, prompt_tokens INTEGER, answer_tokens INTEGER, usd REAL);
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), calls INTEGER, tokens INTEGER, usd REAL);
CREATE TABLE IF NOT EXISTS reservation (owner TEXT, key TEXT, tokens INTEGER, usd REAL, PRIMARY KEY (owner, key));
CREATE TABLE IF NOT EXISTS event (name TEXT PRIMARY KEY, number INTEGER);
INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0);
"""


class BudgetReached(UserError):
    """The next call could cost more than what is left: nothing was sent."""


@dataclass(frozen=True)
class Prices:
    """USD for a million tokens; the defaults are GPT-4o-mini's, half of it in the Batch API."""

    prompt: float = 0.15
    answer: float = 0.60

    def usd(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1e6


@dataclass(frozen=True)
class Budget:
    """What all runs in one work folder may spend together; None is no limit."""

    usd: float | None = None
    tokens: int | None = None

    def divided(self, parts: int) -> "Budget":
        return Budget(
            None if self.usd is None else self.usd / parts, None if self.tokens is None else self.tokens // parts
        )


@dataclass(frozen=True)
class Answer:
    """A model's answer and what it took; `cached` when it was read, not asked."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    cached: bool = False


class Ledger:
    """The cache and the account in one file, so that an answer and its price are written together or not at all."""

    def __init__(self, path: str | Path, budget: Budget = Budget(), others: tuple[Path, ...] = (), wal: bool = True):
        self.path, self.budget = Path(path), budget
        self.owner = f"{os.uname().nodename}:{os.getpid()}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        self.db.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(TABLES)
        self.others = [
            sqlite3.connect(f"{other.absolute().as_uri()}?mode=ro", uri=True, timeout=120, check_same_thread=False)
            for other in others
            if other.exists() and other != self.path
        ]

    def close(self) -> None:
        for db in (self.db, *self.others):
            db.close()

    def get(self, key: str) -> Answer | None:
        for db in (self.db, *self.others):
            row = db.execute("SELECT answer, prompt_tokens, answer_tokens FROM call WHERE key = ?", (key,)).fetchone()
            if row:
                return Answer(zlib.decompress(row[0]).decode(), row[1], row[2], cached=True)
        return None

    def reserve(self, key: str, tokens: int, usd: float) -> None:
        """Set aside what a call can cost at most.

        Raises:
            BudgetReached: spent, reserved and this together would pass the budget.
        """
        if self.budget == Budget():
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            (spent_tokens, spent_usd) = self.db.execute("SELECT tokens, usd FROM total").fetchone()
            held = self.db.execute(
                "SELECT coalesce(sum(tokens), 0), coalesce(sum(usd), 0) FROM reservation"
            ).fetchone()
            if self.budget.usd is not None and spent_usd + held[1] + usd > self.budget.usd + 1e-12:
                raise BudgetReached(
                    f"the next call would pass the budget of {self.budget.usd:g} USD ({spent_usd:.4f} spent); raise "
                    "--budget-usd and run the same command to go on, nothing is paid twice"
                )
            if self.budget.tokens is not None and spent_tokens + held[0] + tokens > self.budget.tokens:
                raise BudgetReached(
                    f"the next call would pass the budget of {self.budget.tokens} tokens ({spent_tokens} used); raise "
                    "--budget-tokens and run the same command to go on, nothing is paid twice"
                )
            self.db.execute("INSERT OR REPLACE INTO reservation VALUES (?, ?, ?, ?)", (self.owner, key, tokens, usd))
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def release(self, key: str) -> None:
        """Give a reservation back: the call was not answered."""
        if self.budget != Budget():
            self.db.execute("DELETE FROM reservation WHERE owner = ? AND key = ?", (self.owner, key))

    def put(self, key: str, stage: str, answer: Answer, usd: float) -> None:
        """Store an answer with its price. An answer that another process stored meanwhile stays; both were paid."""
        values = (key, stage, zlib.compress(answer.text.encode()), answer.prompt_tokens, answer.answer_tokens, usd)
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT OR IGNORE INTO call VALUES (?, ?, ?, ?, ?, ?)", values)
        self.db.execute(
            "UPDATE total SET calls = calls + 1, tokens = tokens + ?, usd = usd + ?",
            (answer.prompt_tokens + answer.answer_tokens, usd),
        )
        self.db.execute("DELETE FROM reservation WHERE owner = ? AND key = ?", (self.owner, key))
        self.db.execute("COMMIT")

    def count(self, name: str, number: int = 1) -> None:
        """Count an event of the wire (a retry, a malformed body) for the run report."""
        self.db.execute(
            "INSERT INTO event VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET number = number + excluded.number",
            (name, number),
        )

    def forget_reservations(self) -> None:
        """Of processes that were killed: call it only while none runs."""
        self.db.execute("DELETE FROM reservation")

    def spent(self) -> dict:
        """{"calls", "tokens", "usd", "by_stage", "events"} so far."""
        calls, tokens, usd = self.db.execute("SELECT calls, tokens, usd FROM total").fetchone()
        stages = self.db.execute(
            "SELECT stage, count(*), sum(prompt_tokens), sum(answer_tokens), sum(usd) FROM call GROUP BY stage"
        ).fetchall()
        return {
            "calls": calls,
            "tokens": tokens,
            "usd": usd,
            "by_stage": {
                stage: {"calls": n, "prompt_tokens": p, "answer_tokens": a, "usd": price}
                for stage, n, p, a, price in stages
            },
            "events": dict(self.db.execute("SELECT name, number FROM event ORDER BY name").fetchall()),
        }


def backoff(attempt: int, retry_after: str | None, draw) -> float:
    """Seconds to wait before attempt number `attempt` + 1: the server's wish, else 0.5-8 s doubling, with jitter.

    >>> import random
    >>> backoff(1, "3", random.Random(0)) >= 3, backoff(9, None, random.Random(0)) <= 8
    (True, True)
    """
    wish = seconds_of(retry_after)
    if wish is not None:
        return wish + draw.random() * 0.2
    return min(8.0, 0.5 * 2**attempt) * (0.5 + draw.random() / 2)


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
