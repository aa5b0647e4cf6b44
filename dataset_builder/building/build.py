"""The build, in order: collect, split, prepare, the price, annotate, publish. Each step is skipped where it is done.

build(settings, output, collect=lambda store: local_source.collect(folder, store))

OUTPUT/dataset/   what is published        OUTPUT/report.json, report.txt   what was kept, left out, spent
OUTPUT/work/      library.sqlite, prepared/, annotated/, calls/, logs/: what a restart goes on from
"""

import csv
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from dataset_builder.building import executors
from dataset_builder.llm.call_cache import open_cache
from dataset_builder.publishing.qa_splits import split_library
from dataset_builder.sources.local_source import fingerprints
from dataset_builder.storage import settings as build_settings
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Store
from rnagpt_core.errors import UserError
from rnagpt_core.files import hold, new_file, replace_text

LEFTOVERS = 600  # seconds to wait for the workers of a killed driver: as long as calls can take


def build(
    settings: BuildSettings,
    output: Path,
    collect: Callable[[Store], None],
    plan_only: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Make the dataset, or with `plan_only` the plan of its calls and price. -> the run report, or the plan.

    Raises:
        UserError: another build runs in the folder, the settings changed, the budget is reached, nothing is left.
    """
    from dataset_builder.building.cost import plan, plan_text

    work = output / "work"
    (work / "logs").mkdir(parents=True, exist_ok=True)
    with locked(work) as lock:
        begin(settings, work, say)
        sets = prepared_store(settings, work, collect, say)
        ranks = -(-sets // settings.sets_per_rank)
        executors.run_stage("prepare", work, ranks, settings, lock)
        planned = plan(settings, work, ranks)
        say(plan_text(planned))
        if plan_only:
            return planned
        started = time.time()
        annotate(settings, work, sets, ranks, lock, say)
        from dataset_builder.publishing.parquet import publish

        statistics = publish(work, output / "dataset", settings, ranks)
        report = run_report(work, settings, statistics, started, planned)
        write(output, report)
    if not statistics["annotations"]:
        raise UserError(
            f"no annotation passed the checks; {output / 'report.txt'} says why they were left out: try a better "
            "language model"
        )
    return report


def begin(settings: BuildSettings, work: Path, say: Callable[[str], None]) -> None:
    """Check that the work folder was begun with these settings and this source, and read anew a source that changed.

    Raises:
        UserError: another source, or settings that decide the rows and are others.
    """
    paid = spending(settings, work)["calls"] > 0
    changed = ", ".join(changed_files(settings, work))
    if changed and paid:
        raise UserError(
            f"{changed} in {settings.source} changed since {work} was begun, and calls were made for what stood there"
            ": put it back, or give another output folder"
        )
    if changed:
        say(f"{changed} changed: {settings.source} is read again")
        begin_again(work)
    if nothing_collected(work):
        (work / "settings.json").unlink(missing_ok=True)  # of a first try that failed, at another folder say
    build_settings.save(settings, work, annotated=paid or any((work / "annotated").glob("*.jsonl")))


def annotate(settings: BuildSettings, work: Path, sets: int, ranks: int, lock: IO, say: Callable[[str], None]) -> None:
    with closing(open_cache(settings, work)) as cache:
        cache.forget_reservations()
    if settings.model.batch_api and executors.incomplete("annotate", work, ranks):
        from dataset_builder.building.batch_api import run_in_batches

        run_in_batches(work, ranks, settings, say)
    executors.run_stage("annotate", work, ranks, settings, lock, Ticker(settings, work, sets, say))
    spent = spending(settings, work)
    say(f"{sets} literature sets done, {spent['calls']} calls, {spent['usd']:.4f} USD")


def nothing_collected(work: Path) -> bool:
    """True for a new work folder, and for one whose source could not be read."""
    if not (work / "library.sqlite").exists():
        return True
    with closing(Store(work / "library.sqlite")) as store:
        rows = store.number_of("rna") + store.number_of("paper")
        return rows == 0 and store.db.execute("SELECT 1 FROM fact").fetchone() is None


def changed_files(settings: BuildSettings, work: Path) -> list[str]:
    """Names of the source folder's files that are not what the store was filled from. None if the folder is gone: the
    store has all that is needed. None either where the work folder was begun with another source."""
    if not (work / "library.sqlite").exists() or not Path(settings.source).is_dir():
        return []
    with closing(Store(work / "library.sqlite")) as store:
        before = store.fact("files")
    path = work / "settings.json"
    if before is None or not path.exists() or json.loads(path.read_text())["source"] != settings.source:
        return []
    now = fingerprints(settings.source)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def begin_again(work: Path) -> None:
    """Remove what was made from the source; no call was made yet."""
    for path in work.glob("library.sqlite*"):
        path.unlink()
    for name in ("prepared", "annotated", "progress", "logs"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "logs").mkdir()


def prepared_store(settings: BuildSettings, work: Path, collect: Callable[[Store], None], say) -> int:
    """Collect and split once; -> literature sets to annotate."""
    with closing(Store(work / "library.sqlite")) as store:
        if not store.fact("collected"):
            collect(store)
            with store.writing():
                store.set_fact("collected", True)
        write_left_out(work.parent / "left_out.tsv", store, say)
        for stage, reasons in store.counts().items():
            lost = [f"{reason} ({n})" for reason, n in reasons.items() if reason.startswith(("dropped", "repaired"))]
            if lost:
                say(f"{stage}: {'; '.join(lost)}")
        if not store.fact("split"):
            if not store.number_of("rna"):
                reasons = store.counts().get("rnas", {})
                why = "; ".join(f"{reason}: {number}" for reason, number in reasons.items()) or "the source is empty"
                raise UserError(f"no RNA can be used ({why})")
            split_library(store, settings.held_out_share, settings.seed)
            with store.writing():
                store.set_fact("split", True)
        rnas, papers, sets = (store.number_of(table) for table in ("rna", "paper", "unit"))
        say(f"{rnas} RNAs, {papers} papers, {sets} distinct literature sets to annotate")
        if not sets:
            raise UserError("no RNA has a paper that can be used: nothing to annotate")
        return sets


def write_left_out(path: Path, store: Store, say) -> None:
    """Write which rows of the source were not taken, and why: a table of file, line (or row), record and reason."""
    rows = store.left_out()
    if not rows:
        path.unlink(missing_ok=True)
        return
    with new_file(path) as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([("file", "line", "record", "reason"), *rows])
    say(f"{path} names the rows of the source that were left out ({len(rows)})")


@contextmanager
def locked(work: Path) -> Iterator[IO]:
    """Hold the work folder. Workers inherit the lock: after a driver was killed, they store what is under way first.

    Raises:
        UserError: another build runs there.
    """
    with open(work / "lock", "a+") as lock:
        started = time.monotonic()
        while True:
            try:
                hold(lock, f"another build is running in {work}; wait for it, or stop it")
                break
            except UserError:
                if time.monotonic() - started > (LEFTOVERS if driver_is_gone(work) else 2):
                    raise
                time.sleep(0.1)
        (work / "driver").write_text(str(os.getpid()))
        yield lock


def driver_is_gone(work: Path) -> bool:
    """True when the process that took the lock does not run any more: its workers still hold it."""
    try:
        os.kill(int((work / "driver").read_text()), 0)
    except (ProcessLookupError, FileNotFoundError, ValueError):
        return True
    except PermissionError:
        pass
    return False


def spending(settings: BuildSettings, work: Path) -> dict:
    """Calls, tokens and USD so far, by stage, with retries and other events."""
    with closing(open_cache(settings, work)) as cache:
        return cache.spent()


class Ticker:
    """Says now and then how far the annotation is: literature sets, time left, money spent."""

    def __init__(self, settings: BuildSettings, work: Path, sets: int, say: Callable[[str], None]):
        self.settings, self.work, self.sets, self.say = settings, work, sets, say
        self.seconds = 5 if sys.stderr.isatty() else 60
        self.started = self.spoke = time.monotonic()
        self.done_before: int | None = None

    def __call__(self) -> None:
        if time.monotonic() - self.spoke < self.seconds:
            return
        self.spoke = time.monotonic()
        done = sum(int(path.read_text() or 0) for path in (self.work / "progress").glob("*"))
        if self.done_before is None:
            self.done_before = done
        passed, new = time.monotonic() - self.started, done - self.done_before
        left = f", about {(self.sets - done) * passed / new / 60:.0f} min left" if new > 0 else ""
        usd = spending(self.settings, self.work)["usd"]
        self.say(f"{done} of {self.sets} literature sets{left}, {usd:.4f} USD spent")


def run_report(work: Path, settings: BuildSettings, statistics: dict, started: float, planned: dict) -> dict:
    """What was kept, left out by reason, quarantined and spent."""
    with closing(Store(work / "library.sqlite", read_only=True)) as store:
        counts = store.counts()
    return {
        "model": settings.model.name,
        "methods": ", ".join(settings.methods),
        "seconds of this run": round(time.time() - started, 1),
        "spent": spending(settings, work),
        "planned": planned,
        **{f"source: {stage}": reasons for stage, reasons in counts.items()},
        **statistics,
    }


def write(output: Path, report: dict) -> None:
    from dataset_builder.publishing.card import report_text

    replace_text(output / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    replace_text(output / "report.txt", report_text(report))
