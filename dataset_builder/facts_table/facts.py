"""The packaged table of real RNAs, their types and what is known of them.

>>> from dataset_builder.facts_table.facts import load_facts
>>> any(fact.rna_type == "tRNA" for fact in load_facts(split="test"))
True
"""

import csv
import gzip
import random
from collections import defaultdict
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

# The types a model is scored on: each has at least 26 test and 26 validation RNAs in many sequence clusters.
EVALUATION_TYPES: tuple[str, ...] = (
    "tRNA",
    "pre_miRNA",
    "miRNA",
    "5S_rRNA",
    "RNase_P_RNA",
    "snRNA",
    "riboswitch",
    "autocatalytically_spliced_intron",
)
SPLITS: tuple[str, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class RnaFact:
    """One RNA: sequence in A, C, G, U (15-1,024 nt) and the facts about it; an unknown fact is an empty string."""

    rna_id: str
    sequence: str
    rna_type: str
    species: str
    organism_group: str
    name: str
    family: str
    amino_acid: str
    anticodon: str
    compartment: str
    source: str
    licence: str
    cluster: int
    split: str

    @property
    def length(self) -> int:
        """Length in nt."""
        return len(self.sequence)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(RnaFact))


def load_facts(path: Path | None = None, split: str | None = None) -> list[RnaFact]:
    """The table's RNAs in file order, all or one split's.

    `path` defaults to the packaged table. Raises ValueError for an unknown split or for other columns than COLUMNS.

    >>> load_facts(split="dev")
    Traceback (most recent call last):
        ...
    ValueError: split is 'dev', expected one of train, validation, test or None
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)} or None")
    table = (
        resources.files("dataset_builder.facts_table") / "data" / "rna_facts.tsv.gz" if path is None else Path(path)
    )
    text = gzip.decompress(table.read_bytes()).decode("ascii")
    reader = csv.DictReader(text.splitlines(), delimiter="\t")
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"{table} has columns {reader.fieldnames}, expected {list(COLUMNS)}")
    facts = (RnaFact(**{**row, "cluster": int(row["cluster"])}) for row in reader)
    return [fact for fact in facts if split is None or fact.split == split]


def balanced_subset(facts: list[RnaFact], per_type: int, seed: int) -> list[RnaFact]:
    """`per_type` RNAs of each type among `facts` (fewer where a type has fewer), spread over clusters.

    Deterministic: the same facts and seed give the same list, whatever the order of `facts`. Every cluster gives one
    RNA before any gives a second.
    """
    by_type: dict[str, dict[int, list[RnaFact]]] = defaultdict(lambda: defaultdict(list))
    for fact in sorted(facts, key=lambda fact: fact.rna_id):
        by_type[fact.rna_type][fact.cluster].append(fact)
    chosen: list[RnaFact] = []
    for rna_type in sorted(by_type):
        rng = random.Random(f"{seed}:{rna_type}")
        clusters = list(by_type[rna_type].values())
        rng.shuffle(clusters)
        for members in clusters:
            rng.shuffle(members)
        rounds = max(map(len, clusters))
        ordered = [members[turn] for turn in range(rounds) for members in clusters if turn < len(members)]
        chosen += ordered[:per_type]
    return chosen


def scored_subset(split: str, per_type: int, seed: int) -> list[RnaFact]:
    """`per_type` RNAs of each of EVALUATION_TYPES from a split, chosen as `balanced_subset` does."""
    scored = [fact for fact in load_facts(split=split) if fact.rna_type in EVALUATION_TYPES]
    return balanced_subset(scored, per_type, seed)
