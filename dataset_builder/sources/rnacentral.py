"""Collect RNAs with literature from RNAcentral, LitScan and Europe PMC into the library.

    list       RNAs with LitScan hits, by EBI Search paging (its cursor is kept), reconciled with the hit count; or
               those that a file names
    sequences  each RNA's sequence from RNAcentral, checked by md5; or all at once from the export service, or FASTA
    aliases    the names each RNA's literature was searched by; names that mean no one RNA are left out
    articles   the papers of each name, once per name; reconciled with the hit count
    gaps       abstracts that LitScan lacks, from Europe PMC
    retracted  which of the papers were withdrawn, from Europe PMC
    facts      where wished, what LitSumm, Rfam and the Gene Ontology say of each RNA

Every answer is written with the mark that it is done, in one transaction: the same command goes on after any stop and
stores nothing twice. Shapes of the answers: the services' own sources; a surprise is an error, not a guess.
"""

import functools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataset_builder.sources import curated_facts
from dataset_builder.sources.local_source import NO_ID, add_rna_with_papers, listed, sha256_of
from dataset_builder.sources.polite_client import NotThere, PoliteClient, has_keys
from dataset_builder.storage.records import MIN_LENGTH, CuratedFact, Dropped, paper, rna_record, text_of
from dataset_builder.storage.store import Store
from rnagpt_core.errors import UserError

ADDRESSES = {
    "ebi": "https://www.ebi.ac.uk/ebisearch/ws/rest",
    "rnacentral": "https://rnacentral.org/api/v1",
    "export": "https://export.rnacentral.org",
    "europe_pmc": "https://www.ebi.ac.uk/europepmc/webservices/rest",
}
PAGE = 1000
ARTICLE_FIELDS = "job_id,title,abstract,year,pmid,pmcid"
SURPLUS = 2000  # articles of one name, the best-scored: a name with more is a topic of its own
GENERIC = re.compile(
    r"(?:[0-9.]+s\s*)?(?:small subunit|large subunit|ribosomal|transfer|micro|non-?coding|long|messenger|circular)?\s*"
    r"(?:[a-z]{0,3}rnas?|rdna|ssu|lsu|16s|18s|23s|28s|5s|5\.8s|mir|let|hp|rna)(?:\s*(?:gene|like|fragment))?",
    re.I,
)
TABLES = """
CREATE TABLE IF NOT EXISTS candidate (rna_id TEXT PRIMARY KEY, row TEXT, sequence_done INTEGER, aliases_done INTEGER);
CREATE TABLE IF NOT EXISTS candidate_alias (rna_id TEXT, alias TEXT, PRIMARY KEY (rna_id, alias)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alias (alias TEXT PRIMARY KEY, hits INTEGER);
CREATE TABLE IF NOT EXISTS alias_paper (alias TEXT, pmid TEXT, PRIMARY KEY (alias, pmid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gap (pmcid TEXT PRIMARY KEY, pmid TEXT, done INTEGER);
CREATE TABLE IF NOT EXISTS withdrawn (pmid TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS paper_ids (pmid TEXT PRIMARY KEY, pmcid TEXT, checked INTEGER);
"""


@dataclass
class Collection:
    """One collection, into `library` (None: to check() the wishes alone). `query` restricts the RNAs, `limit` their
    number; `by_export` takes the sequences from there; `ids`: a file that names the RNAs (`listed`); `facts`: which
    of curated_facts.SOURCES are asked, too, a request per RNA each."""

    library: Store | None
    client: PoliteClient
    max_length: int = 1024
    release: str = ""
    query: str = ""
    limit: int | None = None
    by_export: bool = False
    ids: str | None = None
    facts: tuple[str, ...] = ()
    say: object = print
    counts: Counter = field(default_factory=Counter)

    def run(self) -> None:
        """All stages.

        Raises:
            UserError: a service did not answer, or gave fewer records than it says it has.
        """
        self.check()
        self.library.db.executescript(TABLES)
        for stage in ("list_rnas", "sequences", "aliases", "articles", "gaps", "retractions", "curated"):
            if stage != "curated" or self.facts:
                self.say(f"collecting: {stage.replace('_', ' ')}")
                getattr(self, stage)()
        self.finish()

    def check(self) -> None:
        """UserError for wishes that cannot be, and where a restart has others than the RNAs were listed by."""
        if unknown := set(self.facts) - set(curated_facts.SOURCES):
            raise UserError(f"facts come from {', '.join(curated_facts.SOURCES)}; got {', '.join(sorted(unknown))}")
        if self.ids and (self.query or self.by_export):
            raise UserError("a file of ids names the RNAs itself: leave the query and the export out")
        before, now = self.library.fact("asked") if self.library else None, self.wishes()
        if changed := [key for key in now if before and before.get(key) != now[key]]:
            raise UserError(
                f"{self.library.path} was begun with another {' and '.join(changed)}: use the same, or another output "
                "folder"
            )

    def wishes(self) -> dict:
        """What decides which RNAs and facts are collected; of a file its sha256."""
        digest = sha256_of(self.ids) if self.ids and Path(self.ids).is_file() else ""
        wishes = {"query": self.query, "limit": self.limit, "by_export": self.by_export}
        return wishes | {"ids": digest, "facts": sorted(set(self.facts))}

    # --- RNAs

    def search_query(self) -> str:
        found = f'entry_type:sequence AND has_lit_scan:"True" AND length:[{MIN_LENGTH} to {self.max_length}]'
        return f"{found} AND ({self.query})" if self.query else found

    def list_rnas(self) -> None:
        """Ids and descriptions of all RNAs with literature, or of those in the file."""
        if self.library.fact("listed"):
            return
        if self.ids:
            self.list_file(Path(self.ids))
            return
        db, number, promised, wishes = self.library.db, 0, 0, self.wishes()
        for attempt in (1, 2):
            for entries, cursor, hits in self.pages("rnacentral", self.search_query(), "description,rna_type,length"):
                with self.library.writing():
                    rows = ((entry["id"], json.dumps(entry["fields"])) for entry in entries)
                    db.executemany("INSERT OR IGNORE INTO candidate (rna_id, row) VALUES (?, ?)", rows)
                    self.library.set_fact("list cursor", cursor)
                    self.library.set_fact("asked", wishes)
                promised = hits
                (number,) = db.execute("SELECT count(*) FROM candidate").fetchone()
                if self.limit and number >= self.limit:
                    break
            if number >= min(promised, self.limit or promised):
                break
            if attempt == 2:
                raise UserError(
                    f"RNAcentral says it has {promised} RNAs for this query and gave {number}: run the same command "
                    "later"
                )
            with self.library.writing():
                self.library.set_fact("list cursor", None)  # the cursor may have expired: known ids are skipped
        with self.library.writing():
            self.library.set_fact("listed", {"hits": promised, "kept": number})

    def list_file(self, path: Path) -> None:
        """The RNAs that a file names; lines that name none are left out."""
        number = 0
        with self.library.writing():
            for line, rna_id, row in listed(path):
                if row is None:
                    self.library.leave_out(path.name, line, rna_id[:80], NO_ID)
                elif not self.limit or number < self.limit:
                    done = 1 if row else None  # FASTA has the sequence
                    values = (rna_id, json.dumps({**row, "line": line}), done)
                    insert = "INSERT OR IGNORE INTO candidate (rna_id, row, sequence_done) VALUES (?, ?, ?)"
                    number += self.library.db.execute(insert, values).rowcount
            if not number:
                raise UserError(f"{path} names no RNA: expected ids such as URS000047C79B_9606, or FASTA")
            self.library.set_fact("asked", self.wishes())
            self.library.set_fact("listed", {"hits": number, "kept": number})

    def pages(
        self, domain: str, query: str, fields: str, resume: bool = True
    ) -> Iterator[tuple[list, str | None, int]]:
        """(entries, cursor of the next page, hit count) of an EBI Search, to its end.

        A cursor that was seen before is asked again a few times, then taken for the end: what is missing then is
        seen by the reconciliation.
        """
        cursor = self.library.fact("list cursor") if resume else None
        cursors, repeats = {cursor}, 0
        while True:
            params = {"query": query, "fields": fields, "size": PAGE, "sort": "id", "format": "json"}
            params["searchposition"] = cursor if cursor is not None else 0
            page = self.client.ask("ebi", domain, has_keys(hitCount=int, entries=list), params)
            entries = [entry for entry in page["entries"] if well_formed(entry)]
            if len(entries) < len(page["entries"]):
                self.counts["entries without id or fields"] += len(page["entries"]) - len(entries)
            following = page.get("searchPosition")
            if following in cursors and entries and following is not None:
                repeats += 1
                self.client.events["ebi: cursor that repeats"] += 1
                yield entries, cursor, page["hitCount"]
                if repeats > 3:
                    return
                continue
            yield entries, following, page["hitCount"]
            if not entries or following is None:
                return
            cursor = following
            cursors.add(cursor)

    def sequences(self) -> None:
        """Each RNA's sequence, one request each, or all from the export service."""
        db = self.library.db
        if self.by_export:
            self.export()
        chosen = "SELECT rna_id FROM candidate ORDER BY rna_id LIMIT ?"  # -1: all
        query = (
            f"SELECT rna_id, row FROM candidate WHERE sequence_done IS NULL AND rna_id IN ({chosen}) ORDER BY rna_id"
        )
        todo = dict(db.execute(query, (self.limit or -1,)))
        for rna_id, found in self.client.many(self.one_rna, list(todo)):
            with self.library.writing():
                values = (json.dumps({**json.loads(todo[rna_id]), **(found or {})}), 1 if found else 0, rna_id)
                db.execute("UPDATE candidate SET row = ?, sequence_done = ? WHERE rna_id = ?", values)

    def one_rna(self, rna_id: str) -> dict | None:
        urs, _, taxid = rna_id.partition("_")
        try:
            found = self.client.ask("rnacentral", f"rna/{urs}/{taxid}", has_keys(sequence=str, rnacentral_id=str))
            # the record of one species has no md5; the sequence's own record has
            found["md5"] = self.client.ask("rnacentral", f"rna/{urs}", has_keys(md5=str))["md5"]
        except NotThere:
            return None
        wanted = ("sequence", "md5", "description", "short_description", "species", "taxid", "rna_type", "is_active")
        return {key: found[key] for key in wanted if key in found}

    def export(self) -> None:
        """All sequences in one download: submit, wait, read."""
        if self.library.fact("exported"):
            return
        query = self.search_query().replace('"', "%22").replace(" ", "%20")
        address = f"{self.client.addresses['ebi']}/rnacentral?query=({query})&size={PAGE}&sort=id&format=json"
        body = {"api_url": address, "data_type": "json"}
        task = self.client.ask("export", "submit/", has_keys(task_id=str), body=body)["task_id"]
        while True:
            status = self.client.ask("export", f"status/{task}", has_keys(state=str))
            if status["state"] in ("SUCCESS", "FINISHED"):
                break
            if status["state"] in ("FAILURE", "REVOKED"):
                raise UserError(f"RNAcentral's export failed ({status['state']}); run the same command to try again")
            time.sleep(min(10.0, self.client.timeout / 6))
        found = self.client.ask("export", f"download/{task}/json", has_keys(results=list))
        release = text_of(found.get("rnacentral_version"))
        with self.library.writing():
            for row in found["results"]:
                # no md5 in the export: the record's own is computed
                rest = {key: row.get(key) for key in ("sequence", "description", "rna_type", "taxid")}
                self.library.db.execute(
                    "UPDATE candidate SET row = ?, sequence_done = 1 WHERE rna_id = ?",
                    (json.dumps({**rest, "release": release}), row.get("rnacentral_id")),
                )
            self.library.set_fact("exported", True)

    # --- literature

    def aliases(self) -> None:
        """The names under which LitScan searched for each RNA."""
        db = self.library.db
        todo = self.column("rna_id FROM candidate WHERE sequence_done = 1 AND aliases_done IS NULL")

        def names(rna_id: str) -> set[str]:
            query = f'entry_type:metadata AND primary_id:"{rna_id}" AND database:rnacentral'
            pages = self.pages("rnacentral-litscan", query, "job_id", resume=False)
            return {text_of(entry["fields"].get("job_id")).lower() for page in pages for entry in page[0]} - {""}

        for rna_id, found in self.client.many(names, todo):
            usable = {alias for alias in found if not is_generic(alias)}
            self.counts["names that mean no one RNA, left out"] += len(found - usable)
            with self.library.writing():
                db.executemany("INSERT OR IGNORE INTO candidate_alias VALUES (?, ?)", ((rna_id, a) for a in usable))
                db.executemany("INSERT OR IGNORE INTO alias (alias) VALUES (?)", ((a,) for a in usable))
                db.execute("UPDATE candidate SET aliases_done = 1 WHERE rna_id = ?", (rna_id,))

    def articles(self) -> None:
        """The papers of each name; a name that many RNAs share is asked once."""
        todo = self.column("alias FROM alias WHERE hits IS NULL")

        def rows(alias: str) -> tuple[int, dict[str, dict]]:
            query = f'entry_type:Publication AND job_id:"{quoted(alias)}"'
            for _attempt in range(3):
                found: dict[str, dict] = {}
                hits = 0
                for entries, _, promised in self.pages("rnacentral-litscan", query, ARTICLE_FIELDS, resume=False):
                    hits = promised
                    for entry in entries:
                        row = {key: text_of(value) for key, value in entry["fields"].items()}
                        row["abstract"] = (entry["fields"].get("abstract") or [""])[0]
                        found.setdefault(row.get("pmcid") or row.get("pmid") or entry["id"], row)
                    if len(found) >= SURPLUS:
                        break
                if len(found) >= min(hits, SURPLUS):
                    return hits, found
            raise UserError(
                f"LitScan says it has {hits} papers on {alias} and gave {len(found)}: run the same command later"
            )

        for alias, (hits, found) in self.client.many(rows, todo):
            with self.library.writing():
                for row in found.values():
                    self.add_article(alias, row)
                self.library.db.execute("UPDATE alias SET hits = ? WHERE alias = ?", (hits, alias))

    def add_article(self, alias: str, row: dict) -> None:
        db, pmcid = self.library.db, row.get("pmcid", "")
        pmid = row.get("pmid") or pmcid.upper()
        try:
            self.counts.update(f"repaired: {reason}" for reason in self.add_paper(row, pmcid))
        except Dropped as reason:
            if "without an abstract" not in str(reason) or not pmcid:
                self.counts[f"dropped: {reason}"] += 1
                return
            db.execute("INSERT OR IGNORE INTO gap (pmcid, pmid) VALUES (?, ?)", (pmcid, pmid))
        db.execute("INSERT OR IGNORE INTO alias_paper VALUES (?, ?)", (alias, pmid))

    def add_paper(self, row: dict, pmcid: str) -> list[str]:
        """-> what had to be repaired in it; Dropped for one that cannot be used."""
        found, repaired = paper(row)
        self.library.add_paper(found)
        ids = "INSERT OR IGNORE INTO paper_ids (pmid, pmcid) VALUES (?, ?)"
        self.library.db.execute(ids, (found.pmid, pmcid))
        return repaired

    def gaps(self) -> None:
        """Abstracts that LitScan lacks, a hundred papers a request."""
        db = self.library.db
        todo = db.execute("SELECT pmcid, pmid FROM gap WHERE done IS NULL ORDER BY pmcid").fetchall()
        for start in range(0, len(todo), 100):
            batch = dict(todo[start : start + 100])
            query = " OR ".join(f"PMCID:{pmcid}" for pmcid in batch)
            for row in self.europe_pmc(query):
                with self.library.writing():
                    if row.get("pmcid") not in batch:
                        continue
                    known = {"pmid": batch[row["pmcid"]], "abstract": row.get("abstractText")}
                    try:
                        self.add_paper({**row, **known, "year": row.get("pubYear")}, row["pmcid"])
                    except Dropped as reason:
                        self.counts[f"dropped: {reason}"] += 1
                    else:
                        self.counts["abstracts filled in from Europe PMC"] += 1
            with self.library.writing():
                db.executemany("UPDATE gap SET done = 1 WHERE pmcid = ?", ((pmcid,) for pmcid in batch))

    def europe_pmc(self, query: str) -> Iterator[dict]:
        """Results of a search, to the end: an empty page or a cursor that repeats."""
        cursor, cursors = "*", {"*"}
        while True:
            form = {"query": query, "resultType": "core", "format": "json", "pageSize": PAGE, "cursorMark": cursor}
            page = self.client.ask("europe_pmc", "searchPOST", has_keys(hitCount=int, resultList=dict), form=form)
            results = page["resultList"].get("result") or []
            yield from (row for row in results if isinstance(row, dict))
            cursor = page.get("nextCursorMark")
            if not results or not cursor or cursor in cursors:
                return
            cursors.add(cursor)

    def retractions(self) -> None:
        """Which papers were withdrawn, a thousand a request."""
        db = self.library.db
        while True:
            batch = db.execute("SELECT pmid, pmcid FROM paper_ids WHERE checked IS NULL LIMIT 1000").fetchall()
            if not batch:
                return
            ids = [{"src": "PMC", "extId": pmcid} if pmcid else {"src": "MED", "extId": pmid} for pmid, pmcid in batch]
            found = self.client.ask(
                "europe_pmc", "status-update-search", has_keys(articlesWithStatusUpdate=list), body={"ids": ids}
            )
            withdrawn = {
                str(row.get("extId"))
                for row in found["articlesWithStatusUpdate"]
                if isinstance(row, dict) and "RETRACTED" in str(row.get("statusUpdates")).upper()
            }
            with self.library.writing():
                for pmid, pmcid in batch:
                    if {pmid, pmcid} & withdrawn:
                        db.execute("INSERT OR IGNORE INTO withdrawn VALUES (?)", (pmid,))
                db.executemany("UPDATE paper_ids SET checked = 1 WHERE pmid = ?", ((pmid,) for pmid, _ in batch))

    def curated(self) -> None:
        """What others say of each RNA whose sequence was found."""
        todo = self.column(
            "rna_id FROM candidate WHERE sequence_done = 1 AND rna_id NOT IN (SELECT rna_id FROM curated)"
        )
        ask = functools.partial(curated_facts.curated_by, sources=self.facts, client=self.client)
        for rna_id, found in self.client.many(ask, todo):
            with self.library.writing():
                self.library.add_curated(rna_id, [self.by_pmid(fact) for fact in found])

    def by_pmid(self, fact: CuratedFact) -> CuratedFact:
        """The fact with its papers under the ids that the library has them by."""
        found = ([*self.column("pmid FROM paper_ids WHERE pmcid = ?", pmid), pmid] for pmid in fact.pmids)
        return replace(fact, pmids=tuple(first for first, *_ in found))

    def column(self, query: str, *values) -> list[str]:
        """The values that a SELECT of one column finds, in their order."""
        return [value for (value,) in self.library.db.execute(f"SELECT {query} ORDER BY 1", values)]

    # --- into the library

    def finish(self) -> None:
        """RNAs with their literature; counted reasons for those that have none."""
        db, counts = self.library.db, Counter()
        with self.library.writing():
            db.execute("DELETE FROM paper WHERE pmid IN (SELECT pmid FROM withdrawn)")
            self.counts.update("dropped: retracted paper" for _ in self.column("pmid FROM withdrawn"))
            for rna_id, row, done in db.execute("SELECT rna_id, row, sequence_done FROM candidate").fetchall():
                if done is None:
                    continue  # past the limit
                try:
                    if not done:
                        raise Dropped("RNA that RNAcentral has no record of")
                    self.finish_one(rna_id, json.loads(row))
                except Dropped as reason:
                    counts[f"dropped: {reason}"] += 1
                    if self.ids:
                        self.library.leave_out(Path(self.ids).name, json.loads(row)["line"], rna_id, str(reason))
                else:
                    counts["kept"] += 1
            counts.update(f"dropped: {reason}" for *_, reason in self.library.left_out() if reason == NO_ID)
            self.library.set_counts("rnas", counts)
            self.counts["kept"] = self.library.number_of("paper")
            self.library.set_counts("papers", self.counts)
            self.library.set_counts("services", self.client.events)

    def finish_one(self, rna_id: str, row: dict) -> None:
        if row.get("is_active") is False:
            raise Dropped("RNA that is not active any more")
        aliases = self.column("alias FROM candidate_alias WHERE rna_id = ?", rna_id)
        if not aliases:
            raise Dropped("RNA that LitScan knows by no name, or by too general ones")
        rna = rna_record({**row, "rna_id": rna_id, "aliases": aliases}, self.max_length, self.release)
        marks = ",".join("?" * len(aliases))
        papers = self.column(f"DISTINCT pmid FROM alias_paper WHERE alias IN ({marks})", *aliases)
        add_rna_with_papers(self.library, rna, set(papers))


def well_formed(entry) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str) and isinstance(entry.get("fields"), dict)


def is_generic(alias: str) -> bool:
    """True for a name that means a kind of RNA, not one: its papers would be about anything.

    >>> [is_generic(name) for name in ("16S rRNA", "trna", "ssu", "miR-21", "hotair", "7SK", "lncRNA")]
    [True, True, True, False, False, False, True]
    """
    return len(alias) < 3 or GENERIC.fullmatch(alias.strip()) is not None


def quoted(text: str) -> str:
    """A name inside the quotes of a query.

    >>> quoted('5"-tRF')
    '5\\\\"-tRF'
    """
    return text.replace("\\", "\\\\").replace('"', '\\"')
