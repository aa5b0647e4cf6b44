"""Run a stage's steps under datatrove: on this machine, under Slurm or under Ray.

On this machine each worker is a process of ours that runs some ranks one after the other. datatrove's own pool hangs
for ever when a worker is killed; here the driver sees it and starts another for the ranks that are left. When the
driver goes, even by SIGKILL, its workers make no new call, store the answers that are under way, and go too (Linux: a
death signal). They hold its lock until then, so that none goes on spending unseen.

    python -m dataset_builder.building.executors WORK STAGE RANKS RANK [RANK ...]   # one worker of the driver
"""

import ctypes
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from dataset_builder.storage.settings import BuildSettings
from rnagpt_core.errors import UserError

BUDGET_REACHED = 75  # a worker's exit code
UNUSABLE = 76
STOPPED = 77
STARTS = 5  # of a worker that dies without finishing a rank


def incomplete(stage: str, work: Path, ranks: int) -> list[int]:
    """Ranks that datatrove has not marked as completed."""
    marks = work / "logs" / stage / "completions"
    return [rank for rank in range(ranks) if not (marks / f"{rank:05d}").exists()]


def run_stage(
    stage: str, work: Path, ranks: int, settings: BuildSettings, lock, tick: Callable[[str], None] | None = None
) -> None:
    """Run a stage until every rank is completed.

    Raises:
        UserError: the budget is reached, the language model cannot be used, or ranks keep failing.
    """
    if not incomplete(stage, work, ranks):
        return
    if settings.executor == "local" and stage == "prepare" and ranks == 1:
        run_ranks(work, stage, ranks, [0], settings)  # small, and nothing is spent: no worker is needed
    elif settings.executor == "local":
        run_locally(stage, work, ranks, settings.workers, lock, tick)
    else:
        executor(stage, work, ranks, settings).run()
    left = incomplete(stage, work, ranks)
    if left and settings.executor == "slurm":
        raise UserError(f"{len(left)} ranks of {stage} are with Slurm; run the same command when its jobs are done")
    if left:
        said = said_by(stage, work)
        raise UserError(f"{len(left)} of {ranks} ranks of {stage} did not finish{said}; run the same command to go on")


def executor(stage: str, work: Path, ranks: int, settings: BuildSettings):
    """The datatrove executor of a stage. `settings.cluster` has further arguments of it (partition, time, ...)."""
    from dataset_builder.building.steps import steps

    common = {"pipeline": steps(stage, work), "tasks": ranks, "logging_dir": str(work / "logs" / stage)}
    if settings.executor == "slurm":
        from datatrove.executor import SlurmPipelineExecutor

        if not {"time", "partition"} <= set(settings.cluster):
            raise UserError("--executor slurm needs --cluster time=HH:MM:SS partition=NAME")
        arguments = {"cpus_per_task": 1, "mem_per_cpu_gb": 4, "job_name": f"rna-qa-{stage}", **settings.cluster}
        return SlurmPipelineExecutor(**common, workers=settings.workers, **arguments)
    if settings.executor == "ray":
        try:
            import ray
        except ModuleNotFoundError:
            raise UserError("--executor ray needs the package ray: pip install 'rnagpt[cluster]'") from None
        from datatrove.executor import RayPipelineExecutor

        if not ray.is_initialized():
            address = settings.cluster.get("address")
            if address:
                ray.init(address=address, log_to_driver=False)
            else:
                ray.init(num_cpus=settings.workers, include_dashboard=False, log_to_driver=False)
        return RayPipelineExecutor(**common, workers=settings.workers, mem_per_cpu_gb=0.5)
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(**common, workers=1)


def run_locally(stage: str, work: Path, ranks: int, workers: int, lock, tick) -> None:
    """Start workers, watch them, start again what died."""
    (work / "logs" / f"{stage}-error.txt").unlink(missing_ok=True)  # of an earlier run
    left = incomplete(stage, work, ranks)
    shares = [share for share in (left[number::workers] for number in range(workers)) if share]
    running = {number: start(stage, work, ranks, share, lock, workers) for number, share in enumerate(shares)}
    fruitless = dict.fromkeys(running, 0)
    stopped: int | None = None
    try:
        while running:
            time.sleep(0.05)
            if tick:
                tick(stage)
            for number, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[number]
                before, shares[number] = (
                    shares[number],
                    [r for r in shares[number] if r in incomplete(stage, work, ranks)],
                )
                if not shares[number]:
                    continue
                if code in (BUDGET_REACHED, UNUSABLE, STOPPED):
                    stopped = code
                    continue
                fruitless[number] = 0 if len(shares[number]) < len(before) else fruitless[number] + 1
                if stopped is None and fruitless[number] < STARTS:
                    running[number] = start(stage, work, ranks, shares[number], lock, workers)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if stopped == STOPPED:
        raise UserError("a worker was asked to end; run the same command to go on")
    if stopped is not None:
        raise UserError(said_by(stage, work).removeprefix(": ") or "the language model cannot be used")


def start(stage: str, work: Path, ranks: int, share: list[int], lock, workers: int) -> subprocess.Popen:
    """One of `workers` processes, for these ranks. It inherits the lock and ends with this process."""
    command = [
        sys.executable,
        "-m",
        "dataset_builder.building.executors",
        str(work),
        stage,
        str(ranks),
        *map(str, share),
    ]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # more threads than cores wait for each other: a local model, or LDA's matrix products, are then many times slower
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    log = open(work / "logs" / f"{stage}-workers.log", "ab")  # noqa: SIM115 - the child keeps it
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path, "RNAGPT_DRIVER": str(os.getpid()), "OMP_NUM_THREADS": threads},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock.fileno(),) if lock is not None else (),
        )
    finally:
        log.close()


def said_by(stage: str, work: Path) -> str:
    """The sentence that a worker left behind, as ": sentence", or nothing."""
    path = work / "logs" / f"{stage}-error.txt"
    return f": {path.read_text().strip()}" if path.exists() else ""


def end_with_the_driver() -> None:
    """Linux: SIGTERM when the driver goes, however it goes. Elsewhere the lock alone protects the work folder."""
    driver = int(os.environ.get("RNAGPT_DRIVER", "0"))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if driver and os.getppid() != driver:  # it went before the call above
        raise SystemExit(1)


def work_on(work: Path, stage: str, ranks: int, share: list[int]) -> int:
    """A worker's life: its ranks one after the other -> exit code."""
    end_with_the_driver()
    from dataset_builder.llm.call_cache import BudgetReached
    from dataset_builder.llm.language_model import Stopped
    from dataset_builder.storage.settings import load

    try:
        run_ranks(work, stage, ranks, share, load(work))
    except Stopped:
        return STOPPED
    except UserError as error:
        (work / "logs" / f"{stage}-error.txt").write_text(str(error))
        return BUDGET_REACHED if isinstance(error, BudgetReached) else UNUSABLE
    except (sqlite3.OperationalError, OSError) as error:
        said = f"{work}: {error}; see to it and run the same command to go on"
        (work / "logs" / f"{stage}-error.txt").write_text(said)
        return UNUSABLE
    return 0


def run_ranks(work: Path, stage: str, ranks: int, share: list[int], settings: BuildSettings) -> None:
    """Run ranks in this process, one after the other; what they log goes to files."""
    one = executor(stage, work, ranks, dataclasses.replace(settings, executor="local"))
    pipeline = one.pipeline
    for rank in share:
        one.pipeline = deepcopy(pipeline)
        one._run_for_rank(rank, local_rank=1)  # 0 would log to the screen


if __name__ == "__main__":
    sys.exit(work_on(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [int(rank) for rank in sys.argv[4:]]))
