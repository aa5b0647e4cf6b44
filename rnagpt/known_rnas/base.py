"""Known RNAs that are close to one being asked about: evidence to lay beside an answer, never part of it.

    KnownRnas().nearest("GCGGAUUUAGC...") -> [Neighbour(rna, identity=0.97), ...]
    KnownRnas([rna_qa("runs/rna-qa/dataset")])      # these too, with the papers on them

Looked for in the packaged table of RNA facts (8,142 RNAs), which names its sources but holds no literature, and where
one is given in an RNA-QA data set, whose RNAs have their PMIDs. Close is what the data splits call a neighbour
(`rnagpt_core.nearest`).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from dataset_builder.facts_table.fact_answers import type_name
from dataset_builder.facts_table.facts import RnaFact, load_facts
from dataset_builder.storage.records import PAPER_ID
from rnagpt_core.errors import UserError
from rnagpt_core.nearest import Index
from rnagpt_core.safe_text import one_line
from rnagpt_core.sequences import is_rna, normalized

SHOWN_PAPERS = 5
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
    """RNAs of several sources side by side: the packaged table and `more`, each with an index of its own.

    Args:
        table: in the packaged table's place.
    """

    def __init__(self, more: Iterable[Sequence[KnownRna]] = (), table: Sequence[KnownRna] | None = None):
        self._table, self.more = table, tuple(more)

    @cached_property
    def indexed(self) -> list[tuple[Sequence[KnownRna], Index]]:
        """The sources, indexed at the first search: half a second for the table."""
        table = list(map(known, load_facts())) if self._table is None else self._table
        return [(rnas, Index([rna.sequence for rna in rnas])) for rnas in (table, *self.more)]

    def nearest(self, sequence: str, most: int = 3) -> list[Neighbour]:
        """The closest known RNAs, closest first; none where none is close."""
        found = [
            Neighbour(rnas[match.row], match.identity)
            for rnas, index in self.indexed
            for match in index.nearest(sequence)
        ]
        # among equals the one whose length is closest: it matches as a whole; then one with literature
        found.sort(key=lambda one: (-one.identity, abs(len(one.rna.sequence) - len(sequence)), not one.rna.pmids))
        return found[:most]


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
            sequence = normalized(row["sequence"])
            if row["rna_id"] is None or not is_rna(sequence):
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
        return KnownRna(rna_id, normalized(first["sequence"]), *about, "RNA-QA", page_of(rna_id), pmids)


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
