"""Sequences that are close to one another: the one search that splits, evaluation and the known RNAs share.

    Index(["GCGGAUUUAGC...", ...]).nearest("GCGGAUUUACC...") -> [Match(row=0, identity=0.97, start=0, end=76), ...]

Identity is 1 - edit distance / length of the shorter RNA, aligned inside the longer (ends of the longer free, the same
strand). Two RNAs are neighbours at an identity of at least 0.8, or 0.9 when a sequence of <= 30 nt lies in a longer
RNA, where 0.8 comes by chance (4 edits in 22 nt). This is symmetric, and stricter than 80% coverage of the query.
"""

from collections.abc import Iterator, Sequence
from multiprocessing import Pool
from typing import NamedTuple

import numpy as np

IDENTITY = 0.8
SHORT = 30  # nt: mature microRNAs
SHORT_INSIDE = 0.9  # identity asked of a short RNA inside a longer one
K = 6
CANDIDATES = 60  # aligned, of those of a block that share most 6-mers
PIECE, OVERLAP = 1000, 500  # nt of a long RNA that are looked up at a time: a genome has every 6-mer
BLOCK = 50_000  # RNAs indexed at a time
CODES = np.full(256, 255, dtype=np.uint8)
CODES[[ord(letter) for letter in "ACGU"]] = range(4)


def largest_distance(shorter: int, longer: int) -> int:
    """Most edits that still make neighbours of two RNAs of these lengths (nt).

    >>> largest_distance(100, 120), largest_distance(22, 24), largest_distance(22, 90)
    (20, 4, 2)
    """
    threshold = SHORT_INSIDE if shorter <= SHORT < longer else IDENTITY
    return int(shorter * (1 - threshold) + 1e-9)


def edits(one: str, other: str, limit: int) -> int:
    """Edit distance of the shorter RNA inside the longer, of two of one length the smaller of both ways; -1 above
    `limit`, which is faster."""
    import edlib

    shorter, longer = (one, other) if len(one) <= len(other) else (other, one)
    found = edlib.align(shorter, longer, mode="HW", task="distance", k=limit)["editDistance"]
    if len(shorter) == len(longer) and found != 0:
        other_way = edlib.align(longer, shorter, mode="HW", task="distance", k=limit)["editDistance"]
        return min((distance for distance in (found, other_way) if distance >= 0), default=-1)
    return found


def identity(one: str, other: str, least: float = 0.0) -> float:
    """Share of the shorter RNA that aligns inside the longer; 0 where it is below `least`, which is faster.

    >>> identity("ACGUACGU", "GGACGUACGUGG"), identity("AAAA", "AACA")
    (1.0, 0.75)
    """
    size = min(len(one), len(other))
    distance = edits(one, other, int(size * (1 - least) + 1e-9)) if size else -1
    return 0.0 if distance < 0 else 1 - distance / size


def are_neighbours(one: str, other: str) -> bool:
    """True when two sequences are too close to stand on both sides of a split.

    >>> are_neighbours("ACGUACGUAC", "ACGUACGUCC"), are_neighbours("ACGUACGUAC", "GGGGGGGGGG")
    (True, False)
    """
    return edits(one, other, largest_distance(*sorted(map(len, (one, other))))) >= 0


def neighbour_pairs(sequences: Sequence[str], processes: int = 2) -> set[tuple[int, int]]:
    """Every pair of neighbours, as index pairs (smaller, larger); all pairs are compared."""
    stripes = [(sequences, stripe, processes * 8) for stripe in range(processes * 8)]
    with Pool(processes) as pool:
        return {pair for pairs in pool.map(_pairs_of_stripe, stripes, chunksize=1) for pair in pairs}


def _pairs_of_stripe(work: tuple[Sequence[str], int, int]) -> list[tuple[int, int]]:
    sequences, stripe, stripes = work
    rows = range(stripe, len(sequences), stripes)
    return [(i, j) for j in rows for i in range(j) if are_neighbours(sequences[i], sequences[j])]


class Match(NamedTuple):
    """The sequence of a row of the index, its identity, and the part of the query that it was aligned with (nt)."""

    row: int
    identity: float
    start: int
    end: int


class Index:
    """Sequences (A, C, G, U, IUPAC codes) in blocks that know their 6-mers: 12 s for 100,000 RNAs to make."""

    def __init__(self, sequences: Sequence[str]):
        from tqdm import tqdm

        self.sequences = sequences
        many = len(sequences) > 2 * BLOCK
        firsts = tqdm(range(0, len(sequences), BLOCK), "indexing known RNAs", unit="block", disable=not many)
        self.blocks = [(first, Block(sequences[first : first + BLOCK])) for first in firsts]

    def nearest(self, sequence: str, most: int | None = None) -> list[Match]:
        """The neighbours of a sequence, closest first, among equals the one of the closest length: it matches as a
        whole. A long query is looked up piece by piece: 1.2 s for 100,000 nt among 8,000 RNAs, 5 s among 100,000.

        most: of them; None: all.
        """
        if len(sequence) < K:
            return []
        found: dict[int, Match] = {}
        for row, start, end in self._candidates(sequence):
            known = self.sequences[row]
            # what is aligned at this piece lies within twice its length from it
            left = max(0, start - 2 * len(known))
            match = self._aligned(row, known, sequence[left : end + 2 * len(known)], left, len(sequence))
            if match is not None and (row not in found or match.identity > found[row].identity):
                found[row] = match
        length = len(sequence)
        ranked = sorted(found.values(), key=lambda one: (-one.identity, abs(len(self.sequences[one.row]) - length)))
        return ranked[:most]

    def _candidates(self, sequence: str) -> Iterator[tuple[int, int, int]]:
        """(row worth an alignment, start and end of the piece of the query that it shares 6-mers with)."""
        for start in range(0, max(len(sequence) - OVERLAP, 1), PIECE - OVERLAP):
            end = min(start + PIECE, len(sequence))
            for first, block in self.blocks:
                yield from ((first + place, start, end) for place in block.candidates(sequence[start:end]))

    def _aligned(self, row: int, known: str, around: str, left: int, length: int) -> Match | None:
        """The match of a row with a part of a query of `length` nt that begins at `left`; None above the distance."""
        import edlib

        size = min(len(around), len(known))
        distance = edits(around, known, largest_distance(size, max(length, len(known))))
        if distance < 0:
            return None
        start, end = 0, len(around)
        if len(known) < len(around):
            (start, last), *_ = edlib.align(known, around, mode="HW", task="locations", k=distance)["locations"]
            end = last + 1
        return Match(row, 1 - distance / size, left + start, left + end)


class Block:
    """Some sequences, and for each 6-mer which of them have it and how often: at most 5 bytes a nucleotide."""

    def __init__(self, sequences: Sequence[str]):
        self.lengths = np.array(list(map(len, sequences)))
        found = list(map(kmers, sequences))
        words, counts = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(words, kind="stable")
        self.holders = np.repeat(np.arange(len(found), dtype=np.int32), [len(one) for one, _ in found])[order]
        self.counts = counts[order]
        self.starts = np.searchsorted(words[order], np.arange(4**K + 1))

    def shared(self, sequence: str) -> np.ndarray:
        """How many 6-mers each sequence shares with the query, (sequences,) int64."""
        total = np.zeros(len(self.lengths), dtype=np.int64)
        for word, count in zip(*kmers(sequence), strict=True):
            place = slice(self.starts[word], self.starts[int(word) + 1])
            total[self.holders[place]] += np.minimum(self.counts[place], count)  # a holder stands there once
        return total

    def candidates(self, sequence: str) -> list[int]:
        """Those worth an alignment; the whole block is not: 80% identity leaves a quarter of the 6-mers as they
        are."""
        possible = np.maximum(np.minimum(self.lengths, len(sequence)) - K + 1, 1)
        shared = self.shared(sequence)
        return [int(place) for place in np.argsort(-shared / possible, kind="stable")[:CANDIDATES] if shared[place]]


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
