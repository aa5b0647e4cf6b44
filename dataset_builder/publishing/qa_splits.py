"""Splits of RNA-QA: disjoint by sequence id, by sequence cluster and by paper, settled before anything is annotated.

RNAs that share names and papers, or have a neighbour in sequence (`fact_splits.are_neighbours`), stay together. Test
and validation take whole groups, in a shuffled order. A paper then belongs to one split: to test's when it is about
a test RNA, unless over `HUB` literature sets cite it (a table of 500 microRNAs, say), which stay with train. From an
RNA's literature the papers of other splits are taken out, so that no LLM call is spent on them; an RNA that loses
all of them is dropped. How many papers and RNAs that costs is counted.
"""

import hashlib
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from dataset_builder.facts_table import fact_splits
from dataset_builder.storage.store import Library, pmid_order

EXHAUSTIVE = 1500  # distinct sequences up to which all pairs are compared by edit distance; above, MMseqs2 and vsearch
HUB = 10  # literature sets
KMER = 11  # of MMseqs2's index; its own choice for nucleotides, 15, fills 4^15 entries before the first sequence
MANY = 20_000  # RNAs above which vsearch searches only the queries that MMseqs2 does not see
SPLITS = ("train", "validation", "test")


def split_library(library: Library, share: float = 0.05, seed: int = 0, exhaustive: int = EXHAUSTIVE) -> None:
    """Write the split of every RNA, literature set and paper, and the units that are left to annotate.

    `share` of the groups' RNAs goes to test and as much to validation; with fewer than three groups all is train.
    """
    numbers, literatures, sequences = [], [], []
    for number, rna, literature, _ in library.rnas():
        numbers.append(number)
        literatures.append(literature)
        sequences.append(rna.sequence)
    distinct = {sequence: place for place, sequence in enumerate(dict.fromkeys(sequences))}
    pairs = neighbours(list(distinct), exhaustive)
    groups = group(sequences, literatures, distinct, pairs)
    splits = draw_splits(groups, share, seed)
    if len(distinct) > exhaustive:
        splits, moved = until_no_neighbour_is_left(sequences, groups, splits)
    else:
        moved = 0  # all pairs were compared: a group's neighbours are all inside it
    counts: Counter = Counter({"groups": len(set(groups)), "RNAs moved to train by the second search": moved})
    with library.writing():
        values = zip(splits, numbers, strict=True)
        library.db.executemany("UPDATE rna SET split = ? WHERE id = ?", values)
        one_paper_one_split(library, counts)
        make_units(library, counts)
        library.set_counts("splits", counts)


def neighbours(sequences: list[str], exhaustive: int = EXHAUSTIVE) -> set[tuple[int, int]]:
    """Pairs of indices of close sequences: every one among few; MMseqs2's and vsearch's clusters among many."""
    if len(sequences) <= exhaustive:
        return fact_splits.exhaustive_neighbours(sequences) if len(sequences) > 1 else set()
    return clustered_pairs(sequences)


def clustered_pairs(sequences: list[str]) -> set[tuple[int, int]]:
    """(representative, member) pairs of MMseqs2 clusters at 80% identity, and of vsearch's for RNAs of 30 nt or less,
    which MMseqs2 does not see."""
    pairs = set()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_fasta(work / "all.fa", enumerate(sequences))
        fact_splits._run(
            "mmseqs",
            "easy-cluster",
            work / "all.fa",
            work / "clusters",
            work / "tmp",
            "--min-seq-id",
            "0.8",
            "-c",
            "0.8",
            "--cov-mode",
            "1",
            "-k",
            KMER,
            "-v",
            "1",
        )
        for line in (work / "clusters_cluster.tsv").read_text().splitlines():
            one, other = map(int, line.split("\t"))
            pairs.add((min(one, other), max(one, other)))
        short = [i for i, text in enumerate(sequences) if len(text) <= fact_splits.SHORT]
        if len(short) > 1:
            write_fasta(work / "short.fa", ((i, sequences[i]) for i in short))
            fact_splits._run(
                "vsearch",
                "--cluster_fast",
                work / "short.fa",
                "--id",
                "0.8",
                "--query_cov",
                "0.8",
                "--strand",
                "plus",
                "--minseqlength",
                "10",
                "--wordlength",
                "6",
                "--qmask",
                "none",
                "--uc",
                work / "short.uc",
                "--quiet",
            )
            for line in (work / "short.uc").read_text().splitlines():
                fields = line.split("\t")
                if fields[0] == "H":
                    one, other = int(fields[8]), int(fields[9])
                    pairs.add((min(one, other), max(one, other)))
    return {pair for pair in pairs if pair[0] != pair[1]}


def found_across(held_out: dict[int, str], train: dict[int, str]) -> set[int]:
    """The held-out sequences that MMseqs2 or vsearch finds a neighbour of in train (identity and coverage 0.8)."""
    if not held_out or not train:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_fasta(work / "query.fa", held_out.items())
        write_fasta(work / "train.fa", train.items())
        short = {
            place: text for place, text in held_out.items() if len(train) <= MANY or len(text) <= fact_splits.SHORT
        }
        write_fasta(work / "short.fa", short.items())
        fact_splits._run(
            "mmseqs",
            "easy-search",
            work / "query.fa",
            work / "train.fa",
            work / "mmseqs.tsv",
            work / "tmp",
            "--search-type",
            "3",
            "--strand",
            "1",
            "--min-seq-id",
            "0.8",
            "-c",
            "0.8",
            "--cov-mode",
            "2",
            "-s",
            "7.5",
            "-k",
            "7" if len(train) <= MANY else KMER,
            "--spaced-kmer-mode",
            "0",
            "-e",
            "10",
            "-v",
            "1",
            "--format-output",
            "query,target",
        )
        if not short:
            return {int(line.split("\t")[0]) for line in (work / "mmseqs.tsv").read_text().splitlines()}
        fact_splits._run(
            "vsearch",
            "--usearch_global",
            work / "short.fa",
            "--db",
            work / "train.fa",
            "--id",
            "0.8",
            "--query_cov",
            "0.8",
            "--strand",
            "plus",
            "--minseqlength",
            "10",
            "--wordlength",
            "6",
            "--qmask",
            "none",
            "--dbmask",
            "none",
            "--userout",
            work / "vsearch.tsv",
            "--userfields",
            "query+target",
            "--quiet",
        )
        lines = (work / "mmseqs.tsv").read_text().splitlines() + (work / "vsearch.tsv").read_text().splitlines()
    return {int(line.split("\t")[0]) for line in lines}


def write_fasta(path: Path, sequences: Iterable[tuple[int, str]]) -> None:
    with open(path, "w") as handle:
        handle.writelines(f">{number}\n{text.replace('U', 'T')}\n" for number, text in sequences)


def group(sequences, literatures, distinct: dict[str, int], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """RNAs -> the group each belongs to: linked by a literature set, a sequence or a neighbouring sequence."""
    shift = len(distinct)
    places = {literature: shift + i for i, literature in enumerate(dict.fromkeys(literatures))}
    edges = [(distinct[s], places[text]) for s, text in zip(sequences, literatures, strict=True)]
    roots = fact_splits.components(shift + len(places), [*sorted(pairs), *edges])
    return [roots[distinct[sequence]] for sequence in sequences]


def draw_splits(groups: list[int], share: float, seed: int) -> list[str]:
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


def one_paper_one_split(library: Library, counts: Counter) -> None:
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


def make_units(library: Library, counts: Counter) -> None:
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
