"""Topics of an RNA's papers, and splits that share no sequence, no neighbour and no paper.

pytest tests/dataset_builder/test_dataset_topics_and_splits.py
"""

import random
import shutil
from collections import Counter, defaultdict

import pytest
from synthetic_literature import literature, write_folder

from dataset_builder.literature.topics import sample_papers, tokens, topic_groups
from dataset_builder.publishing.qa_splits import split_library
from dataset_builder.sources.local_source import collect
from dataset_builder.storage.records import Paper
from dataset_builder.storage.store import Store
from rnagpt_core.nearest import are_neighbours

THEMES = {
    "heart": "cardiac hypertrophy myocardial infarction cardiomyocyte fibrosis ventricular ischemia".split(),
    "cancer": "tumor metastasis invasion proliferation carcinoma apoptosis chemotherapy".split(),
    "plant": "drought leaf chlorophyll seedling arabidopsis root photosynthesis".split(),
}


def themed_papers(each: int) -> tuple[list[Paper], dict[str, str]]:
    """Papers drawn from disjoint vocabularies, and the true theme of each PMID."""
    draw, papers, theme_of = random.Random(0), [], {}
    for theme, words in THEMES.items():
        for _ in range(each):
            pmid = str(len(papers) + 1)
            text = " ".join(draw.choices(words, k=60))
            papers.append(Paper(pmid, "miR-21 in disease", f"miR-21 {text}.", year=2000 + len(papers)))
            theme_of[pmid] = theme
    return papers, theme_of


def test_biomedical_names_stay_whole():
    assert tokens("miR-21-5p, hsa-let-7a and 3'-UTR of IL-1β; 42 of 97") == [
        "mir-21-5p",
        "hsa-let-7a",
        "3'-utr",
        "il-1β",
    ]


@pytest.mark.parametrize("papers", [1, 3, 8])
def test_few_papers_make_one_topic(papers):
    (topic,) = topic_groups(themed_papers(3)[0][:papers])
    assert len(topic.pmids) == papers and topic.words == ()


@pytest.mark.parametrize("topics", ["rule", "coherence", 3])
def test_topics_follow_the_themes(topics):
    papers, theme_of = themed_papers(15)
    groups = topic_groups(papers, names=["miR-21"], topics=topics)
    assert sorted(pmid for group in groups for pmid in group.pmids) == sorted(theme_of)
    majority = sum(Counter(theme_of[pmid] for pmid in group.pmids).most_common(1)[0][1] for group in groups)
    assert majority / len(papers) > 0.9
    assert all("mir-21" not in group.words for group in groups)
    assert all(len(group.pmids) > 1 for group in groups)


def test_the_order_of_papers_does_not_matter_and_the_seed_settles_all():
    papers, _ = themed_papers(10)
    first = topic_groups(papers, seed=3)
    random.Random(1).shuffle(papers)
    assert topic_groups(papers, seed=3) == first


def test_the_cap_takes_papers_on_the_rna_and_records_its_rule():
    papers, _ = themed_papers(10)
    papers[29] = Paper("30", "A review", "Nothing on it.", year=2030)
    taken, rule = sample_papers(papers, ["miR-21"], 12)
    assert len(taken) == 12 and rule.startswith("12 of 30: papers with a name of the RNA in the title first")
    assert [paper.pmid for paper in taken] == [str(n) for n in range(18, 30)]  # named in the title, the newest
    assert sample_papers(papers, ["miR-21"], 30) == (papers, "")


# --- splits


def library_of(folder, rnas, papers) -> Store:
    write_folder(folder, rnas, papers)
    library = Store(folder / "library.sqlite")
    collect(folder, library)
    return library


def shared_papers(rnas, papers, every=3):
    """Let each third RNA cite a paper of the RNA three before it."""
    for number in range(every, len(rnas), every):
        rnas[number] = {**rnas[number], "pmids": [*rnas[number]["pmids"], rnas[number - every]["pmids"][0]]}
    return rnas, papers


def mutated(sequence: str, edits: int, draw: random.Random) -> str:
    letters = list(sequence)
    for place in draw.sample(range(len(letters)), edits):
        letters[place] = draw.choice("ACGU".replace(letters[place], ""))
    return "".join(letters)


def with_relatives(rnas):
    """Each tenth RNA gets a relative: a mutated copy with names of its own and another RNA's papers."""
    draw = random.Random(5)
    more = []
    for number, row in enumerate(rnas[::10]):
        copy = {**row, "rna_id": f"copy{number}", "aliases": [f"copy-{number}"], "md5": None}
        more.append({**copy, "sequence": mutated(row["sequence"], 5, draw), "pmids": rnas[number * 10 + 1]["pmids"]})
    return rnas + more


@pytest.mark.parametrize(
    "tools", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["all pairs", "mmseqs and vsearch"]
)
def test_splits_share_nothing(tmp_path, tools):
    if tools and not (shutil.which("mmseqs") and shutil.which("vsearch")):
        pytest.skip("mmseqs2 or vsearch is not installed")
    rnas, papers = shared_papers(*literature(120))
    library = library_of(tmp_path, with_relatives(rnas), papers)
    split_library(library, share=0.15, seed=1, exhaustive=0 if tools else 10_000)

    by_split, urs, used = defaultdict(list), defaultdict(set), defaultdict(set)
    for _, rna, number, split in library.rnas():
        by_split[split].append(rna.sequence)
        urs[rna.urs].add(split)
        unit = library.db.execute(
            "SELECT papers, unit.split FROM unit JOIN literature ON unit = unit.id WHERE literature.id = ?", (number,)
        ).fetchone()
        if unit:
            assert unit[1] == split
            for place in unit[0].strip("[]").split(", "):
                used[place].add(split)
    assert all(len(by_split[name]) >= 10 for name in ("train", "validation", "test"))
    assert all(len(found) == 1 for found in urs.values())
    assert all(len(found) == 1 for found in used.values())
    for one, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        close = [(a, b) for a in by_split[one] for b in by_split[other] if are_neighbours(a, b)]
        assert not close
    counts = library.counts()["splits"]
    assert counts["papers that RNAs of two splits share (kept in one)"] > 0
    assert counts["units to annotate"] == library.number_of("unit") <= counts["literature sets"]


def test_the_same_seed_gives_the_same_splits(tmp_path):
    rows = shared_papers(*literature(60))
    found = []
    for number, seed in enumerate((1, 1, 2)):
        library = library_of(tmp_path / str(number), *rows)
        split_library(library, share=0.1, seed=seed)
        found.append([split for _, _, _, split in library.rnas()])
    assert found[0] == found[1] != found[2]


def test_a_hub_paper_stays_with_train(tmp_path):
    rnas, papers = literature(80)
    papers.append({"pmid": "5", "title": "A screen", "abstract": "A screen of eighty microRNAs."})
    rnas = [{**row, "pmids": [*row["pmids"], "5"]} for row in rnas]
    library = library_of(tmp_path, rnas, papers)
    split_library(library, share=0.1)
    (split,) = library.db.execute("SELECT split FROM paper WHERE pmid = '5'").fetchone()
    assert split == "train"
    assert library.counts()["splits"]["RNAs in test"] >= 8  # they keep their own papers


def test_two_groups_are_all_train(tmp_path):
    library = library_of(tmp_path, *literature(2))
    split_library(library)
    assert {split for _, _, _, split in library.rnas()} == {"train"}
