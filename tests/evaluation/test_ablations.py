"""What benchmarks/ablations.py compares: cells that differ in one thing, and coverage on papers made for it."""

from dataclasses import asdict
from pathlib import Path

from benchmarks.ablations import CELLS, chosen, coverage, groupings, read, recipes_of, terms
from dataset_builder.storage.records import Paper


def differing(one: dict, other: dict, before: str = "") -> set[str]:
    found = set()
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differing(a, b, f"{before}{key}.")
        elif a != b:
            found.add(before + key)
    return found


def test_each_cell_changes_one_thing():
    base = [asdict(recipe) for recipe in recipes_of("base", Path("runs"), 80)]
    assert [recipe["data"]["samples"] for recipe in base] == [10, 80]
    changed = {
        cell: [
            differing(base[-len(recipes) + n], asdict(recipe)) - {"output", "start_from"}
            for n, recipe in enumerate(recipes)
        ]
        for cell in CELLS
        for recipes in [recipes_of(cell, Path("runs"), 80)]
    }
    assert changed == {
        "base": [set(), set()],
        "no_stage1": [set()],
        "random_encoder": [{"model.encoder"}] * 2,
        "per_nucleotide": [{"model.rna_pool_size"}] * 2,
        "mlp_projector": [{"model.projector_hidden_size"}] * 2,
    }
    assert recipes_of("no_stage1", Path("runs"), 80)[0].start_from is None


def test_terms_are_names():
    assert terms("MiR-21 targets PDCD4 in HeLa cells of 42 patients.") == {"mir-21", "pdcd4", "hela"}


def papers_on(theme: str, gene: str, first: int) -> list[Paper]:
    return [
        Paper(str(first + n), f"{theme} study", f"In {theme} the protein {gene} is inhibited. {theme} grows.")
        for n in range(12)
    ]


def test_groups_hold_every_paper_once_and_as_many_as_topics():
    papers = papers_on("glioma apoptosis", "PDCD4", 100) + papers_on("cardiac fibrosis", "SMAD7", 200)
    found = groupings(papers, ["miR-21"])
    assert len({len(groups) for groups in found.values()}) == 1
    for groups in found.values():
        assert sorted(paper.pmid for group in groups for paper in group) == sorted(paper.pmid for paper in papers)


def test_coverage_counts_the_key_terms_that_are_seen():
    papers = papers_on("glioma apoptosis", "PDCD4", 100) + papers_on("cardiac fibrosis", "SMAD7", 200)
    assert coverage(papers, ["miR-21"], words=1000)["read, lda"] == 1
    assert coverage(papers, ["miR-21"], words=1)["read, chunks"] == 0
    assert coverage(papers, ["PDCD4"], words=1000)["terms"] == 1  # the RNA's own name is no finding
    assert read(papers[:1], 3) == "glioma apoptosis study"
    assert len(chosen(papers[:12], 9).split()) <= 9
