"""Known RNAs that are close to one being asked about: evidence to lay beside an answer, never part of it.

    KnownRnas().nearest("GCGGAUUUAGC...") -> [Neighbour(fact, identity=0.97), ...]

Looked for in the packaged table of RNA facts (8,142 RNAs). It names its sources but holds no literature, so there are
no PMIDs. Close is what the data splits call a neighbour (`dataset_builder.fact_splits`): 80% of the shorter one's
nucleotides inside the longer one, 90% for an RNA of up to 30 nt inside a longer one.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np

from dataset_builder.fact_answers import type_name
from dataset_builder.fact_splits import largest_distance
from dataset_builder.facts import RnaFact, load_facts

K = 6
CANDIDATES = 60  # aligned, of those that share most 6-mers
CODES = np.full(256, 255, dtype=np.uint8)
CODES[[ord(letter) for letter in "ACGU"]] = range(4)


@dataclass(frozen=True)
class Neighbour:
    """A known RNA and its identity: 1 - edits / length of the shorter of the two, aligned inside the longer."""

    fact: RnaFact
    identity: float

    def described(self) -> str:
        """One line: "tRNA-Phe (transfer RNA, Saccharomyces cerevisiae), 97% identical, GtRNAdb"."""
        fact = self.fact
        kind = ", ".join(filter(None, [type_name(fact.rna_type), fact.species]))
        return f"{fact.name or fact.rna_id} ({kind}), {self.identity:.0%} identical, {fact.source} {fact.rna_id}"

    def as_json(self) -> dict:
        """For batch files and the server."""
        fact = self.fact
        return {
            "rna_id": fact.rna_id, "name": fact.name, "rna_type": fact.rna_type, "species": fact.species,
            "source": fact.source, "identity": round(self.identity, 3), "link": link(fact),
        }


class KnownRnas:
    """The table with an index of its 6-mers, made at the first search (half a second)."""

    def __init__(self, facts: list[RnaFact] | None = None):
        self._facts = facts

    @cached_property
    def facts(self) -> list[RnaFact]:
        return load_facts() if self._facts is None else self._facts

    @cached_property
    def kmers(self) -> np.ndarray:
        """How often each RNA has each 6-mer, at most 255, (RNAs, 4**6) uint8."""
        return np.stack([kmer_counts(fact.sequence) for fact in self.facts])

    def nearest(self, sequence: str, most: int = 3) -> list[Neighbour]:
        """The closest known RNAs, closest first; none where none is close."""
        import edlib

        if len(sequence) < K:
            return []
        shared = np.minimum(self.kmers, kmer_counts(sequence)).sum(axis=1, dtype=np.int64)
        lengths = np.array([min(fact.length, len(sequence)) for fact in self.facts]) - K + 1
        # the whole table is not aligned: 80% identity leaves a quarter of the 6-mers as they are
        candidates = np.argsort(-shared / lengths, kind="stable")[:CANDIDATES]
        found = []
        for i in candidates:
            fact = self.facts[i]
            shorter, longer = sorted((sequence, fact.sequence), key=len)
            limit = largest_distance(len(shorter), len(longer))
            distance = edlib.align(shorter, longer, mode="HW", task="distance", k=limit)["editDistance"]
            if distance >= 0:
                found.append(Neighbour(fact, 1 - distance / len(shorter)))
        # among equals the one whose length is closest: it matches as a whole
        found.sort(key=lambda neighbour: (-neighbour.identity, abs(neighbour.fact.length - len(sequence))))
        return found[:most]


def kmer_counts(sequence: str) -> np.ndarray:
    """How often each of the 4**6 words occurs, at most 255 times, (4096,) uint8; words with IUPAC codes are left out.

    >>> int(kmer_counts("ACGUACNA").sum())
    1
    """
    codes = CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    words = np.lib.stride_tricks.sliding_window_view(codes, K) if len(codes) >= K else codes[:0].reshape(0, K)
    words = words[(words < 4).all(axis=1)].astype(np.int64) @ (4 ** np.arange(K))
    return np.minimum(np.bincount(words, minlength=4**K), 255).astype(np.uint8)


def link(fact: RnaFact) -> str | None:
    """The page about this RNA, else about its family; None where its source has neither.

    >>> from types import SimpleNamespace
    >>> link(SimpleNamespace(rna_id="mirbase:MI0005722", family="MIR396"))
    'https://www.mirbase.org/hairpin/MI0005722'
    >>> link(SimpleNamespace(rna_id="rfam:RF00004:AF047722.1/3099-3243", family="RF00004"))
    'https://rfam.org/family/RF00004'
    """
    source, _, accession = fact.rna_id.partition(":")
    if source == "mirbase":
        return f"https://www.mirbase.org/{'mature' if accession.startswith('MIMAT') else 'hairpin'}/{quote(accession)}"
    if re.fullmatch(r"RF\d{5}", fact.family):
        return f"https://rfam.org/family/{fact.family}"
    return None
