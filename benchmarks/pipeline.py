"""How fast is RNA-QA built without the language model, and does memory stay flat?

    python benchmarks/pipeline.py --sizes 1000 10000 100000 --output FOLDER

Makes RNAs with a literature as skewed as LitScan's (most sets have 1-3 papers, a few 10,000; every fourth RNA shares
its set with another), runs each stage in a process of its own, with a backend that answers at once from its prompt,
and prints RNAs per second, peak memory per stage and a projection for 407,616 RNAs with the calls that sharing saves.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PAPER_COUNTS = (
    (0.60, 1, 3),
    (0.25, 4, 8),
    (0.11, 9, 40),
    (0.0385, 41, 200),
    (0.0014, 201, 1000),
    (0.0001, 10_000, 10_000),
)
WORDS = [f"term{number}" for number in range(4000)]
PAPER_RNAS = 407_616


def paper_count(draw: random.Random) -> int:
    """Papers of one literature set, drawn from LitScan's skew."""
    point = draw.random()
    for share, fewest, most in PAPER_COUNTS:
        if point < share:
            return draw.randint(fewest, most)
        point -= share
    return 1


def make_source(folder: Path, rnas: int, seed: int = 0) -> None:
    """Write rnas.jsonl and papers.jsonl line by line. A fifth of a set's papers are also another set's."""
    from synthetic_literature import abstract

    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    with open(folder / "rnas.jsonl", "w") as rna_file, open(folder / "papers.jsonl", "w") as paper_file:
        aliases, pmids = [], []
        for number in range(rnas):
            if number % 4 != 3:
                aliases, count = [f"miR-{1000 + number}"], paper_count(draw)
                pmids = [str(10_000_000 + draw.randrange(made)) for _ in range(count // 5)] if made > 100 else []
                theme = draw.sample(WORDS, 60)
                while len(pmids) < count:
                    text = abstract(aliases[0], draw) + " " + " ".join(draw.choices(theme, k=120)) + "."
                    row = {"pmid": str(10_000_000 + made), "title": f"{aliases[0]} in disease.", "abstract": text}
                    paper_file.write(json.dumps(row) + "\n")
                    pmids.append(row["pmid"])
                    made += 1
            length = 22 if number % 5 == 0 else draw.randint(60, 120)
            sequence = "".join(draw.choices("ACGU", k=length))
            row = {"rna_id": f"URS{number:010X}_9606", "sequence": sequence, "aliases": aliases, "pmids": pmids}
            rna_file.write(json.dumps(row) + "\n")


class AtOnce:
    """A backend that answers from its prompt without delay, by the rules of tests/scripted_llm.py."""

    name = "at-once"

    def __init__(self):
        from scripted_llm import ScriptedLlm

        self.scripted = ScriptedLlm()

    @staticmethod
    def tokens(text: str) -> int:
        return int(len(text) / 3.5) + 1

    async def attempt(self, request, key, seed):
        from dataset_builder.calls import Answer

        text = self.scripted.answer(request.body(self.name, seed))
        return Answer(text, sum(self.tokens(said) for _, said in request.messages), self.tokens(text))

    async def close(self) -> None:
        pass


def stage(name: str, folder: Path) -> None:
    """One stage, in a process of its own."""
    from dataset_builder import build, build_settings, executors
    from dataset_builder.build_settings import BuildSettings, ModelSettings
    from dataset_builder.library import Library
    from dataset_builder.local_source import collect
    from dataset_builder.qa_splits import split_library

    build_settings.ModelSettings.backend = lambda self: AtOnce()
    work = folder / "work"
    (work / "logs").mkdir(parents=True, exist_ok=True)
    settings = BuildSettings(ModelSettings("endpoint", "at-once"), units_per_rank=2000)
    if name in ("collect", "split"):
        library = Library(work / "library.sqlite")
        collect(folder / "source", library) if name == "collect" else split_library(library)
        return
    build_settings.save(settings, work)
    library = Library(work / "library.sqlite", read_only=True)
    ranks = -(-library.number_of("unit") // settings.units_per_rank)
    if name in ("prepare", "annotate"):
        executors.run_ranks(work, name, ranks, list(range(ranks)), settings)
    elif name == "plan":
        from dataset_builder.plan import plan, plan_text

        print("   ", plan_text(plan(settings, work, ranks)))
    else:
        from dataset_builder.publishing import publish

        publish(work, folder / "dataset", settings, ranks)
        print("    calls", build.spending(work)["calls"])


def measured(name: str, folder: Path, pipe) -> None:
    started = time.perf_counter()
    stage(name, folder)
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    pipe.send((time.perf_counter() - started, cpu, max(one.ru_maxrss for one in usage) / 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000], metavar="RNAS")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="emptied first")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for size in args.sizes:
        folder = args.output / str(size)
        shutil.rmtree(folder, ignore_errors=True)
        make_source(folder / "source", size)
        print(f"{size} RNAs", flush=True)
        total = total_cpu = 0.0
        for name in ("collect", "split", "prepare", "plan", "annotate", "publish"):
            receive, give = context.Pipe(duplex=False)
            process = context.Process(target=measured, args=(name, folder, give))
            process.start()
            give.close()
            try:
                seconds, cpu, megabytes = receive.recv()
            except EOFError:
                sys.exit(f"{name} failed")
            process.join()
            total, total_cpu = total + seconds, total_cpu + cpu
            print(f"  {name:9} {seconds:8.1f} s  {cpu:8.1f} CPU s  {megabytes:6.0f} MB peak", flush=True)
        per_second, per_cpu = size / total, size / total_cpu
        library = folder / "work" / "library.sqlite"
        print(f"  {per_second:.1f} RNAs/s, {per_cpu:.1f} RNAs/CPU s; {library.stat().st_size / 1e6:.0f} MB library")
        saved = units_and_rnas(library)
        print(
            f"  {saved[0]} units for {saved[1]} RNAs: sharing saves {100 * (1 - saved[0] / saved[1]):.0f}% of the "
            f"calls; {PAPER_RNAS} RNAs: {PAPER_RNAS / per_cpu / 3600:.1f} CPU h, "
            f"{PAPER_RNAS * saved[0] // saved[1]} units",
            flush=True,
        )


def units_and_rnas(path: Path) -> tuple[int, int]:
    from dataset_builder.library import Library

    library = Library(path, read_only=True)
    query = "SELECT count(*) FROM rna JOIN literature ON literature.id = literature WHERE unit NOT NULL"
    return library.number_of("unit"), library.db.execute(query).fetchone()[0]


if __name__ == "__main__":
    main()
