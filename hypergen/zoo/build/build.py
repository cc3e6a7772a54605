"""Builds zoos: what is missing of a recipe's parts, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.zoo.build.engine import check_engine, run_jobs
from hypergen.zoo.build.recipe import Recipe
from hypergen.zoo.store import Header, Zoo, ZooWriter
from hypergen.zoo.store.paths import ZOO_FILE
from hypergen.zoo.store.writer import first_difference, read_header


def build_zoo(
    recipe: Recipe,
    out: str | Path,
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> Zoo:
    """Builds a zoo, or what is missing of one.

    A kill at any moment loses the jobs that are running; the same call goes on and comes to the
    same bytes, whatever the number of workers.

    Worker processes import the script that calls this: with more than one worker, keep the call
    under `if __name__ == "__main__":`.

    Args:
        recipe: What to build.
        out: Folder of the zoo.
        engine: `"local"` (worker processes) or `"ray"` (a cluster).
        workers: Jobs that run at once; one for each processor when not given.
        address: Ray cluster; a local one is started when not given.

    Returns:
        The zoo.

    Raises:
        UsageError: The folder holds another zoo or other files, another job is at work in it, or an
            option does not fit.
        RunError: A job failed or the disk is full; the finished parts are kept.
    """
    check_engine(engine, workers, address)
    out = Path(out)
    header = recipe.header()
    _check_recipe(out, header)
    try:
        writer = ZooWriter(out, header)
    except OSError as error:
        raise UsageError(f"{out} cannot be written to: {error.strerror}") from error
    with writer:
        todo = [job for job in range(recipe.jobs()) if job not in writer.done]
        total = sum(map(recipe.models, todo))
        with progress(total=total, desc=recipe.name, unit=" models") as bar:
            run_jobs(
                recipe,
                todo,
                engine=engine,
                workers=workers,
                on_done=writer.write,
                on_progress=_Whole(bar),
                address=address,
            )
    return Zoo(out)


class _Whole:
    """Moves a bar by whole networks while fractions of them come in."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._models = 0.0
        self._shown = 0

    def __call__(self, models: float) -> None:
        self._models += models
        whole = int(self._models + 1e-6)
        self._bar.update(whole - self._shown)
        self._shown = whole


def _check_recipe(out: Path, header: Header) -> None:
    """Compares with the recipe that a folder was begun with.

    Raises:
        UsageError: They differ; names the first option that does.
    """
    if not (out / ZOO_FILE).is_file():
        return
    old = read_header(out).provenance.get("recipe")
    difference = first_difference(old, header.provenance.get("recipe"))
    if difference is not None:
        raise UsageError(
            f"{out} holds a zoo of another recipe: {difference}. Choose another --out, or build "
            "with the recipe that it was begun with"
        )
