"""Choose, cluster and split RNAs so that no test or validation RNA has a close neighbour in train.

Two RNAs are neighbours when the shorter aligns inside the longer (edit distance, ends of the longer free) with
identity = 1 - distance / length of the shorter, of at least 0.8, or 0.9 when a sequence of <= 30 nt lies in a longer
RNA, where 0.8 comes by chance (4 edits in 22 nt). This is symmetric, and stricter than asking for 80% coverage of the
query. MMseqs2 and vsearch add the neighbours that only a local alignment shows; miRBase families are kept whole.
A cluster is a connected component of that graph, and a split takes whole clusters.
"""

import random
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from multiprocessing import Pool
from pathlib import Path

IDENTITY = 0.8
SHORT = 30  # nt: mature microRNAs
SHORT_INSIDE = 0.9  # identity asked of a short RNA inside a longer one


def largest_distance(shorter: int, longer: int) -> int:
    """Most edits that still make neighbours of two RNAs of these lengths (nt).

    >>> largest_distance(100, 120), largest_distance(22, 24), largest_distance(22, 90)
    (20, 4, 2)
    """
    threshold = SHORT_INSIDE if shorter <= SHORT < longer else IDENTITY
    return int(shorter * (1 - threshold) + 1e-9)


def are_neighbours(one: str, other: str) -> bool:
    """True when two sequences are too close to stand on both sides of a split.

    >>> are_neighbours("ACGUACGUAC", "ACGUACGUCC"), are_neighbours("ACGUACGUAC", "GGGGGGGGGG")
    (True, False)
    """
    return bool(_neighbours_of_stripe((sorted((one, other), key=len), 0, 1)))


def _neighbours_of_stripe(work: tuple[list[str], int, int]) -> list[tuple[int, int]]:
    import edlib

    sequences, stripe, stripes = work
    found = []

    def within(inner: str, outer: str, limit: int) -> bool:
        return edlib.align(inner, outer, mode="HW", task="distance", k=limit)["editDistance"] >= 0

    for i in range(stripe, len(sequences), stripes):
        longer, size = sequences[i], len(sequences[i])
        for j in range(i):  # sorted by length: j is never longer than i
            shorter = sequences[j]
            limit = largest_distance(len(shorter), size)
            if within(shorter, longer, limit) or (len(shorter) == size and within(longer, shorter, limit)):
                found.append((j, i))
    return found


def exhaustive_neighbours(sequences: list[str], processes: int = 2) -> set[tuple[int, int]]:
    """Every pair of neighbours by edit distance, as index pairs (smaller, larger); all pairs are compared."""
    order = sorted(range(len(sequences)), key=lambda index: (len(sequences[index]), index))
    ordered = [sequences[index] for index in order]
    stripes = processes * 8
    with Pool(processes) as pool:
        parts = pool.map(_neighbours_of_stripe, [(ordered, stripe, stripes) for stripe in range(stripes)], chunksize=1)
    return {tuple(sorted((order[one], order[other]))) for part in parts for one, other in part}


def searched_neighbours(sequences: list[str], threads: int = 2) -> dict[str, set[tuple[int, int]]]:
    """Neighbours that MMseqs2 and vsearch report (identity and query coverage >= 0.8), all against all."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        fasta = work / "all.fa"
        fasta.write_text("".join(f">{i}\n{text.replace('U', 'T')}\n" for i, text in enumerate(sequences)))
        _run(
            "mmseqs",
            "easy-search",
            fasta,
            fasta,
            work / "mmseqs.tsv",
            work / "tmp",
            "--search-type",
            "3",
            "--strand",
            "1",
            "--min-seq-id",
            IDENTITY,
            "-c",
            "0.8",
            "--cov-mode",
            "2",
            "--max-seqs",
            "3000",
            "-s",
            "7.5",
            "--spaced-kmer-mode",
            "0",
            "-k",
            "7",
            "-e",
            "10",
            "--threads",
            threads,
            "-v",
            "1",
            "--format-output",
            "query,target",
        )
        _run(
            "vsearch",
            "--usearch_global",
            fasta,
            "--db",
            fasta,
            "--id",
            IDENTITY,
            "--query_cov",
            "0.8",
            "--strand",
            "plus",
            "--maxaccepts",
            "0",
            "--maxrejects",
            "256",
            "--minseqlength",
            "10",
            "--wordlength",
            "6",
            "--qmask",
            "none",
            "--dbmask",
            "none",
            "--threads",
            threads,
            "--userout",
            work / "vsearch.tsv",
            "--userfields",
            "query+target",
            "--self",
            "--quiet",
        )
        found = {}
        for tool in ("mmseqs", "vsearch"):
            pairs = (line.split("\t") for line in (work / f"{tool}.tsv").read_text().splitlines())
            found[tool] = {tuple(sorted((int(q), int(t)))) for q, t in pairs if q != t}
    return found


def _run(*command: object) -> None:
    try:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed; install the Debian packages mmseqs2 and vsearch.") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{command[0]} failed with code {error.returncode}: {error.stderr[-500:]}") from None


def components(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Connected components of a graph: the smallest member's index for each node.

    >>> components(5, [(0, 3), (3, 4)])
    [0, 1, 2, 0, 0]
    """
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in edges:
        one, other = sorted((root(one), root(other)))
        parent[other] = one
    return [root(node) for node in range(size)]


def spread(rows: list[dict], count: int, keys: tuple[str, ...], seed: int) -> list[dict]:
    """`count` rows, greedily the one whose values of `keys` were taken least often so far (ties: shuffled order)."""
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    by_first: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_first[row[keys[0]]].append(row)
    taken: list[dict] = []
    used: Counter = Counter()
    while len(taken) < count and by_first:
        for value in sorted(by_first, key=lambda value: (used[keys[0], value], str(value))):
            pool = by_first[value]
            best = min(range(len(pool)), key=lambda i: sum(used[key, pool[i][key]] for key in keys[1:]))
            row = pool.pop(best)
            if not pool:
                del by_first[value]
            used.update((key, row[key]) for key in keys)
            taken.append(row)
            if len(taken) == count:
                break
    return taken


def assign_splits(rows: list[dict], targets: Callable[[str, int], int], seed: int) -> None:
    """Write each row's split; `targets(rna_type, members)` says how many RNAs of a type test and validation want.

    Small clusters go out first, in a shuffled order; one that would overshoot a split's target for any type it holds
    is passed over as long as others are left, and one with over a quarter of a type's RNAs stays in train, as does
    everything left.
    """
    clusters: dict[int, list[dict]] = defaultdict(list)
    for row in rows:
        clusters[row["cluster"]].append(row)
        row["split"] = "train"
    sizes = Counter(row["rna_type"] for row in rows)
    wanted = {rna_type: targets(rna_type, size) for rna_type, size in sizes.items()}
    held = {cluster: Counter(row["rna_type"] for row in members) for cluster, members in clusters.items()}
    order = sorted(clusters)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda cluster: len(clusters[cluster]) > 6)  # stable: the small ones first, still shuffled
    have: Counter = Counter()
    for rna_type in sorted(sizes, key=lambda name: (sizes[name], name)):  # the scarce types choose first
        mine = [cluster for cluster in order if held[cluster][rna_type]]
        for divisor in (10, 3, 1):
            for cluster in mine:
                split = min(("test", "validation"), key=lambda name: (have[rna_type, name], name))
                if have[rna_type, split] >= wanted[rna_type]:
                    break
                fits = all(
                    have[kind, split] + count <= wanted[kind] + max(2, wanted[kind] // divisor)
                    and count <= sizes[kind] // 4
                    for kind, count in held[cluster].items()
                )
                if not fits or clusters[cluster][0]["split"] != "train":
                    continue
                for row in clusters[cluster]:
                    row["split"] = split
                    have[row["rna_type"], split] += 1


def leaks(rows: list[dict], pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The neighbour pairs that stand on two sides of a split."""
    return [(one, other) for one, other in pairs if rows[one]["split"] != rows[other]["split"]]


def family_edges(rows: list[dict]) -> list[tuple[int, int]]:
    """Edges that keep the microRNAs and hairpins of one miRBase family together."""
    families: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row["source"] == "miRBase":
            families[row["family"]].append(index)
    return [pair for members in families.values() for pair in zip(members, members[1:], strict=False)]
