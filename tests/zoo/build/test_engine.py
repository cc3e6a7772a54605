"""Jobs in this process and in worker processes: results, failures, and nobody left behind."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch
from zoo_recipes import CountingZoo

from hypergen._utils.errors import MissingExtraError, RunError, UsageError
from hypergen.zoo.build.engine import Share, default_workers, run_jobs
from hypergen.zoo.build.work import PackedBlock, one_thread
from hypergen.zoo.store import Block, Row


def collect(recipe, jobs, **options) -> dict[int, list[float]]:
    done = {}
    run_jobs(
        recipe,
        jobs,
        on_done=lambda job, blocks: done.update({job: blocks[0].weights[0].tolist()}),
        **options,
    )
    return done


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_on_one_thread(workers):
    expected = {job: [job, 1, 0] for job in (0, 2, 3)}
    models = []
    torch.set_num_threads(2)
    found = collect(CountingZoo(), [0, 2, 3], workers=workers, on_progress=models.append)
    assert found == expected
    assert torch.get_num_threads() == 2
    assert sum(models) == pytest.approx(3)
    assert multiprocessing.active_children() == []


def test_nothing_to_do_starts_nothing():
    assert collect(CountingZoo(), [], engine="ray") == {}


@pytest.mark.parametrize("how", ["memory", "torch"])
def test_a_job_without_memory_says_what_to_change(how):
    with pytest.raises(RunError, match=r"job 2 ran out of memory: count to less\. Finished"):
        collect(CountingZoo(fails=2, how=how), range(4), workers=1)


def test_failures_of_workers_arrive_and_no_worker_stays():
    done = {}
    with pytest.raises(RunError, match=r"job 2 ran out of memory: count to less"):
        run_jobs(
            CountingZoo(fails=2),
            range(4),
            workers=2,
            on_done=lambda job, blocks: done.update({job: blocks}),
        )
    assert done
    assert 2 not in done
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_bug_in_a_worker_shows_itself():
    with pytest.raises(ZeroDivisionError, match="a bug"):
        collect(CountingZoo(fails=0, how="bug"), range(4), workers=2)
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_is_reported():
    with pytest.raises(RunError, match=r"a worker process ended without a word.*count to less"):
        collect(CountingZoo(fails=1, how="kill"), range(3), workers=2)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_interruption_while_writing_ends_the_workers():
    def interrupt(job, blocks):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(CountingZoo(count=50), range(50), workers=2, on_done=interrupt)
    assert time.monotonic() - start < 60
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "locla"}, "no engine 'locla'. Did you mean 'local'?"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"address": "auto"}, "--address is for --engine ray"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError) as caught:
        run_jobs(CountingZoo(), [0], **options)
    assert message in str(caught.value)


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs the 'zoo' extra"):
        run_jobs(CountingZoo(), [0], engine="ray")


def test_workers_by_default():
    assert default_workers(CountingZoo()) == len(os.sched_getaffinity(0))
    assert default_workers(CountingZoo(device="cuda")) == 1


def test_steps_become_shares_of_the_networks():
    told = []
    share = Share(CountingZoo(steps=4), 0, told.append)
    for step in (1, 2, 2, 4, 9):
        share(step)
    assert told == [0.25, 0.25, 0.5]
    share.finish()
    assert sum(told) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_packed_block_comes_out_as_it_was(dtype):
    weights = torch.randn(2, 3).to(dtype)
    weights[0, 1] = float("nan")
    rows = [Row("a", 0, "net"), Row("a", 1, "net")]
    packed = PackedBlock.pack(Block("net", weights, rows))
    packed.data.flags.writeable = False
    block = packed.unpack()
    assert torch.equal(block.weights.view(torch.uint8), weights.view(torch.uint8))
    assert (block.architecture, block.rows) == ("net", rows)


def test_threads_come_back_after_a_failure():
    torch.set_num_threads(2)
    seen = []

    def fail():
        with one_thread():
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [1]
    assert torch.get_num_threads() == 2
