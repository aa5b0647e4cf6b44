"""How fast is RNA-QA built without the language model, and does memory stay flat?

    python benchmarks/pipeline.py --sizes 1000 10000 100000 --output FOLDER

Makes RNAs with a literature as skewed as LitScan's (most sets have 1-3 papers, a few 10,000; every fourth RNA shares
its set with another), runs each stage in a process of its own, with a backend that answers at once from its prompt,
and prints RNAs per second, peak memory per stage and a projection for 407,616 RNAs with the calls that sharing saves.
It can be stopped; the same command goes on after the last stage, or rank of one, that was done.
"""

import argparse
import json
import multiprocessing
import random
import resource
import signal
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
SETS_PER_RANK = 2000


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


def answer_at_once() -> None:
    """Let the endpoint answer from its prompt without delay, by the rules of tests/support/scripted_llm.py."""
    from scripted_llm import ScriptedLlm

    from rnagpt_core.endpoint import Endpoint, Reply, estimated_tokens

    scripted = ScriptedLlm()

    async def try_chat(self, body, key=None):
        text = scripted.answer(body)
        asked = sum(estimated_tokens(message["content"]) for message in body["messages"])
        return Reply(text, asked, estimated_tokens(text))

    Endpoint.try_chat = try_chat


def stage(name: str, folder: Path, rank: int | None = None) -> None:
    """One stage, or one rank of it, in a process of its own."""
    from dataset_builder.building import build, executors
    from dataset_builder.publishing.qa_splits import split_library
    from dataset_builder.sources.local_source import collect
    from dataset_builder.storage import settings as build_settings
    from dataset_builder.storage.settings import BuildSettings, ModelSettings
    from dataset_builder.storage.store import Store

    answer_at_once()
    work = folder / "work"
    (work / "logs").mkdir(parents=True, exist_ok=True)
    settings = BuildSettings(ModelSettings("at-once"), sets_per_rank=SETS_PER_RANK)
    if name in ("collect", "split"):
        store = Store(work / "library.sqlite")
        collect(folder / "source", store) if name == "collect" else split_library(store)
        return
    build_settings.save(settings, work)
    ranks = ranks_of(folder)
    if name in ("prepare", "annotate"):
        executors.run_ranks(work, name, ranks, [rank], settings)
    elif name == "plan":
        from dataset_builder.building.cost import plan, plan_text

        print("   ", plan_text(plan(settings, work, ranks)))
    else:
        from dataset_builder.publishing.parquet import publish

        publish(work, folder / "dataset", settings, ranks)
        print("    calls", build.spending(settings, work)["calls"])


def ranks_of(folder: Path) -> int:
    from dataset_builder.storage.store import Store

    store = Store(folder / "work" / "library.sqlite", read_only=True)
    try:
        return -(-store.number_of("unit") // SETS_PER_RANK)
    finally:
        store.close()


def measured(name: str, folder: Path, rank: int | None, pipe) -> None:
    started = time.perf_counter()
    stage(name, folder, rank)
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    pipe.send((time.perf_counter() - started, cpu, max(one.ru_maxrss for one in usage) / 1024))


def in_a_process(context, name: str, folder: Path, rank: int | None = None) -> tuple[float, float, float]:
    """(seconds, CPU seconds, MB at most) of a stage or a rank, kept in measured.json: a restart goes on after it."""
    kept = folder / "measured.json"
    done = json.loads(kept.read_text()) if kept.exists() else {}
    key = name if rank is None else f"{name} {rank}"
    if key not in done:
        receive, give = context.Pipe(duplex=False)
        process = context.Process(target=measured, args=(name, folder, rank, give))
        process.start()
        give.close()
        try:
            done[key] = receive.recv()
            process.join()
        except EOFError:
            sys.exit(f"{key} failed")
        finally:
            process.terminate()  # when this one is asked to end
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(done))
        part.rename(kept)
    return tuple(done[key])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000], metavar="RNAS")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="kept: a restart goes on from it")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    context = multiprocessing.get_context("spawn")
    for size in args.sizes:
        folder = args.output / str(size)
        if not (folder / "source" / "whole").exists():
            make_source(folder / "source", size)
            (folder / "source" / "whole").touch()
        print(f"{size} RNAs", flush=True)
        total = total_cpu = 0.0
        for name in ("collect", "split", "prepare", "plan", "annotate", "publish"):
            ranks = range(ranks_of(folder)) if name in ("prepare", "annotate") else [None]
            rows = [in_a_process(context, name, folder, rank) for rank in ranks]
            seconds, cpu, megabytes = sum(r[0] for r in rows), sum(r[1] for r in rows), max(r[2] for r in rows)
            total, total_cpu = total + seconds, total_cpu + cpu
            print(f"  {name:9} {seconds:8.1f} s  {cpu:8.1f} CPU s  {megabytes:6.0f} MB peak", flush=True)
        per_second, per_cpu = size / total, size / total_cpu
        library = folder / "work" / "library.sqlite"
        print(f"  {per_second:.1f} RNAs/s, {per_cpu:.1f} RNAs/CPU s; {library.stat().st_size / 1e6:.0f} MB library")
        units, rnas, calls, alone = sharing(folder)
        print(
            f"  {units} literature sets for {rnas} RNAs, {calls} calls instead of {alone}: sharing saves "
            f"{100 * (1 - calls / alone):.0f}%; {PAPER_RNAS} RNAs: {PAPER_RNAS / per_cpu / 3600:.1f} CPU h, "
            f"{PAPER_RNAS * units // rnas} sets, {PAPER_RNAS * calls // rnas} calls instead of "
            f"{PAPER_RNAS * alone // rnas}",
            flush=True,
        )


def sharing(folder: Path) -> tuple[int, int, int, int]:
    """(literature sets, RNAs, calls that were made, calls had each RNA been annotated alone)."""
    from dataset_builder.building.build import spending
    from dataset_builder.building.cost import calls_of_set
    from dataset_builder.storage.settings import load
    from dataset_builder.storage.store import Store

    work = folder / "work"
    settings, store = load(work), Store(work / "library.sqlite", read_only=True)
    joined = "rna JOIN literature ON literature.id = literature WHERE unit NOT NULL"
    rnas_of = dict(store.db.execute(f"SELECT unit, count(*) FROM {joined} GROUP BY unit"))
    draw, once, alone = random.Random(0), 0, 0
    for path in sorted((work / "prepared").glob("*.jsonl")):
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                if draw.random() < min(1.0, 3000 / len(rnas_of)):  # a sample: a large set's prompts take a second
                    unit = json.loads(line)
                    calls = sum(1 for _ in calls_of_set(unit, store, settings))
                    once, alone = once + calls, alone + calls * rnas_of[unit["unit"]]
    store.close()
    made = spending(settings, work)["calls"]
    return len(rnas_of), sum(rnas_of.values()), made, made * alone // once


if __name__ == "__main__":
    main()
