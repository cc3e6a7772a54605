"""Where jobs run: here, in worker processes, or on a Ray cluster; one seam for all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any

from hypergen._utils.errors import RunError, UsageError, did_you_mean
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.build.work import PackedBlock, do_job, dump_recipe, load_recipe
from hypergen.zoo.store import Block

ENGINES = ("local", "ray")

OnDone = Callable[[int, list[Block]], None]  # job, what it made
OnProgress = Callable[[float], None]  # networks trained since the last call, fractions counted

_POLL = 0.5  # seconds between two looks at the workers' progress


def run_jobs(
    recipe: Recipe,
    jobs: Iterable[int],
    engine: str = "local",
    workers: int | None = None,
    on_done: OnDone = lambda job, blocks: None,
    on_progress: OnProgress = lambda models: None,
    address: str | None = None,
) -> None:
    """Runs jobs and hands over what they make, in the order in which they finish.

    The number of jobs whose results wait is bounded. `on_done` is called in this process and
    thread, so that one writer sees everything.

    Args:
        recipe: What to run.
        jobs: Numbers of jobs.
        engine: `"local"` or `"ray"`.
        workers: Jobs that run at once; by default one for each processor, and one on a GPU.
        on_done: Takes what a job made.
        on_progress: Takes how many networks have been trained since it was called last.
        address: Ray cluster to connect to; a local one is started when not given.

    Raises:
        UsageError: An unknown engine, or options that do not fit it.
        RunError: A job or a worker failed; says what to change.
        MissingExtraError: Ray is not installed.
    """
    check_engine(engine, workers, address)
    todo = list(jobs)
    if not todo:
        return
    if engine == "ray":
        from hypergen.zoo.build.ray_engine import run_on_ray

        run_on_ray(recipe, todo, workers, on_done, on_progress, address)
        return
    count = min(len(todo), workers or default_workers(recipe))
    if count == 1:
        _run_here(recipe, todo, on_done, on_progress)
    else:
        _run_in_processes(recipe, todo, count, on_done, on_progress)


def check_engine(engine: str, workers: int | None, address: str | None) -> None:
    """Checks the options of `run_jobs`.

    Raises:
        UsageError: One of them is wrong.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine '{engine}'.{did_you_mean(engine, ENGINES)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    if address is not None and engine != "ray":
        raise UsageError("--address is for --engine ray")


def default_workers(recipe: Recipe) -> int:
    """One worker for each processor that this process may use, or one for a GPU."""
    if getattr(recipe, "device", "cpu") != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Share:
    """Turns a job's steps into networks trained: after half of the steps, half of them are."""

    def __init__(self, recipe: Recipe, job: int, report: OnProgress) -> None:
        self._per_step = recipe.models(job) / max(1, recipe.steps)
        self._report, self._models = report, recipe.models(job)
        self._told = 0.0

    def __call__(self, step: int) -> None:
        """Takes the number of steps that are done."""
        now = min(self._models, step * self._per_step)
        if now > self._told:
            self._report(now - self._told)
            self._told = now

    def finish(self) -> None:
        """Counts whatever is left."""
        if self._models > self._told:
            self._report(self._models - self._told)
            self._told = self._models


def _run_here(
    recipe: Recipe, jobs: Sequence[int], on_done: OnDone, on_progress: OnProgress
) -> None:
    for job in jobs:
        share = Share(recipe, job, on_progress)
        packed = do_job(recipe, job, share)
        on_done(job, [block.unpack() for block in packed])
        share.finish()


# -- worker processes ------------------------------------------------------------------------------

_recipe: Recipe  # of a worker
_trained: Any  # counter that a worker shares with its parent


def _start_worker(recipe: str, parent: Connection, trained: Any) -> None:
    """Prepares a worker process."""
    global _recipe, _trained
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _recipe, _trained = load_recipe(recipe), trained


def _die_with(parent: Connection) -> None:
    """Ends this process when the other end of a pipe is closed, be it by SIGKILL."""
    try:
        parent.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _count(models: float) -> None:
    with _trained.get_lock():
        _trained.value += models


def _job_in_worker(job: int) -> list[PackedBlock]:
    share = Share(_recipe, job, _count)
    packed = do_job(_recipe, job, share)
    share.finish()
    return packed


def _run_in_processes(
    recipe: Recipe, jobs: Sequence[int], workers: int, on_done: OnDone, on_progress: OnProgress
) -> None:
    """Spawned workers; each lives only as long as this process holds its end of a pipe."""
    context = multiprocessing.get_context("spawn")
    theirs, mine = context.Pipe(duplex=False)
    trained = context.Value("d", 0.0)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_start_worker,
        initargs=(dump_recipe(recipe), theirs, trained),
    )
    told = 0.0
    queue = list(jobs)
    running: dict[Future[list[PackedBlock]], int] = {}
    try:
        while queue or running:
            # One more than there are workers, so that none waits while a result is written.
            while queue and len(running) <= workers:
                job = queue.pop(0)
                running[pool.submit(_job_in_worker, job)] = job
            finished, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda f: running[f]):
                packed = future.result()
                on_done(running.pop(future), [block.unpack() for block in packed])
                del packed
            now = trained.value
            on_progress(now - told)
            told = now
        pool.shutdown()
    except BrokenProcessPool as error:
        names = ", ".join(map(str, sorted(running.values())))
        raise RunError(
            "a worker process ended without a word, as it does when the system runs out of memory, "
            f"during one of the jobs {names}: {recipe.advice}. Finished parts are kept, the same "
            "command goes on with the rest"
        ) from error
    finally:
        mine.close()  # ends every worker that is still at work
        theirs.close()
        pool.shutdown(cancel_futures=True)
