"""Known RNAs that are close to one being asked about: evidence to lay beside an answer, never part of it.

    KnownRnas().nearest("GCGGAUUUAGC...") -> [Neighbour(rna, identity=0.97), ...]
    KnownRnas([rna_qa("runs/rna-qa/dataset")])      # these too, with the papers on them

Looked for in the packaged table of RNA facts (8,142 RNAs), which names its sources but holds no literature, and where
one is given in an RNA-QA data set, whose RNAs have their PMIDs. Close is what the data splits call a neighbour
(`fact_splits`): 80% of the shorter one's nucleotides inside the longer one, 90% for an RNA of
up to 30 nt inside a longer one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np

from dataset_builder.facts_table.fact_answers import type_name
from dataset_builder.facts_table.fact_splits import largest_distance
from dataset_builder.facts_table.facts import RnaFact, load_facts
from dataset_builder.storage.records import IUPAC, PAPER_ID, written
from rnagpt_core.errors import UserError
from rnagpt_core.safe_text import one_line

K = 6
CANDIDATES = 60  # aligned, of those of a block that share most 6-mers
PIECE, OVERLAP = 1000, 500  # nt of a long RNA that are looked up at a time: a genome has every 6-mer
BLOCK = 50_000  # RNAs indexed at a time
SHOWN_PAPERS = 5
CODES = np.full(256, 255, dtype=np.uint8)
CODES[[ord(letter) for letter in "ACGU"]] = range(4)
ABOUT = ("name", "rna_type", "species")
COLUMNS = ("rna_id", "sequence", *ABOUT, "pmids")


@dataclass(frozen=True)
class KnownRna:
    """One RNA of which something is known; `page`: the address of its own page, or its family's; `pmids`: papers on
    it, by PMID, or PMC id where they have no other."""

    rna_id: str
    sequence: str
    name: str
    rna_type: str
    species: str
    source: str
    page: str | None = None
    pmids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Neighbour:
    """A known RNA and its identity: 1 - edits / length of the shorter of the two, aligned inside the longer."""

    rna: KnownRna
    identity: float

    def described(self) -> str:
        """One line, without its papers: "tRNA-Phe (transfer RNA, Homo sapiens), 97% identical, Rfam ..."."""
        rna = self.rna
        kind = ", ".join(filter(None, [type_name(rna.rna_type), rna.species]))
        about = f"{rna.name or rna.rna_id} ({kind})" if kind else rna.name or rna.rna_id
        return one_line(f"{about}, {self.identity:.0%} identical, {rna.source} {rna.rna_id}")

    def papers(self) -> str:
        """Its papers in a few words, "" where none are known.

        >>> Neighbour(KnownRna("x", "", "", "", "", "", pmids=("1", "PMC2", "3", "4", "5", "6")), 1.0).papers()
        'PMID 1, PMC2, PMID 3, PMID 4, PMID 5 and 1 more'
        """
        names = [paper_name(pmid) for pmid in self.rna.pmids]
        more = f" and {len(names) - SHOWN_PAPERS} more" if len(names) > SHOWN_PAPERS else ""
        return ", ".join(names[:SHOWN_PAPERS]) + more

    def as_json(self) -> dict:
        """For batch files and scripts."""
        rna = self.rna
        return {
            "rna_id": rna.rna_id,
            "name": rna.name,
            "rna_type": rna.rna_type,
            "species": rna.species,
            "source": rna.source,
            "identity": round(self.identity, 3),
            "link": rna.page,
            "pmids": list(rna.pmids),
        }


class KnownRnas:
    """The packaged table, and `more` RNAs, with an index of their 6-mers made at the first search.

    Args:
        table: in the packaged table's place.
    """

    def __init__(self, more: Iterable[Sequence[KnownRna]] = (), table: Sequence[KnownRna] | None = None):
        self._table, self.more = table, tuple(more)

    @cached_property
    def blocks(self) -> list["Block"]:
        """The index: half a second for the table, 12 s for 100,000 RNAs."""
        from tqdm import tqdm

        table = list(map(known, load_facts())) if self._table is None else self._table
        parts = [
            (rnas, range(first, min(first + BLOCK, len(rnas))))
            for rnas in (table, *self.more)
            for first in range(0, len(rnas), BLOCK)
        ]
        many = sum(len(numbers) for _, numbers in parts) > 2 * BLOCK
        return [Block(*part) for part in tqdm(parts, "indexing known RNAs", unit="block", disable=not many)]

    def nearest(self, sequence: str, most: int = 3) -> list[Neighbour]:
        """The closest known RNAs, closest first; none where none is close. A long RNA is looked up piece by piece:
        1.2 s for 100,000 nt, and 5 s with 100,000 RNAs more than the table."""
        import edlib

        if len(sequence) < K:
            return []
        found: dict[tuple[int, int], Neighbour] = {}
        rnas: dict[tuple[int, int], KnownRna] = {}
        for key, start, end in self.candidates(sequence):
            rna = rnas[key] if key in rnas else rnas.setdefault(key, self.blocks[key[0]].rnas[key[1]])
            # what is aligned at this piece lies within twice its length from it
            around = sequence[max(0, start - 2 * len(rna.sequence)) : end + 2 * len(rna.sequence)]
            shorter, longer = sorted((around, rna.sequence), key=len)
            limit = largest_distance(len(shorter), max(len(sequence), len(longer)))
            edits = edlib.align(shorter, longer, mode="HW", task="distance", k=limit)["editDistance"]
            if edits >= 0 and (key not in found or 1 - edits / len(shorter) > found[key].identity):
                found[key] = Neighbour(rna, 1 - edits / len(shorter))
        # among equals the one whose length is closest: it matches as a whole; then one with literature
        closest = sorted(
            found.values(),
            key=lambda one: (-one.identity, abs(len(one.rna.sequence) - len(sequence)), not one.rna.pmids),
        )
        return closest[:most]

    def candidates(self, sequence: str) -> Iterator[tuple[tuple[int, int], int, int]]:
        """((block, number) of an RNA worth an alignment, start and end of the piece that it shares 6-mers with)."""
        for start in range(0, max(len(sequence) - OVERLAP, 1), PIECE - OVERLAP):
            end = min(start + PIECE, len(sequence))
            for place, block in enumerate(self.blocks):
                for number in block.candidates(sequence[start:end]):
                    yield (place, number), start, end


class Block:
    """Some of the known RNAs, and for each 6-mer which of them have it and how often: at most 5 bytes a nucleotide."""

    def __init__(self, rnas: Sequence[KnownRna], numbers: range):
        self.rnas, self.numbers = rnas, numbers
        sequences = [rnas[number].sequence for number in numbers]
        self.lengths = np.array(list(map(len, sequences)))
        found = list(map(kmers, sequences))
        words, counts = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(words, kind="stable")
        self.holders = np.repeat(np.arange(len(found), dtype=np.int32), [len(one) for one, _ in found])[order]
        self.counts = counts[order]
        self.starts = np.searchsorted(words[order], np.arange(4**K + 1))

    def shared(self, sequence: str) -> np.ndarray:
        """How many 6-mers each RNA shares with the sequence, (RNAs,) int64."""
        total = np.zeros(len(self.numbers), dtype=np.int64)
        for word, count in zip(*kmers(sequence), strict=True):
            place = slice(self.starts[word], self.starts[int(word) + 1])
            total[self.holders[place]] += np.minimum(self.counts[place], count)  # a holder stands there once
        return total

    def candidates(self, sequence: str) -> Iterator[int]:
        """The numbers of the RNAs worth an alignment; the whole block is not: 80% identity leaves a quarter of the
        6-mers as they are."""
        possible = np.maximum(np.minimum(self.lengths, len(sequence)) - K + 1, 1)
        shared = self.shared(sequence)
        for place in np.argsort(-shared / possible, kind="stable")[:CANDIDATES]:
            if shared[place]:
                yield self.numbers[place]


def kmers(sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """The 6-mers of a sequence, as numbers below 4**6 (uint16), and how often each occurs, at most 255 times (uint8);
    those with IUPAC codes are left out.

    >>> [part.tolist() for part in kmers("AAAAAACNAAAAAA")]
    [[0, 1], [2, 1]]
    """
    codes = CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    windows = np.lib.stride_tricks.sliding_window_view(codes, K) if len(codes) >= K else codes[:0].reshape(0, K)
    every = windows[(windows < 4).all(axis=1)].astype(np.uint16) @ (4 ** np.arange(K - 1, -1, -1, dtype=np.uint16))
    words, counts = np.unique(every, return_counts=True)
    return words, np.minimum(counts, 255).astype(np.uint8)


# --- where they come from


def known(fact: RnaFact) -> KnownRna:
    """An RNA of the packaged table."""
    page = page_of(fact.rna_id, fact.family)
    return KnownRna(fact.rna_id, fact.sequence, fact.name, fact.rna_type, fact.species, fact.source, page)


class RnaQaRnas(Sequence[KnownRna]):
    """The RNAs of an RNA-QA data set (its configuration alignment), each once, with the papers of its annotations; a
    row is read from disk when it is asked for."""

    def __init__(self, rows):
        self.rows, self.left_out = rows, 0
        places: dict[tuple[str, int], list[int]] = {}  # one id may stand for two sequences
        sequences = rows.with_format(None).select_columns(["rna_id", "sequence"])
        for place, row in enumerate(sequences):
            sequence = written(row["sequence"])
            if row["rna_id"] is None or not sequence or set(sequence) - IUPAC:
                self.left_out += 1
            else:
                places.setdefault((row["rna_id"], hash(sequence)), []).append(place)
        self.places = list(places.values())

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> KnownRna:
        """One RNA; the papers of two annotations (two methods) are put together, and what is no PMID left out."""
        first, *others = (self.rows[place] for place in self.places[number])
        ids = (str(pmid) for row in (first, *others) for pmid in row["pmids"] or ())
        pmids = tuple(dict.fromkeys(filter(PAPER_ID.fullmatch, ids)))
        rna_id, *about = ("" if (value := first[key]) is None else str(value) for key in ("rna_id", *ABOUT))
        return KnownRna(rna_id, written(first["sequence"]), *about, "RNA-QA", page_of(rna_id), pmids)


def rna_qa(path: str) -> RnaQaRnas:
    """The RNAs of an RNA-QA folder or Hub id.

    Raises:
        UserError: it cannot be opened or is no RNA-QA.
    """
    import pyarrow as pa

    from dataset_builder.publishing.published_rows import open_rows

    rows = open_rows(path, "alignment", "all", set(COLUMNS)).select_columns(list(COLUMNS))
    kinds = {field.name: field.type for field in rows.features.arrow_schema}
    if not (pa.types.is_list(kinds["pmids"]) or pa.types.is_large_list(kinds["pmids"])):
        raise UserError(f"{path} (alignment): its pmids are {kinds['pmids']}, and an RNA-QA has lists of PMIDs there")
    if not (pa.types.is_string(kinds["sequence"]) or pa.types.is_large_string(kinds["sequence"])):
        raise UserError(f"{path} (alignment): its sequences are {kinds['sequence']}, and an RNA-QA has texts there")
    rnas = RnaQaRnas(rows)
    if not len(rnas):
        raise UserError(f"{path} (alignment) has no row with an rna_id and a sequence of nucleotides: give an RNA-QA")
    return rnas


# --- addresses


def page_of(rna_id: str, family: str = "") -> str | None:
    """The page about an RNA, else about its family; None where its source has neither.

    >>> page_of("URS000047C79B_9606"), page_of("mirbase:MI0005722", "MIR396")
    ('https://rnacentral.org/rna/URS000047C79B/9606', 'https://www.mirbase.org/hairpin/MI0005722')
    >>> page_of("rfam:RF00004:AF047722.1/3099-3243", "RF00004"), page_of("mine")
    ('https://rfam.org/family/RF00004', None)
    """
    if match := re.fullmatch(r"(URS[0-9A-F]{10})(?:_(\d+))?", rna_id):
        return "https://rnacentral.org/rna/" + "/".join(filter(None, match.groups()))
    source, _, accession = rna_id.partition(":")
    if source == "mirbase":
        return f"https://www.mirbase.org/{'mature' if accession.startswith('MIMAT') else 'hairpin'}/{quote(accession)}"
    if re.fullmatch(r"RF\d{5}", family):
        return f"https://rfam.org/family/{family}"
    return None


def paper_name(pmid: str) -> str:
    """A paper's id as it is written: PMC ids say what they are."""
    return one_line(pmid if pmid.startswith("PMC") else f"PMID {pmid}")


def page_of_paper(pmid: str) -> str:
    """The paper's page.

    >>> page_of_paper("30166548"), page_of_paper("PMC6117348")
    ('https://pubmed.ncbi.nlm.nih.gov/30166548/', 'https://pmc.ncbi.nlm.nih.gov/articles/PMC6117348/')
    """
    if pmid.startswith("PMC"):
        return f"https://pmc.ncbi.nlm.nih.gov/articles/{quote(pmid, safe='')}/"
    return f"https://pubmed.ncbi.nlm.nih.gov/{quote(pmid, safe='')}/"
