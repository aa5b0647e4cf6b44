"""The build, in order: collect, split, prepare, the price, annotate, publish. Each step is skipped where it is done.

build(settings, output, collect=lambda library: local_source.collect(folder, library))

OUTPUT/dataset/   what is published        OUTPUT/report.json, report.txt   what was kept, left out, spent
OUTPUT/work/      library.sqlite, prepared/, annotated/, calls/, logs/: what a restart goes on from
"""

import csv
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from dataset_builder.building import executors
from dataset_builder.llm.call_cache import Ledger
from dataset_builder.publishing.qa_splits import split_library
from dataset_builder.sources.local_source import fingerprints
from dataset_builder.storage import settings as build_settings
from dataset_builder.storage.settings import BuildSettings
from dataset_builder.storage.store import Library
from rnagpt_core.errors import UserError

LEFTOVERS = 600  # seconds to wait for the workers of a killed driver: as long as calls can take


def build(
    settings: BuildSettings,
    output: Path,
    collect: Callable[[Library], None],
    plan_only: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Make the dataset, or with `plan_only` the plan of its calls and price. -> the run report, or the plan.

    Raises:
        UserError: another build runs in the folder, the settings changed, the budget is reached, nothing is left.
    """
    work = output / "work"
    (work / "logs").mkdir(parents=True, exist_ok=True)
    with locked(work) as lock:
        paid = spending(work)["calls"] > 0
        changed = changed_files(settings, work)
        if changed and paid:
            raise UserError(
                f"{', '.join(changed)} in {settings.source} changed since {work} was begun, and calls were made for "
                "what stood there: put it back, or give another output folder"
            )
        if changed:
            say(f"{', '.join(changed)} changed: {settings.source} is read again")
            begin_again(work)
        if nothing_collected(work):
            (work / "settings.json").unlink(missing_ok=True)  # of a first try that failed, at another folder say
        build_settings.save(settings, work, calls=paid)
        units = prepared_library(settings, work, collect, say)
        ranks = -(-units // settings.units_per_rank)
        executors.run_stage("prepare", work, ranks, settings, lock)
        from dataset_builder.building.cost import plan, plan_text

        planned = plan(settings, work, ranks)
        say(plan_text(planned))
        if plan_only:
            return planned
        ledgers = [settings.ledger(work)]
        ledgers[0].forget_reservations()
        ledgers[0].close()
        started, before = time.time(), spending(work)
        if settings.model.batch_api and executors.incomplete("annotate", work, ranks):
            from dataset_builder.building.batch_api import run_in_batches

            run_in_batches(work, ranks, settings, say, settings.model.batch_seconds)
        tick = Ticker(work, units, before["usd"], say)
        executors.run_stage("annotate", work, ranks, settings, lock, tick)
        tick.last()
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


def nothing_collected(work: Path) -> bool:
    """True for a new work folder, and for one whose source could not be read."""
    if not (work / "library.sqlite").exists():
        return True
    library = Library(work / "library.sqlite")
    try:
        kept = library.number_of("rna") + library.number_of("paper")
        return kept == 0 and library.db.execute("SELECT 1 FROM fact").fetchone() is None
    finally:
        library.close()


def changed_files(settings: BuildSettings, work: Path) -> list[str]:
    """Names of the source folder's files that are not what the library was filled from. None if the folder is gone:
    the library has all that is needed."""
    if not (work / "library.sqlite").exists() or not Path(settings.source).is_dir():
        return []
    library = Library(work / "library.sqlite")
    try:
        before = library.fact("files")
    finally:
        library.close()
    if before is None or settings.source != settled_source(work):
        return []
    now = fingerprints(settings.source)
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def settled_source(work: Path) -> str | None:
    """The source that the work folder was begun with."""
    path = work / "settings.json"
    return json.loads(path.read_text())["source"] if path.exists() else None


def begin_again(work: Path) -> None:
    """Remove what was made from the source; no call was made yet."""
    for path in work.glob("library.sqlite*"):
        path.unlink()
    for name in ("prepared", "annotated", "progress", "logs"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "logs").mkdir()


def prepared_library(settings: BuildSettings, work: Path, collect, say) -> int:
    """Collect and split once; -> units to annotate."""
    library = Library(work / "library.sqlite")
    try:
        if not library.fact("collected"):
            collect(library)
            with library.writing():
                library.set_fact("collected", True)
        write_left_out(work.parent / "left_out.tsv", library, say)
        for stage, reasons in library.counts().items():
            told = [f"{reason} ({n})" for reason, n in reasons.items() if reason.startswith(("dropped", "repaired"))]
            if told:
                say(f"{stage}: {'; '.join(told)}")
        if not library.fact("split"):
            if not library.number_of("rna"):
                reasons = library.counts().get("rnas", {})
                said = "; ".join(f"{reason}: {number}" for reason, number in reasons.items()) or "the source is empty"
                raise UserError(f"no RNA can be used ({said})")
            split_library(library, settings.held_out_share, settings.seed)
            with library.writing():
                library.set_fact("split", True)
        units = library.number_of("unit")
        rnas, papers = library.number_of("rna"), library.number_of("paper")
        say(f"{rnas} RNAs, {papers} papers, {units} distinct literature sets to annotate")
        if not units:
            raise UserError("no RNA has a paper that can be used: nothing to annotate")
        return units
    finally:
        library.close()


def write_left_out(path: Path, library: Library, say) -> None:
    """Write which rows of the source were not taken, and why: a table of file, line (or row), record and reason."""
    rows = library.left_out()
    if rows:
        part = path.with_name(f".{path.name}.part")
        with open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerows([("file", "line", "record", "reason"), *rows])
        part.rename(path)
        say(f"{path} names the rows of the source that were left out ({len(rows)})")
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(work: Path):
    """Hold the work folder. Workers inherit the lock: after a driver was killed, they store what is under way first.

    Raises:
        UserError: another build runs there.
    """
    with open(work / "lock", "a+") as lock:
        waited = 0.0
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited >= (LEFTOVERS if driver_is_gone(work) else 2):
                    raise UserError(f"another build is running in {work}; wait for it, or stop it") from None
                time.sleep(0.1)
                waited += 0.1
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


def ledger_files(work: Path) -> list[Path]:
    return sorted((work / "calls").glob("*.sqlite"))


def spending(work: Path) -> dict:
    """Calls, tokens and USD of all ledgers of a work folder, with retries and other events."""
    total: dict = {"calls": 0, "tokens": 0, "usd": 0.0, "by_stage": {}, "events": {}}
    for path in ledger_files(work):
        ledger = Ledger(path, wal=path.name == "calls.sqlite")
        found = ledger.spent()
        ledger.close()
        for key in ("calls", "tokens", "usd"):
            total[key] += found[key]
        for name, number in found["events"].items():
            total["events"][name] = total["events"].get(name, 0) + number
        for stage, numbers in found["by_stage"].items():
            mine = total["by_stage"].setdefault(stage, dict.fromkeys(numbers, 0))
            for key, number in numbers.items():
                mine[key] += number
    return total


class Ticker:
    """Says now and then how far the annotation is: units, time left, money spent."""

    def __init__(self, work: Path, units: int, usd_before: float, say, seconds: float | None = None):
        self.work, self.units, self.say = work, units, say
        self.seconds = seconds or (5 if sys.stderr.isatty() else 60)
        self.started = self.spoke = time.monotonic()
        self.begun_with: int | None = None

    def __call__(self, stage: str) -> None:
        if time.monotonic() - self.spoke < self.seconds:
            return
        self.spoke = time.monotonic()
        done = sum(int(path.read_text() or 0) for path in (self.work / "progress").glob("*"))
        if self.begun_with is None:
            self.begun_with = done
        passed, new = time.monotonic() - self.started, done - self.begun_with
        left = f", about {(self.units - done) * passed / new / 60:.0f} min left" if new > 0 else ""
        self.say(f"{done} of {self.units} literature sets{left}, {spending(self.work)['usd']:.4f} USD spent")

    def last(self) -> None:
        spent = spending(self.work)
        self.say(f"{self.units} literature sets done, {spent['calls']} calls, {spent['usd']:.4f} USD")


def run_report(work: Path, settings: BuildSettings, statistics: dict, started: float, planned: dict) -> dict:
    """What was kept, left out by reason, quarantined and spent."""
    library = Library(work / "library.sqlite", read_only=True)
    counts = library.counts()
    library.close()
    return {
        "model": settings.model.name,
        "methods": ", ".join(settings.methods),
        "seconds of this run": round(time.time() - started, 1),
        "spent": spending(work),
        "planned": planned,
        **{f"source: {stage}": reasons for stage, reasons in counts.items()},
        **statistics,
    }


def write(output: Path, report: dict) -> None:
    from dataset_builder.publishing.card import report_text

    for name, text in (
        ("report.json", json.dumps(report, indent=1, ensure_ascii=False)),
        ("report.txt", report_text(report)),
    ):
        part = output / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        part.rename(output / name)
