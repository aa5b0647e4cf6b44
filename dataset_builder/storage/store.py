"""RNAs, papers and which RNA is in which paper, in one SQLite file: what the collectors write and the pipeline reads.

RNAs found by the same names share one `literature` row, so that 400,000 RNAs with shared aliases stay small. Writing
the same record again changes nothing, so a collector can be interrupted anywhere and run again.

    store = Store(work / "library.sqlite")
    with store.writing():
        store.add_paper(paper); store.add_rna(rna, store.add_literature(key, names, pmids))
"""

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from dataset_builder.storage.records import CuratedFact, Paper, RnaRecord

TABLES = """
CREATE TABLE IF NOT EXISTS paper (
    id INTEGER PRIMARY KEY, pmid TEXT UNIQUE NOT NULL, size INTEGER, content BLOB, split TEXT);
CREATE TABLE IF NOT EXISTS literature (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, names TEXT NOT NULL, split TEXT, unit INTEGER);
CREATE TABLE IF NOT EXISTS unit (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, names TEXT NOT NULL, papers TEXT NOT NULL, split TEXT);
CREATE TABLE IF NOT EXISTS literature_paper (
    literature INTEGER, paper INTEGER, PRIMARY KEY (literature, paper)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rna (
    id INTEGER PRIMARY KEY, rna_id TEXT UNIQUE NOT NULL, content BLOB, literature INTEGER, split TEXT);
CREATE TABLE IF NOT EXISTS count (stage TEXT, reason TEXT, number INTEGER, PRIMARY KEY (stage, reason));
CREATE TABLE IF NOT EXISTS left_out (file TEXT, line INTEGER, record TEXT, reason TEXT);
CREATE TABLE IF NOT EXISTS curated (rna_id TEXT PRIMARY KEY, content BLOB);
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value TEXT);
CREATE INDEX IF NOT EXISTS rna_literature ON rna (literature);
CREATE INDEX IF NOT EXISTS literature_unit ON literature (unit);
"""
RNAS_OF_SET = (
    "SELECT content, rna.split FROM rna JOIN literature ON literature.id = literature WHERE unit = ? ORDER BY rna_id"
)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing: what is written inside is there after a crash, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    with db:  # commits or rolls back
        yield


def open_read_only(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=120, check_same_thread=False)


class Store:
    """The file. `read_only` readers may be many, on other machines too; one process writes."""

    def __init__(self, path: str | Path, read_only: bool = False):
        self.path = Path(path)
        if read_only:
            self.db = open_read_only(self.path)
        else:
            self.db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self.db.executescript(TABLES)

    def close(self) -> None:
        self.db.close()

    def writing(self):
        """`with store.writing():` all or nothing is written."""
        return transaction(self.db)

    # --- writing

    def add_paper(self, paper: Paper) -> bool:
        """True for a new PMID; of two papers with the same one the longer abstract is kept."""
        content, size = json.dumps(asdict(paper), ensure_ascii=False, sort_keys=True), len(paper.abstract)
        values = (size, zlib.compress(content.encode()), paper.pmid)
        row = self.db.execute("SELECT size, content FROM paper WHERE pmid = ?", (paper.pmid,)).fetchone()
        if row is None:
            self.db.execute("INSERT INTO paper (size, content, pmid) VALUES (?, ?, ?)", values)
            return True
        # of two versions the longer one, then the later in the alphabet: the order of arrival does not matter
        if (size, content) > (row[0], zlib.decompress(row[1]).decode()):
            self.db.execute("UPDATE paper SET size = ?, content = ? WHERE pmid = ?", values)
        return False

    def add_literature(self, key: str, names: Iterable[str], pmids: Iterable[str]) -> int:
        """The papers found by `names`; `key` tells one set from another. Papers that are not in the store are left
        out. Adding to a known key adds its papers."""
        self.db.execute(
            "INSERT OR IGNORE INTO literature (key, names) VALUES (?, ?)", (key, json.dumps(sorted(set(names))))
        )
        (number,) = self.db.execute("SELECT id FROM literature WHERE key = ?", (key,)).fetchone()
        self.db.executemany(
            "INSERT OR IGNORE INTO literature_paper SELECT ?, id FROM paper WHERE pmid = ?",
            ((number, pmid) for pmid in pmids),
        )
        return number

    def add_rna(self, rna: RnaRecord, literature: int | None) -> bool:
        """False when an RNA of that id was there before (it is kept, the new one is not)."""
        content = zlib.compress(json.dumps(asdict(rna), ensure_ascii=False).encode())
        values = (rna.rna_id, content, literature)
        cursor = self.db.execute("INSERT OR IGNORE INTO rna (rna_id, content, literature) VALUES (?, ?, ?)", values)
        return cursor.rowcount == 1

    def set_counts(self, stage: str, counts: Counter) -> None:
        """Replace a stage's counted reasons."""
        self.db.execute("DELETE FROM count WHERE stage = ?", (stage,))
        rows = [(stage, reason, number) for reason, number in sorted(counts.items())]
        self.db.executemany("INSERT INTO count VALUES (?, ?, ?)", rows)

    def leave_out(self, file: str, line: int, record: str, reason: str) -> None:
        """Note a row of a source's file, counted from 1, that was not taken."""
        self.db.execute("INSERT INTO left_out VALUES (?, ?, ?, ?)", (file, line, record, reason))

    def set_fact(self, key: str, value) -> None:
        self.db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, json.dumps(value)))

    # --- reading

    def fact(self, key: str, default=None):
        row = self.db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def counts(self) -> dict[str, dict[str, int]]:
        """{stage: {reason: number}}."""
        stages: dict[str, dict[str, int]] = {}
        for stage, reason, number in self.db.execute("SELECT * FROM count ORDER BY stage, number DESC, reason"):
            stages.setdefault(stage, {})[reason] = number
        return stages

    def left_out(self) -> list[tuple[str, int, str, str]]:
        """(file, line, record, reason) of every row of a source that was not taken."""
        return self.db.execute("SELECT * FROM left_out ORDER BY file, line").fetchall()

    def rnas(self, where: str = "", values: tuple = ()) -> Iterator[tuple[int, RnaRecord, int, str]]:
        """(number, record, literature, split) in the order of rna_id; `where` is SQL of ours, never a user's."""
        query = f"SELECT id, content, literature, split FROM rna {where} ORDER BY rna_id"
        for number, content, literature, split in self.db.execute(query, values):
            yield number, unpacked_rna(content), literature, split

    def rnas_of_set(self, number: int) -> Iterator[tuple[RnaRecord, str]]:
        """(record, split) of the RNAs that share a literature set, in the order of rna_id."""
        for content, split in self.db.execute(RNAS_OF_SET, (number,)):
            yield unpacked_rna(content), split

    def add_curated(self, rna_id: str, facts: Iterable[CuratedFact]) -> None:
        """What others say of an RNA, in place of what was there; the RNA need not be in the store (yet)."""
        content = json.dumps([asdict(fact) for fact in facts], ensure_ascii=False)
        self.db.execute("INSERT OR REPLACE INTO curated VALUES (?, ?)", (rna_id, zlib.compress(content.encode())))

    def curated(self, rna_id: str) -> list[CuratedFact]:
        """What others say of an RNA."""
        row = self.db.execute("SELECT content FROM curated WHERE rna_id = ?", (rna_id,)).fetchone()
        rows = json.loads(zlib.decompress(row[0])) if row else []
        return [CuratedFact(**{**fact, "pmids": tuple(fact["pmids"])}) for fact in rows]

    def papers(self, numbers: Iterable[int]) -> list[Paper]:
        """Papers by number, in the order asked for; KeyError for one that is not here."""
        return [self._paper("id", number) for number in numbers]

    def papers_by_pmid(self, pmids: Iterable[str]) -> list[Paper]:
        """Papers by PMID, likewise."""
        return [self._paper("pmid", pmid) for pmid in pmids]

    def _paper(self, column: str, value) -> Paper:
        row = self.db.execute(f"SELECT content FROM paper WHERE {column} = ?", (value,)).fetchone()
        if row is None:
            raise KeyError(value)
        return Paper(**json.loads(zlib.decompress(row[0])))

    def number_of(self, table: str) -> int:
        assert table in ("rna", "paper", "literature", "literature_paper", "unit")
        return self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def unpacked_rna(content: bytes) -> RnaRecord:
    row = json.loads(zlib.decompress(content))
    return RnaRecord(**{**row, "aliases": tuple(row["aliases"])})


def pmid_order(pmid: str) -> tuple[bool, int]:
    """Sort key: PMIDs by number, then PMC ids.

    >>> sorted(["PMC5", "100", "20"], key=pmid_order)
    ['20', '100', 'PMC5']
    """
    return pmid.startswith("PMC"), int(pmid.removeprefix("PMC"))
