"""Folders of zoos: the same bytes however they come about, and what cannot be built."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from zoo_recipes import CountingZoo, file_bytes, tiny_file

from hypergen import zoo as zoo_package
from hypergen._utils.errors import RunError, UsageError
from hypergen.zoo.build import build_zoo, read_recipe
from hypergen.zoo.store import Zoo, ZooWriter, verify_zoo, writer
from hypergen.zoo.store.paths import part_path


@pytest.fixture
def tiny(tmp_path):
    return read_recipe(tiny_file(tmp_path))


def test_a_zoo_holds_what_the_recipe_says(tiny, tmp_path):
    zoo = build_zoo(tiny, tmp_path / "zoo", workers=1)
    assert zoo_package.build_zoo is build_zoo
    assert isinstance(zoo, zoo_package.Zoo)
    assert (len(zoo), zoo.complete) == (30, True)
    assert verify_zoo(tmp_path / "zoo") == []
    view = zoo.select(architecture="mlp-5", step="last")
    network = view.spec.unpack(view.flat()[0])
    assert sum(tensor.numel() for tensor in network.values()) == 64 * 5 + 5 + 5 * 10 + 10


def test_workers_do_not_change_a_byte(tiny, tmp_path):
    build_zoo(tiny, tmp_path / "one", workers=1)
    torch.set_num_threads(2)
    build_zoo(tiny, tmp_path / "two", workers=2)
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "two")


def test_only_what_is_missing_is_built(tiny, tmp_path, monkeypatch):
    out = tmp_path / "zoo"
    build_zoo(tiny, out, workers=1)
    before = file_bytes(out)
    part_path(out, 1).unlink()
    part_path(out, 3).unlink()
    jobs = []
    run = type(tiny).run
    monkeypatch.setattr(
        type(tiny), "run", lambda self, job, step=None: jobs.append(job) or run(self, job, step)
    )
    build_zoo(tiny, out, workers=1)
    assert jobs == [1, 3]
    assert file_bytes(out) == before


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--steps", "7"], "steps is 6 there and 7 here"),
        (["--network.hidden", "[7]"], r"network\.init_args\.hidden is \[6\] there and \[7\] here"),
        (["--widths", "[]"], "widths is"),
        (["--lr", "0.01"], r"lr is .* there and 0\.01 here"),
    ],
)
def test_another_recipe_on_the_folder_is_refused(tmp_path, words, field):
    path = tiny_file(tmp_path)
    out = tmp_path / "zoo"
    build_zoo(read_recipe(path, ["--runs", "2"]), out, workers=1)
    before = file_bytes(out)
    with pytest.raises(UsageError, match=rf"zoo holds a zoo of another recipe: {field}"):
        build_zoo(read_recipe(path, ["--runs", "2", *words]), out, workers=1)
    assert file_bytes(out) == before


def test_the_second_builder_stops(tiny, tmp_path):
    first = ZooWriter(tmp_path / "zoo", tiny.header())
    with pytest.raises(UsageError, match="another job is writing to"):
        build_zoo(tiny, tmp_path / "zoo", workers=1)
    first.close()
    assert build_zoo(tiny, tmp_path / "zoo", workers=1).complete


def test_a_full_disk_loses_nothing(tiny, tmp_path, monkeypatch):
    build_zoo(tiny, tmp_path / "good", workers=1)
    out, written = tmp_path / "zoo", []
    whole = writer.write_shard

    def full(path, *rest):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return whole(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_shard", full)
        with pytest.raises(RunError, match=r"the disk of .* is full.*free some space"):
            build_zoo(tiny, out, workers=1)
    assert 0 < len(Zoo(out)) < 30
    build_zoo(tiny, out, workers=1)
    assert file_bytes(out) == file_bytes(tmp_path / "good")


def test_a_network_that_diverges_is_quarantined_and_disturbs_nobody(tmp_path):
    path = tiny_file(tmp_path)
    words = ["--optimizer", "sgd", "--lr", "{choice: [0.01, 1e30]}"]
    zoo = build_zoo(read_recipe(path, words), tmp_path / "zoo", workers=1)
    wild = {row.run for row in zoo.quarantined}
    assert wild == {row.run for row in zoo if row.step == 0 and row.hyperparameters["lr"] > 1}
    assert 0 < len(wild) < 10
    assert {row.step for row in zoo if row.run in wild} == {0}
    assert all("NaN or infinity" in row.quarantined for row in zoo.quarantined)
    assert len(zoo) + len(zoo.quarantined) == 30
    assert all(row.metrics["test"]["loss"] < 10 for row in zoo if row.run not in wild)
    assert verify_zoo(tmp_path / "zoo") == []


def test_what_was_finished_before_a_failure_stays(tmp_path):
    with pytest.raises(RunError, match="job 2 ran out of memory"):
        build_zoo(CountingZoo(fails=2), tmp_path, workers=1)
    assert sorted(row.run for row in Zoo(tmp_path)) == ["run-0", "run-1"]


def test_a_folder_that_is_something_else(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="file is not a folder"):
        build_zoo(tiny, tmp_path / "file", workers=1)
    with pytest.raises(UsageError, match="cannot be written to"):
        build_zoo(tiny, tmp_path / "file" / "zoo", workers=1)
    with pytest.raises(UsageError, match="holds files but no zoo"):
        build_zoo(tiny, tmp_path, workers=1)


@pytest.mark.slow
def test_a_recipe_that_a_script_defines_reaches_the_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import dataclass\n"
        "from zoo_recipes import CountingZoo\n"
        "from hypergen.zoo import build_zoo\n"
        "@dataclass(frozen=True)\n"
        "class Mine(CountingZoo):\n"
        "    pass\n"
        "if __name__ == '__main__':\n"
        "    print(len(build_zoo(Mine(), 'zoo', workers=2)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
