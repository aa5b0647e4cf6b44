"""The steps of the build, as datatrove runs them on one machine, under Slurm or under Ray.

    prepare:  read units -> group by topic -> write prepared/RANK.jsonl
    annotate: read prepared -> annotate and ask -> write annotated/RANK.jsonl

A rank's file is renamed into place when the rank is done: a file that is there is whole.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter, deque
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from dataset_builder.literature import annotation, questions
from dataset_builder.literature.annotation import Quarantined, Tally
from dataset_builder.literature.checks import without_steering
from dataset_builder.literature.topics import sample_papers, topic_groups
from dataset_builder.llm.call_cache import BudgetReached
from dataset_builder.llm.language_model import LanguageModel
from dataset_builder.storage.settings import BuildSettings, load
from dataset_builder.storage.store import Library

WINDOW = 64  # units in work at a time, first in, first out: order and memory stay


def steps(stage: str, work: Path) -> list[PipelineStep]:
    """The visible list of what a stage does."""
    if stage == "prepare":
        return [ReadUnits(work), GroupByTopic(work), WriteRank(work, "prepared")]
    return [ReadRank(work, "prepared"), Annotate(work), WriteRank(work, "annotated")]


def ranks_of(units: int, settings: BuildSettings) -> int:
    return max(1, -(-units // settings.units_per_rank))


class ReadUnits(PipelineStep):
    """The library's units of one rank."""

    name, type = "read units", "reader"

    def __init__(self, work: Path):
        super().__init__()
        self.work = str(work)

    def run(self, data=None, rank: int = 0, world_size: int = 1):
        library = Library(Path(self.work) / "library.sqlite", read_only=True)
        query = "SELECT id, key, names, papers, split FROM unit WHERE id % ? = ? ORDER BY id"
        for number, key, names, papers, split in library.db.execute(query, (world_size, rank)).fetchall():
            unit = {"unit": number, "names": json.loads(names), "papers": json.loads(papers), "split": split}
            yield Document(text=names, id=key, metadata=unit)
        library.close()


class GroupByTopic(PipelineStep):
    """At most `cap_papers` papers per unit, by a recorded rule, grouped by topic."""

    name, type = "group by topic", "topics"

    def __init__(self, work: Path):
        super().__init__()
        self.work = str(work)

    def run(self, data, rank: int = 0, world_size: int = 1):
        settings = load(Path(self.work))
        library = Library(Path(self.work) / "library.sqlite", read_only=True)
        for document in data:
            names = document.metadata["names"]
            papers = library.papers(document.metadata.pop("papers"))
            kept, rule = sample_papers(papers, names, settings.cap_papers)
            number = settings.topics if settings.topics in ("rule", "coherence") else int(settings.topics)
            groups = topic_groups(kept, names, settings.seed, number)
            document.metadata["topics"] = [[list(topic.words), list(topic.pmids)] for topic in groups]
            document.metadata["sampled"] = rule
            document.metadata["found_papers"] = len(papers)
            document.metadata["characters"] = sum(len(paper.abstract) + len(paper.title) for paper in kept)
            self.stat_update("units")
            yield document
        library.close()


class ReadRank(PipelineStep):
    """One rank's file of the stage before."""

    name, type = "read", "reader"

    def __init__(self, work: Path, folder: str):
        super().__init__()
        self.work, self.folder = str(work), folder

    def run(self, data=None, rank: int = 0, world_size: int = 1):
        with open(Path(self.work) / self.folder / f"{rank:05d}.jsonl", encoding="utf-8") as handle:
            for line in handle:
                row = json.loads(line)
                yield Document(text="", id=row.pop("key"), metadata=row)


class WriteRank(PipelineStep):
    """Write a rank's rows under a temporary name, then rename."""

    name, type = "write", "writer"

    def __init__(self, work: Path, folder: str):
        super().__init__()
        self.work, self.folder = str(work), folder

    def run(self, data, rank: int = 0, world_size: int = 1):
        folder = Path(self.work) / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{rank:05d}.{os.uname().nodename}.{os.getpid()}.part"
        try:
            with open(part, "w", encoding="utf-8") as handle:
                for document in data:
                    handle.write(json.dumps({"key": document.id, **document.metadata}, ensure_ascii=False) + "\n")
                    yield document
                handle.flush()
                os.fsync(handle.fileno())
            part.rename(folder / f"{rank:05d}.jsonl")
        finally:
            part.unlink(missing_ok=True)


class Annotate(PipelineStep):
    """Annotations and questions for each unit, or the reason why there are none."""

    name, type = "annotate and ask", "language model"

    def __init__(self, work: Path):
        super().__init__()
        self.work = str(work)

    def run(self, data, rank: int = 0, world_size: int = 1):
        work = Path(self.work)
        settings = load(work)
        library = Library(work / "library.sqlite", read_only=True)
        ledger = settings.ledger(work, rank, world_size)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        model = LanguageModel(
            settings.model.backend(), ledger, settings.model.prices, settings.model.concurrency, settings.seed
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            if threading.current_thread() is threading.main_thread():
                loop.add_signal_handler(number, model.stop)
        window: deque = deque()
        progress = Progress(work, rank)
        try:
            for document in data:
                window.append((document, loop.create_task(annotated(document.metadata, library, model, settings))))
                if len(window) >= WINDOW:
                    yield finished(window.popleft(), loop, progress)
            while window:
                yield finished(window.popleft(), loop, progress)
        except BaseException:
            # what is under way is paid already: let it arrive in the ledger, and ask nothing more
            model.stop()
            loop.run_until_complete(asyncio.gather(*(task for _, task in window), return_exceptions=True))
            loop.run_until_complete(model.finish())
            raise
        finally:
            progress.write()
            loop.run_until_complete(model.close())
            loop.close()
            ledger.close()
            library.close()


class Progress:
    """How many units a rank has done, for the driver to read, written at most once a second."""

    def __init__(self, work: Path, rank: int):
        self.path = work / "progress" / f"{rank:05d}"
        self.path.parent.mkdir(exist_ok=True)
        self.done, self.written = 0, 0.0

    def one_more(self) -> None:
        self.done += 1
        if time.monotonic() - self.written > 1:
            self.write()

    def write(self) -> None:
        self.path.write_text(str(self.done))
        self.written = time.monotonic()


def finished(item, loop, progress: Progress) -> Document:
    document, task = item
    document.metadata = {"unit": document.metadata["unit"], **loop.run_until_complete(task)}
    progress.one_more()
    return document


async def annotated(unit: dict, library: Library, model: LanguageModel, settings: BuildSettings) -> dict:
    """A unit -> {"annotations": [...], "quarantined": [[method, stage, reason]], "counts", "topics", "sampled"}."""
    tally, names = Tally(), unit["names"]
    papers = []
    for paper in library.papers_by_pmid([pmid for _, pmids in unit["topics"] for pmid in pmids]):
        abstract, steering = without_steering(paper.abstract)
        title, in_title = without_steering(paper.title)
        if steering + in_title:
            tally.counts["literature: sentences that address a model, left out"] += steering + in_title
            paper = type(paper)(**{**vars(paper), "abstract": abstract, "title": title})
        papers.append(paper)
    by_pmid = {paper.pmid: paper for paper in papers}
    annotations, quarantined = [], []
    for method in settings.methods:
        own = Tally()
        try:
            made = await annotation.annotate(method, names, papers, unit["topics"], model, settings.limits, own)
        except Quarantined as reason:
            quarantined.append([method, "annotation", str(reason)])
            made = None
        if made is not None:
            made["questions"] = []
            try:
                made["questions"] = await questions.ask(
                    made["statements"], names, by_pmid, model, settings.limits, own
                )
            except Quarantined as reason:
                quarantined.append([method, "questions", str(reason)])
            annotations.append(made)
        tally.counts.update({f"{method}: {reason}": number for reason, number in own.counts.items()})
    return {
        "annotations": annotations,
        "quarantined": quarantined,
        "counts": dict(Counter(tally.counts)),
        "topics": unit["topics"],
        "sampled": unit["sampled"],
    }


__all__ = ["Annotate", "BudgetReached", "GroupByTopic", "ReadRank", "ReadUnits", "WriteRank", "ranks_of", "steps"]
