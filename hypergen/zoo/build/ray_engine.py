"""Jobs on a Ray cluster (Moritz et al., OSDI 2018, arXiv:1712.05889)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.extras import require
from hypergen.zoo.build.engine import OnDone, OnProgress
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.build.work import PackedBlock, do_job, dump_recipe, load_recipe

_RETRIES = 3  # of a job whose machine is lost


def run_on_ray(
    recipe: Recipe,
    jobs: Sequence[int],
    workers: int | None,
    on_done: OnDone,
    on_progress: OnProgress,
    address: str | None,
) -> None:
    """Runs jobs as Ray tasks of one processor each; see `run_jobs`.

    Args:
        recipe: What to run. It and its data must be readable on every machine.
        jobs: Numbers of jobs.
        workers: Jobs at once; as many as the cluster has processors when not given.
        on_done: Takes what a job made.
        on_progress: Takes how many networks were trained.
        address: The cluster, `"auto"` for the one of this machine; without it a local one is
            started, and stopped at the end.
    """
    ray = require("ray", "zoo", "--engine ray")
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, address, workers)
    try:
        _run(ray, recipe, jobs, workers, on_done, on_progress)
    finally:
        if mine:
            ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"there is no Ray cluster at {address!r}: start one by `ray start --head`, or leave "
            "out --address"
        ) from error


def _run(
    ray: Any,
    recipe: Recipe,
    jobs: Sequence[int],
    workers: int | None,
    on_done: OnDone,
    on_progress: OnProgress,
) -> None:
    resources = {"num_cpus": 1, "max_retries": _RETRIES}
    if getattr(recipe, "device", "cpu") != "cpu":
        resources["num_gpus"] = 1
    task = ray.remote(**resources)(_job_on_ray)
    text = ray.put(dump_recipe(recipe))
    most = (workers or max(1, int(ray.cluster_resources().get("CPU", 1)))) + 1
    queue = list(jobs)
    running: dict[Any, int] = {}
    while queue or running:
        while queue and len(running) < most:
            job = queue.pop(0)
            running[task.remote(text, job)] = job
        for reference in ray.wait(list(running), num_returns=1)[0]:
            job = running.pop(reference)
            try:
                packed = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # what the job raised
            except (ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError) as error:
                raise RunError(
                    f"job {job} lost its worker, as it does when the system runs out of memory: "
                    f"{recipe.advice}. Finished parts are kept, the same command goes on with the "
                    "rest"
                ) from error
            on_done(job, [block.unpack() for block in packed])
            on_progress(recipe.models(job))


def _job_on_ray(recipe: str, job: int) -> list[PackedBlock]:
    return do_job(load_recipe(recipe), job)
