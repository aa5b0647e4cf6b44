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
from pathlib import Path

from dataset_builder.storage.settings import BuildSettings, load
from rnagpt_core.errors import UserError

ENDED = 76  # a worker's exit code: it cannot go on, and a new one could not either
STARTS = 5  # of a worker that dies without finishing a rank


def incomplete(stage: str, work: Path, ranks: int) -> list[int]:
    """Ranks that datatrove has not marked as completed."""
    marks = work / "logs" / stage / "completions"
    return [rank for rank in range(ranks) if not (marks / f"{rank:05d}").exists()]


def run_stage(
    stage: str, work: Path, ranks: int, settings: BuildSettings, lock, tick: Callable[[], None] = lambda: None
) -> None:
    """Run a stage until every rank is completed. `tick` is called again and again meanwhile.

    Raises:
        UserError: the budget is reached, the language model cannot be used, or ranks keep failing.
    """
    if not incomplete(stage, work, ranks):
        return
    error = error_file(stage, work)
    error.unlink(missing_ok=True)  # of an earlier run
    if settings.executor != "local":
        executor(stage, work, ranks, settings).run()
    elif stage == "prepare" and ranks == 1:
        run_ranks(work, stage, ranks, [0], settings)  # small, and nothing is spent: no worker is needed
    else:
        run_locally(stage, work, ranks, settings.workers, lock, tick)
    left = incomplete(stage, work, ranks)
    if left and settings.executor == "slurm":
        raise UserError(f"{len(left)} ranks of {stage} are with Slurm; run the same command when its jobs are done")
    if left:
        why = f": {error.read_text().strip()}" if error.exists() else ""
        raise UserError(f"{len(left)} of {ranks} ranks of {stage} did not finish{why}; run the same command to go on")


def executor(stage: str, work: Path, ranks: int, settings: BuildSettings):
    """The datatrove executor of a stage. `settings.cluster` has further arguments of it (partition, time, ...)."""
    from dataset_builder.building.steps import steps

    common = {
        "pipeline": steps(stage, work, settings.extractive),
        "tasks": ranks,
        "logging_dir": str(work / "logs" / stage),
    }
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
            here = {} if address else {"num_cpus": settings.workers, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, **here)
        return RayPipelineExecutor(**common, workers=settings.workers, mem_per_cpu_gb=0.5)
    from datatrove.executor import LocalPipelineExecutor

    return LocalPipelineExecutor(**common, workers=1)


def run_locally(stage: str, work: Path, ranks: int, workers: int, lock, tick: Callable[[], None]) -> None:
    """Start workers, watch them, start again what died.

    Raises:
        UserError: a worker ended with a sentence that says why it cannot go on.
    """
    left = incomplete(stage, work, ranks)
    shares = {number: left[number::workers] for number in range(min(workers, len(left)))}
    running = {number: start(stage, work, ranks, share, lock, workers) for number, share in shares.items()}
    fruitless = dict.fromkeys(running, 0)
    ended = False
    try:
        while running:
            time.sleep(0.05)
            tick()
            for number, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[number]
                ended = ended or code == ENDED  # the others finish what they have begun
                before, still = shares[number], set(incomplete(stage, work, ranks))
                shares[number] = [rank for rank in before if rank in still]
                fruitless[number] = 0 if len(shares[number]) < len(before) else fruitless[number] + 1
                if shares[number] and not ended and fruitless[number] < STARTS:
                    running[number] = start(stage, work, ranks, shares[number], lock, workers)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if ended:
        raise UserError(error_file(stage, work).read_text())


def start(stage: str, work: Path, ranks: int, share: list[int], lock, workers: int) -> subprocess.Popen:
    """One of `workers` processes, for these ranks. It inherits the lock and ends with this process."""
    words = map(str, (work, stage, ranks, *share))
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # more threads than cores wait for each other: LDA's matrix products are then many times slower
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // workers))
    with open(work / "logs" / f"{stage}-workers.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dataset_builder.building.executors", *words],
            env={**os.environ, "PYTHONPATH": path, "RNAGPT_DRIVER": str(os.getpid()), "OMP_NUM_THREADS": threads},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock.fileno(),),
        )


def error_file(stage: str, work: Path) -> Path:
    """Where a worker that cannot go on leaves its sentence."""
    return work / "logs" / f"{stage}-error.txt"


def end_with_the_driver() -> None:
    """Linux: SIGTERM when the driver goes, however it goes. Elsewhere the lock alone protects the work folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ["RNAGPT_DRIVER"]):  # it went before the call above
        raise SystemExit(1)


def work_on(work: Path, stage: str, ranks: int, share: list[int]) -> int:
    """A worker's life: its ranks one after the other -> exit code."""
    end_with_the_driver()
    from dataset_builder.llm.language_model import Stopped

    try:
        run_ranks(work, stage, ranks, share, load(work))
        return 0
    except Stopped:
        why = "a worker was asked to end; run the same command to go on"
    except UserError as error:
        why = str(error)
    except (sqlite3.OperationalError, OSError) as error:
        why = f"{work}: {error}; see to it and run the same command to go on"
    error_file(stage, work).write_text(why)
    return ENDED


def run_ranks(work: Path, stage: str, ranks: int, share: list[int], settings: BuildSettings) -> None:
    """Run ranks in this process, one after the other; what they log goes to files."""
    one = executor(stage, work, ranks, dataclasses.replace(settings, executor="local"))
    for rank in share:
        one._run_for_rank(rank, local_rank=1)  # 0 would log to the screen


if __name__ == "__main__":
    sys.exit(work_on(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [int(rank) for rank in sys.argv[4:]]))
