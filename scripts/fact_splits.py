"""Choose, cluster and split the RNAs of the table so that no test or validation RNA has a close neighbour in train.

Close is what `rnagpt_core.nearest` says; MMseqs2 and vsearch add the neighbours that only a local alignment shows;
miRBase families are kept whole. A cluster is a connected component of that graph, and a split takes whole clusters.
"""

import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from dataset_builder.publishing.search_tools import MMSEQS, VSEARCH, read_pairs, run, write_fasta


def searched_neighbours(sequences: list[str], threads: int = 2) -> dict[str, set[tuple[int, int]]]:
    """Neighbours that MMseqs2 and vsearch report (identity and query coverage >= 0.8), all against all."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_fasta(work / "all.fa", enumerate(sequences))
        more = f"-k 7 --max-seqs 3000 --threads {threads}"
        run(work, f"mmseqs easy-search all.fa all.fa mmseqs.tsv tmp {MMSEQS} {more}")
        where = "all.fa --db all.fa --self --dbmask none --userout vsearch.tsv --userfields query+target"
        more = f"--maxaccepts 0 --maxrejects 256 --threads {threads}"
        run(work, f"vsearch --usearch_global {where} {VSEARCH} {more}")
        return {
            tool: {(min(pair), max(pair)) for pair in read_pairs(work / f"{tool}.tsv") if pair[0] != pair[1]}
            for tool in ("mmseqs", "vsearch")
        }


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
