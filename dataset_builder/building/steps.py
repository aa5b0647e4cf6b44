"""The steps of the build, as datatrove runs them on one machine, under Slurm or under Ray.

    prepare:  read literature sets -> group by topic -> write prepared/RANK.jsonl
    annotate: read prepared -> annotate and ask -> write annotated/RANK.jsonl

A step takes the rows of the one before it, the rank and the number of ranks. A rank's file is renamed into place when
the rank is done: a file that is there is whole.
"""

import asyncio
import json
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from dataset_builder.literature import annotation, extractive, questions
from dataset_builder.literature.annotation import Quarantined, Tally
from dataset_builder.literature.checks import without_steering
from dataset_builder.literature.topics import sample_papers, topic_groups
from dataset_builder.llm.call_cache import open_cache
from dataset_builder.llm.language_model import LanguageModel, endpoint_of
from dataset_builder.storage.records import CuratedFact, Paper
from dataset_builder.storage.settings import BuildSettings, load
from dataset_builder.storage.store import Store
from rnagpt_core.files import new_file

WINDOW = 64  # literature sets in work at a time, first in, first out: order and memory stay


def steps(stage: str, work: Path, is_extractive: bool = False) -> list[Callable]:
    """The visible list of what a stage does."""
    if stage == "prepare":
        return [partial(read_sets, work), partial(group_by_topic, work), partial(write_rank, work / "prepared")]
    return [
        partial(read_rank, work / "prepared"),
        partial(extract if is_extractive else annotate, work),
        partial(note_progress, work / "progress"),
        partial(write_rank, work / "annotated"),
    ]


def read_sets(work: Path, data, rank: int, ranks: int) -> Iterator[dict]:
    """The store's literature sets of one rank."""
    store = Store(work / "library.sqlite", read_only=True)
    query = "SELECT id, key, names, papers, split FROM unit WHERE id % ? = ? ORDER BY id"
    for number, key, names, papers, split in store.db.execute(query, (ranks, rank)).fetchall():
        row = {"key": key, "unit": number, "names": json.loads(names), "papers": json.loads(papers), "split": split}
        yield row
    store.close()


def group_by_topic(work: Path, data: Iterable[dict], rank: int, ranks: int) -> Iterator[dict]:
    """At most `cap_papers` papers per literature set, by a recorded rule, grouped by topic."""
    settings, store = load(work), Store(work / "library.sqlite", read_only=True)
    number = int(settings.topics) if settings.topics.isdigit() else settings.topics
    for row in data:
        papers = store.papers(row.pop("papers"))
        kept, rule = sample_papers(papers, row["names"], settings.cap_papers)
        groups = topic_groups(kept, row["names"], settings.seed, number)
        row |= {"topics": [[list(topic.words), list(topic.pmids)] for topic in groups], "sampled": rule}
        yield row
    store.close()


def read_rank(folder: Path, data, rank: int, ranks: int) -> Iterator[dict]:
    """One rank's file of the stage before."""
    with open(folder / f"{rank:05d}.jsonl", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_rank(folder: Path, data: Iterable[dict], rank: int, ranks: int) -> Iterator[dict]:
    with new_file(folder / f"{rank:05d}.jsonl") as file:
        for row in data:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            yield row


def note_progress(folder: Path, data: Iterable[dict], rank: int, ranks: int) -> Iterator[dict]:
    """Write how many rows are done, for the driver to read."""
    folder.mkdir(exist_ok=True)
    for number, row in enumerate(data, start=1):
        (folder / f"{rank:05d}").write_text(str(number))
        yield row


def extract(work: Path, data: Iterable[dict], rank: int, ranks: int) -> Iterator[dict]:
    """Annotations and questions without a language model."""
    store = Store(work / "library.sqlite", read_only=True)
    for row in data:
        counts: Counter = Counter()
        papers = papers_of(row, store, counts)
        annotations, quarantined = [], []
        try:
            made = extractive.annotation(row["names"], papers, row["topics"])
            pmids = {paper.pmid for paper in papers}
            made["questions"] = extractive.questions(curated(store, row["unit"]), row["names"], pmids)
            annotations.append(made)
        except Quarantined as reason:
            quarantined.append(["extractive", "annotation", str(reason)])
        yield annotated_row(row, annotations, quarantined, counts)
    store.close()


def annotate(work: Path, data: Iterable[dict], rank: int, ranks: int) -> Iterator[dict]:
    """Annotations and questions by the language model for each literature set, or the reason why there are none."""
    settings, store = load(work), Store(work / "library.sqlite", read_only=True)
    cache, loop = open_cache(settings, work, rank, ranks), asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    endpoint = endpoint_of(settings.model)
    model = LanguageModel(endpoint, cache, settings.model.prices, settings.model.concurrency, settings.seed)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, model.stop)
    window: deque[asyncio.Task] = deque()
    try:
        loop.run_until_complete(endpoint.__aenter__())
        for row in data:
            window.append(loop.create_task(annotated(row, store, model, settings)))
            if len(window) >= WINDOW:
                yield loop.run_until_complete(window.popleft())
        while window:
            yield loop.run_until_complete(window.popleft())
    except BaseException:
        # what is under way is paid already: let it arrive in the call cache, and ask nothing more
        model.stop()
        loop.run_until_complete(asyncio.gather(*window, return_exceptions=True))
        loop.run_until_complete(model.finish())
        raise
    finally:
        loop.run_until_complete(endpoint.__aexit__())
        loop.close()
        cache.close()
        store.close()


async def annotated(row: dict, store: Store, model, settings: BuildSettings) -> dict:
    """A literature set -> its row of annotated/. model: answers requests, as a `LanguageModel` does."""
    names, limits, counts = row["names"], settings.limits, Counter()
    papers = papers_of(row, store, counts)
    by_pmid = {paper.pmid: paper for paper in papers}
    annotations, quarantined = [], []
    for method in settings.methods:
        tally, stage = Tally(), "annotation"
        try:
            made = await annotation.annotate(method, names, papers, row["topics"], model, limits, tally)
            made["questions"], stage = [], "questions"
            annotations.append(made)
            made["questions"] = await questions.ask(made["statements"], names, by_pmid, model, limits, tally)
        except Quarantined as reason:
            quarantined.append([method, stage, str(reason)])
        counts.update({f"{method}: {reason}": number for reason, number in tally.items()})
    return annotated_row(row, annotations, quarantined, counts)


def annotated_row(row: dict, annotations: list[dict], quarantined: list[list[str]], counts: Counter) -> dict:
    """What is written of a literature set; `quarantined`: [method, stage, reason] of what came to nothing."""
    found = {"annotations": annotations, "quarantined": quarantined, "counts": dict(counts)}
    return {"key": row["key"], "unit": row["unit"], **found, "topics": row["topics"], "sampled": row["sampled"]}


def papers_of(row: dict, store: Store, counts: Counter) -> list[Paper]:
    """The papers of a set's topics, without their sentences that address a model, which are counted."""
    found = []
    for paper in store.papers_by_pmid(pmid for _, pmids in row["topics"] for pmid in pmids):
        (title, in_title), (abstract, in_abstract) = map(without_steering, (paper.title, paper.abstract))
        if in_title + in_abstract:
            counts["literature: sentences that address a model, left out"] += in_title + in_abstract
            paper = replace(paper, title=title, abstract=abstract)
        found.append(paper)
    return found


def curated(store: Store, number: int) -> list[CuratedFact]:
    """What curators state of every RNA of a literature set: its questions are asked of each."""
    first, *others = (store.curated(rna.rna_id) for rna, _ in store.rnas_of_set(number))
    return [statement for statement in first if all(statement in other for other in others)]
