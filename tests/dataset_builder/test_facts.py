"""The packaged table of RNAs: what it holds, that each row is well formed, and that subsets are balanced.

pytest tests/dataset_builder/test_facts.py
"""

import gzip
from collections import Counter
from importlib import resources

import pytest

from dataset_builder.facts_table.fact_answers import GROUPS, TYPE_NAMES
from dataset_builder.facts_table.facts import (
    COLUMNS,
    EVALUATION_TYPES,
    SPLITS,
    balanced_subset,
    load_facts,
    scored_subset,
)
from dataset_builder.publishing.qa_splits import components
from scripts.fact_sources import LICENCES, candidates, mirbase_group, mirna_family, read_stockholm
from scripts.fact_splits import assign_splits, spread


@pytest.fixture(scope="module")
def facts():
    return load_facts()


def test_table_is_large_diverse_and_small_on_disk(facts):
    assert len(facts) == len({fact.sequence for fact in facts}) == len({fact.rna_id for fact in facts})
    assert 7000 <= len(facts) <= 11000
    species = {fact.species for fact in facts if fact.species}
    assert len(species) >= 200
    assert all(" " in name for name in species)
    table = resources.files("dataset_builder.facts_table") / "data" / "rna_facts.tsv.gz"
    assert len(table.read_bytes()) < 1_500_000


def test_every_row_is_well_formed(facts):
    for fact in facts:
        assert set(fact.sequence) <= set("ACGU") and 15 <= fact.length == len(fact.sequence) <= 1024
        assert fact.rna_type in TYPE_NAMES and fact.split in SPLITS
        assert LICENCES[fact.source] == fact.licence
        assert fact.organism_group in ("", *GROUPS)
        if fact.rna_type != "tRNA":
            assert fact.amino_acid == fact.anticodon == fact.compartment == ""
        assert len(fact.anticodon) in (0, 3) and set(fact.anticodon) <= set("ACGU")


def test_known_rnas_have_their_known_facts(facts):
    by_id = {fact.rna_id: fact for fact in facts}
    human = by_id["organellar:mtdbD00000534"]
    assert (human.species, human.amino_acid, human.anticodon) == ("Homo sapiens", "Ala", "UGC")
    assert (human.compartment, human.organism_group) == ("mitochondrial", "animal")
    assert Counter(fact.organism_group for fact in facts if fact.rna_type == "RNase_P_RNA") == {"bacterium": 301}
    yeast = [fact for fact in facts if fact.species == "Saccharomyces cerevisiae" and fact.amino_acid == "Phe"]
    assert {fact.organism_group for fact in yeast} == {"fungus"}  # the input gives yeast a human taxid


def test_anticodons_are_inside_their_trnas(facts):
    with_anticodon = [fact for fact in facts if fact.anticodon]
    inside = sum(fact.anticodon in fact.sequence[20:60] for fact in with_anticodon)
    assert len(with_anticodon) > 1500
    assert inside / len(with_anticodon) > 0.97


def test_evaluation_types_have_enough_rnas_in_each_split(facts):
    assert len(EVALUATION_TYPES) == len(set(EVALUATION_TYPES)) == 8
    for split, least in (("train", 40), ("validation", 26), ("test", 26)):
        counts = Counter(fact.rna_type for fact in facts if fact.split == split)
        assert all(counts[rna_type] >= least for rna_type in EVALUATION_TYPES), (split, counts)
    for rna_type in EVALUATION_TYPES:
        clusters = {fact.cluster for fact in facts if fact.rna_type == rna_type and fact.split == "test"}
        assert len(clusters) >= 5, rna_type


def test_split_argument_selects_and_refuses(facts):
    assert sum(len(load_facts(split=split)) for split in SPLITS) == len(facts)
    assert {fact.split for fact in load_facts(split="validation")} == {"validation"}
    with pytest.raises(ValueError, match="expected one of train, validation, test"):
        load_facts(split="dev")


def test_load_facts_reads_a_path_and_names_wrong_columns(tmp_path, facts):
    good, bad = tmp_path / "good.tsv.gz", tmp_path / "bad.tsv.gz"
    row = [str(getattr(facts[0], column)) for column in COLUMNS]
    good.write_bytes(gzip.compress("\n".join(("\t".join(COLUMNS), "\t".join(row))).encode()))
    bad.write_bytes(gzip.compress(b"rna_id\tsequence\nx\tACGU\n"))
    assert load_facts(good) == facts[:1]
    with pytest.raises(ValueError, match="has columns"):
        load_facts(bad)


def test_balanced_subset_is_balanced_deterministic_and_spread(facts):
    test = [fact for fact in facts if fact.split == "test" and fact.rna_type in EVALUATION_TYPES]
    chosen = balanced_subset(test, per_type=26, seed=1)
    assert Counter(fact.rna_type for fact in chosen) == dict.fromkeys(EVALUATION_TYPES, 26)
    assert chosen == balanced_subset(test[::-1], per_type=26, seed=1)
    assert chosen != balanced_subset(test, per_type=26, seed=2)
    mature = [fact.cluster for fact in chosen if fact.rna_type == "miRNA"]
    assert len(set(mature)) == 26  # more clusters than asked for: none is used twice
    assert len(balanced_subset(test, per_type=10**6, seed=1)) == len(test)


def test_scored_subset_holds_the_scored_types_of_one_split_alike():
    chosen = scored_subset("validation", 5, seed=0)
    assert Counter(fact.rna_type for fact in chosen) == dict.fromkeys(EVALUATION_TYPES, 5)
    assert {fact.split for fact in chosen} == {"validation"}


def test_components_and_spread_on_a_toy():
    assert components(6, [(0, 1), (4, 1), (2, 5)]) == [0, 0, 2, 3, 0, 2]
    rows = [{"family": "a", "species": str(i % 2)} for i in range(8)] + [{"family": "b", "species": "2"}]
    chosen = spread(rows, 3, ("family", "species"), seed=0)
    assert Counter(row["family"] for row in chosen) == {"a": 2, "b": 1}
    assert {row["species"] for row in chosen if row["family"] == "a"} == {"0", "1"}


def test_assign_splits_takes_whole_clusters_and_leaves_the_large_one_in_train():
    rows = [{"rna_type": "x", "cluster": 0} for _ in range(20)]
    rows += [{"rna_type": "x", "cluster": 1 + i // 2} for i in range(20)]
    assign_splits(rows, lambda rna_type, members: 4, seed=0)
    assert Counter(row["split"] for row in rows) == {"train": 32, "test": 4, "validation": 4}
    assert {row["split"] for row in rows if row["cluster"] == 0} == {"train"}
    assert len({(row["cluster"], row["split"]) for row in rows}) == 11


def test_parsers_on_small_files(tmp_path):
    path = tmp_path / "toy.sto"
    path.write_text("# STOCKHOLM 1.0\n#=GF ID U6\na/1-4 AC-\nb .gt\n#=GC SS_cons ...\na/1-4 GT\nb ~N.\n//\n")
    assert list(read_stockholm(path)) == [("U6", {"a/1-4": "ACGU", "b": "GUN"})]
    assert mirbase_group("Zea mays") == "plant" and mirbase_group("JC polyomavirus") == "virus"
    assert mirna_family("hsa-mir-10a-1", "animal") == mirna_family("mmu-miR-10b-3p", "animal") == "mir-10"
    assert mirna_family("ath-MIR10a", "plant") != "mir-10"
    with pytest.raises(KeyError):
        candidates({})
