"""Read RNAs and abstracts from a folder, so that the builder runs without a network.

    FOLDER/rnas.jsonl     {"rna_id", "sequence", "name", "aliases", "rna_type", "species", "taxid", "md5", "pmids"}
    FOLDER/papers.jsonl   {"pmid", "title", "abstract", "year", "pmcid", "licence", "retracted"}
    FOLDER/links.jsonl    {"rna_id", "pmid"}, where the RNAs have no "pmids" of their own (a FASTA file, say)
    FOLDER/facts.jsonl    {"rna_id", "source", "text", "accession", "evidence", "pmids"}: what others say of the RNAs

Each as .jsonl, .jsonl.gz or .parquet; RNAs as .fasta, .fa and .fasta.gz too ("id description" in the header).
"""

import gzip
import hashlib
import io
import itertools
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dataset_builder.storage.records import (
    MAX_LENGTH,
    PAPER_ID,
    CuratedFact,
    Dropped,
    RnaRecord,
    paper,
    rna_id_of,
    rna_record,
    text_of,
)
from dataset_builder.storage.store import Store
from rnagpt_core.errors import UserError
from rnagpt_core.sequences import is_utf_16, stream_fasta, text_lines, unpacked

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")
FASTA_ENDINGS = (".fasta", ".fa", ".fasta.gz", ".fa.gz")
FILES = {"rnas": ENDINGS + FASTA_ENDINGS, "papers": ENDINGS, "links": ENDINGS, "facts": ENDINGS}
RNA_ID = re.compile(r"(URS[0-9A-F]{10})[_/](\d+)")
NO_ID = "no RNAcentral id with a taxid, such as URS000047C79B_9606"


def collect(folder: str | Path, library: Store, max_length: int = MAX_LENGTH, release: str = "") -> None:
    """Fill the library from a folder; what is left out is counted there by its reason, and noted by file and line.

    Raises:
        UserError: the folder, the RNAs or the papers are not there, or a file cannot be read.
    """
    files = files_of(folder)
    with library.writing():
        library.db.execute("DELETE FROM left_out")
        library.set_fact("files", fingerprints(folder))
        rows = Rows(library, max_length, release)
        rows.take("papers", files["papers"], rows.paper, lambda row: text_of(row.get("pmid")))
        counts: Counter = Counter()
        for _, row in rows_of(files["links"], library, counts) if files["links"] else ():
            rows.links[rna_id_of(row)].append(text_of(row.get("pmid")))
        library.set_counts("links", counts)
        rows.take("rnas", files["rnas"], rows.rna)
        if files["facts"]:
            rows.take("facts", files["facts"], rows.fact)
            for rna_id, found in rows.facts.items():
                library.add_curated(rna_id, found)


class Rows:
    """The rows of a folder, put into the library one by one; Dropped for one that cannot be used."""

    def __init__(self, library: Store, max_length: int, release: str):
        self.library, self.max_length, self.release = library, max_length, release
        self.pmid_of: dict[str, str] = {}  # of papers by the PMC ids that they have besides
        self.links: dict[str, list[str]] = defaultdict(list)
        self.facts: dict[str, dict[CuratedFact, None]] = defaultdict(dict)  # of an RNA, in the file's order

    def take(self, stage: str, path: Path, one: Callable[[dict, Counter], None], name=rna_id_of) -> None:
        """Every row of a file to `one`, with the stage's counts; what is dropped is noted under its `name`."""
        counts: Counter = Counter()
        for line, row in rows_of(path, self.library, counts):
            try:
                one(row, counts)
            except Dropped as reason:
                leave_out(self.library, counts, path, line, name(row), reason)
            else:
                counts["kept"] += 1
        self.library.set_counts(stage, counts)

    def paper(self, row: dict, counts: Counter) -> None:
        found, repaired = paper(row)
        counts.update(f"repaired: {reason}" for reason in repaired)
        if found.pmcid:
            self.pmid_of[found.pmcid.upper()] = found.pmid
        if not self.library.add_paper(found):
            raise Dropped("PMID seen before (the longer abstract is kept)")

    def rna(self, row: dict, counts: Counter) -> None:
        rna = rna_record(row, self.max_length, self.release)
        if isinstance(row.get("pmids"), str):
            raise Dropped("pmids that are a text: a list of PMIDs is expected")
        papers = named([*(row.get("pmids") or ()), *self.links.get(rna.rna_id, ())], self.pmid_of)
        add_rna_with_papers(self.library, rna, set(papers))

    def fact(self, row: dict, counts: Counter) -> None:
        rna_id, pmids = rna_id_of(row), row.get("pmids") or []
        values = [row.get(key) for key in ("source", "text", "accession", "evidence")]
        if any(isinstance(value, list | dict) for value in values):
            raise Dropped("fact with a list or an object where a text is expected")
        source, text, *more = map(text_of, values)
        if not source or not text:
            raise Dropped("fact without a source or a text")
        if not isinstance(pmids, list):
            raise Dropped("pmids that are no list")
        fact = CuratedFact(source, text, *more, tuple(named(pmids, self.pmid_of)))
        if not all(map(PAPER_ID.fullmatch, fact.pmids)):
            raise Dropped("pmids that are no PMIDs or PMC ids")
        if not self.library.db.execute("SELECT 1 FROM rna WHERE rna_id = ?", (rna_id,)).fetchone():
            raise Dropped("fact on an RNA that is not there")
        if fact in self.facts[rna_id]:
            raise Dropped("fact seen before")
        self.facts[rna_id][fact] = None


def files_of(folder: str | Path) -> dict[str, Path | None]:
    """The files of rnas, papers and (or None) links and facts, by these names.

    Raises:
        UserError: the folder, the RNAs or the papers are not there, there are two of one, or links of another format.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder} is a file: give the folder that has rnas and papers")
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}: expected one with rnas.jsonl and papers.jsonl")
    there = {stem: stem in ("rnas", "papers") or any(folder.glob(f"{stem}.*")) for stem in FILES}
    return {stem: one_file(folder, stem) if there[stem] else None for stem in FILES}


def fingerprints(folder: str | Path) -> dict[str, str]:
    """sha256 of each file of the folder that a build reads, by its name."""
    return {path.name: sha256_of(path) for stem in FILES for path in files_named(Path(folder), stem)}


def sha256_of(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(papers: Iterable, pmid_of: dict[str, str]) -> list[str]:
    """Papers as rows name them, by PMID or PMC id -> the ids that the library has them by, each once.

    >>> named([12, "pmc7", "PMC8"], {"PMC7": "30"})
    ['12', '30', 'PMC8']
    """
    ids = map(text_of, papers)
    ids = (one.upper() if one[:3].upper() == "PMC" else one for one in ids)
    return list(dict.fromkeys(pmid_of.get(one, one) for one in ids))


def leave_out(library: Store, counts: Counter, path: Path, line: int, record: str, reason) -> None:
    counts[f"dropped: {reason}"] += 1
    library.leave_out(path.name, line, record, str(reason))


def add_rna_with_papers(library: Store, rna: RnaRecord, pmids: set[str]) -> None:
    """Add an RNA and its literature, named by its aliases.

    Raises:
        Dropped: no paper of it is in the library, or its id was there before.
    """
    if not pmids:
        raise Dropped("RNA that names no paper")
    known = [p for p in sorted(pmids) if library.db.execute("SELECT 1 FROM paper WHERE pmid = ?", (p,)).fetchone()]
    if not known:
        raise Dropped("RNA none of whose papers can be used")
    key = hashlib.sha256(json.dumps([rna.aliases, known]).encode()).hexdigest()
    if not library.add_rna(rna, library.add_literature(key, rna.aliases, known)):
        raise Dropped("rna_id seen before")


def files_named(folder: Path, stem: str) -> list[Path]:
    return [path for ending in FILES[stem] if (path := folder / f"{stem}{ending}").is_file()]


def one_file(folder: Path, stem: str) -> Path:
    found = files_named(folder, stem)
    if len(found) != 1:
        names = ", ".join(path.name for path in sorted(folder.glob(f"{stem}.*"))) or "none"
        raise UserError(f"{folder} should have one of {', '.join(stem + end for end in FILES[stem])}; it has {names}")
    return found[0]


def rows_of(path: Path, library: Store, counts: Counter) -> Iterator[tuple[int, dict]]:
    """(line or row from 1, row) of a JSONL, Parquet or FASTA file. A line that is no JSON object is left out."""
    if path.name.endswith(FASTA_ENDINGS):
        yield from enumerate(fasta_rows(path), start=1)
        return
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            batches = pq.ParquetFile(path).iter_batches(1024)
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), start=1)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet: {error}") from None
        return
    try:
        with unpacked(path) as file:
            lines = io.TextIOWrapper(file, "utf-16") if is_utf_16(file.peek(2)) else file
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = parsed(line, counts)
                if isinstance(row, dict):
                    yield number, row
                else:
                    leave_out(library, counts, path, number, "", "line that is no JSON object")
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeError) as error:
        raise UserError(f"{path} is damaged: {error}; copy it again") from None


def parsed(line: bytes | str, counts: Counter):
    """A JSON line in UTF-8, else in Windows-1252 (counted) -> value, None for no JSON."""
    if isinstance(line, bytes):
        try:
            line = line.decode("utf-8-sig")
        except UnicodeDecodeError:
            counts["repaired: line not in UTF-8, read as Windows-1252"] += 1
            line = line.decode("cp1252", errors="replace")
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None


def fasta_rows(path: Path) -> Iterator[dict]:
    """FASTA -> rows: the header's first word is the id, the rest the name; URS_taxid gives the taxid."""
    for header, sequence in stream_fasta(path):
        rna_id, _, name = header.partition(" ")
        taxid = rna_id.rpartition("_")[2] if rna_id.startswith("URS") else ""
        yield {"rna_id": rna_id, "name": name, "sequence": sequence, "taxid": taxid if taxid.isdigit() else 0}


def listed(path: str | Path) -> Iterator[tuple[int, str, dict | None]]:
    """RNAs named by a file: RNAcentral ids, one a line, or RNAcentral's FASTA (its FTP has them).

        URS000047C79B_9606            or            >URS000047C79B_9606 Homo sapiens (human) tRNA
                                                    GCGGAUUUAGCUC...

    -> (line or record from 1, id, what the file knows of the RNA); None instead of a row for what is no id.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        in_fasta = next((line for line in text_lines(path) if line.strip()), "").lstrip().startswith(">")
        rows = stream_fasta(path) if in_fasta else ((line, None) for line in text_lines(path))
        for number, (text, sequence) in enumerate(rows, start=1):
            first, *rest = re.split(r"[\s,;]", text.strip(), maxsplit=1)
            match = RNA_ID.fullmatch(first)
            if match and sequence is not None:
                row = {"sequence": sequence, "description": "".join(rest), "taxid": int(match[2])}
            else:
                row = {} if match else None
            if in_fasta or first and not first.startswith("#"):
                yield number, "_".join(match.groups()) if match else first, row
    except (FileNotFoundError, IsADirectoryError) as error:
        what = "is a folder" if isinstance(error, IsADirectoryError) else "does not exist"
        raise UserError(f"{path} {what}: --ids takes a file of RNAcentral ids, or FASTA") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): copy it again, or give another file") from None
