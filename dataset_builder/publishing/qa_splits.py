"""Splits of RNA-QA: disjoint by sequence id, by sequence cluster and by paper, settled before anything is annotated.

RNAs that share names and papers, or have a neighbour in sequence (`rnagpt_core.nearest`), stay together. Test and
validation take whole groups, in a shuffled order. A paper then belongs to one split: to test's when it is about a
test RNA, unless over `HUB` literature sets cite it (a table of 500 microRNAs, say), which stay with train. From an
RNA's literature the papers of other splits are taken out, so that no LLM call is spent on them; an RNA that loses
all of them is dropped. How many papers and RNAs that costs is counted.
"""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from dataset_builder.facts_table.facts import SPLITS
from dataset_builder.publishing.search_tools import clustered_pairs, found_across
from dataset_builder.storage.store import Store, pmid_order
from rnagpt_core.nearest import neighbour_pairs

EXHAUSTIVE = 1500  # distinct sequences up to which all pairs are compared by edit distance; above, MMseqs2 and vsearch
HUB = 10  # literature sets


def split_library(library: Store, share: float = 0.05, seed: int = 0, exhaustive: int = EXHAUSTIVE) -> None:
    """Write the split of every RNA, literature set and paper, and the units that are left to annotate.

    `share` of the groups' RNAs goes to test and as much to validation; with fewer than three groups all is train.
    """
    numbers, literatures, sequences = [], [], []
    for number, rna, literature, _ in library.rnas():
        numbers.append(number)
        literatures.append(literature)
        sequences.append(rna.sequence)
    distinct = {sequence: place for place, sequence in enumerate(dict.fromkeys(sequences))}
    few = len(distinct) <= exhaustive
    pairs = neighbour_pairs(list(distinct)) if few else clustered_pairs(list(distinct))
    groups = group(sequences, literatures, distinct, pairs)
    splits = sample_splits(groups, share, seed)
    # where all pairs were compared, a group's neighbours are all inside it
    splits, moved = (splits, 0) if few else until_no_neighbour_is_left(sequences, groups, splits)
    counts: Counter = Counter({"groups": len(set(groups)), "RNAs moved to train by the second search": moved})
    with library.writing():
        values = zip(splits, numbers, strict=True)
        library.db.executemany("UPDATE rna SET split = ? WHERE id = ?", values)
        one_paper_one_split(library, counts)
        make_units(library, counts)
        library.set_counts("splits", counts)


def group(sequences, literatures, distinct: dict[str, int], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """RNAs -> the group each belongs to: linked by a literature set, a sequence or a neighbouring sequence."""
    shift = len(distinct)
    places = {literature: shift + i for i, literature in enumerate(dict.fromkeys(literatures))}
    edges = [(distinct[s], places[text]) for s, text in zip(sequences, literatures, strict=True)]
    roots = components(shift + len(places), [*sorted(pairs), *edges])
    return [roots[distinct[sequence]] for sequence in sequences]


def components(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Connected components of a graph: the smallest member's index for each node.

    >>> components(5, [(0, 3), (3, 4)])
    [0, 1, 2, 0, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.array(list(edges), dtype=int).reshape(-1, 2).T
    _, labels = connected_components(coo_array((np.ones(len(one)), (one, other)), (size, size)), directed=False)
    return np.unique(labels, return_index=True)[1][labels].tolist()


def sample_splits(groups: list[int], share: float, seed: int) -> list[str]:
    """Whole groups, shuffled, to test and validation until each has its share; a group over half of that share, or
    over a tenth of all for a small set, is left in train."""
    sizes = Counter(groups)
    if len(sizes) < 3 or share <= 0:
        return ["train"] * len(groups)
    wanted = max(1, round(share * len(groups)))
    largest = max(2, wanted // 2, len(groups) // 10 if len(groups) < 200 else 0)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    chosen: dict[int, str] = {}
    for split in ("test", "validation"):
        have = 0
        for name in order:
            if have >= wanted:
                break
            if name not in chosen and sizes[name] <= largest:
                chosen[name] = split
                have += sizes[name]
    return [chosen.get(name, "train") for name in groups]


def until_no_neighbour_is_left(sequences, groups, splits) -> tuple[list[str], int]:
    """Search what is held out against train, and test against validation, and move every group with a hit to train,
    until none has one. -> (splits, RNAs moved)."""
    splits, moved = list(splits), 0
    while True:
        parts: dict[str, dict[int, str]] = {name: {} for name in SPLITS}
        for place, (sequence, split) in enumerate(zip(sequences, splits, strict=True)):
            parts[split][place] = sequence
        hits = found_across(parts["test"] | parts["validation"], parts["train"])
        hits |= found_across(parts["test"], parts["validation"])
        if not hits:
            return splits, moved
        back = {groups[place] for place in hits}
        for place, name in enumerate(groups):
            if name in back and splits[place] != "train":
                splits[place] = "train"
                moved += 1


def one_paper_one_split(library: Store, counts: Counter) -> None:
    """Give each literature set its RNAs' split, and each paper one of its literature sets'."""
    db = library.db
    db.execute("UPDATE literature SET split = (SELECT split FROM rna WHERE rna.literature = literature.id LIMIT 1)")
    db.execute("DROP TABLE IF EXISTS temp.claim")
    db.execute(
        "CREATE TEMP TABLE claim AS SELECT paper, count(*) AS sets, max(split = 'test') AS test, "
        "max(split = 'validation') AS validation, max(split = 'train') AS train FROM literature_paper "
        "JOIN literature ON literature.id = literature WHERE split IS NOT NULL GROUP BY paper"
    )
    db.execute("CREATE INDEX temp.claim_paper ON claim (paper)")
    db.execute(
        "UPDATE paper SET split = (SELECT CASE WHEN sets > ? AND train THEN 'train' WHEN test THEN 'test' "
        "WHEN validation THEN 'validation' ELSE 'train' END FROM claim WHERE claim.paper = paper.id)",
        (HUB,),
    )
    (shared,) = db.execute("SELECT count(*) FROM claim WHERE test + validation + train > 1").fetchone()
    counts["papers that RNAs of two splits share (kept in one)"] = shared


def make_units(library: Store, counts: Counter) -> None:
    """Units to annotate: the distinct (names, papers of the own split); every literature set points at its own."""
    db = library.db
    db.execute("DELETE FROM unit")
    db.execute("UPDATE literature SET unit = NULL")
    sets = db.execute("SELECT id, names, split FROM literature WHERE split IS NOT NULL ORDER BY id").fetchall()
    for number, names, split in sets:
        papers = db.execute(
            "SELECT paper.id, pmid FROM literature_paper JOIN paper ON paper.id = paper "
            "WHERE literature = ? AND split = ?",
            (number, split),
        ).fetchall()
        if not papers:
            (lost,) = db.execute("SELECT count(*) FROM rna WHERE literature = ?", (number,)).fetchone()
            counts["RNAs dropped: all papers belong to another split"] += lost
            continue
        papers.sort(key=lambda row: pmid_order(row[1]))
        pmids = [pmid for _, pmid in papers]
        key = unit_key(json.loads(names), pmids)
        db.execute(
            "INSERT OR IGNORE INTO unit (key, names, papers, split) VALUES (?, ?, ?, ?)",
            (key, names, json.dumps([place for place, _ in papers]), split),
        )
        db.execute("UPDATE literature SET unit = (SELECT id FROM unit WHERE key = ?) WHERE id = ?", (key, number))
    of_split: dict[str, int] = defaultdict(int)
    query = "SELECT rna.split, count(*) FROM rna JOIN literature ON literature.id = literature WHERE unit NOT NULL"
    of_split.update(db.execute(query + " GROUP BY rna.split").fetchall())
    counts.update({f"RNAs in {name}": of_split[name] for name in SPLITS})
    counts["literature sets"] = len(sets)
    counts["units to annotate"] = library.number_of("unit")


def unit_key(names: list[str], pmids: list[str]) -> str:
    """What makes two literature sets the same: the names searched by and the papers, in any order."""
    return hashlib.sha256(json.dumps([sorted(names), sorted(pmids)]).encode()).hexdigest()
