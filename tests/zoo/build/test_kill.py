"""SIGKILL at random moments: the rerun comes to the same bytes, and no process stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from zoo_recipes import file_bytes, tiny_file

from hypergen.zoo.build import build_zoo, read_recipe
from hypergen.zoo.store import verify_zoo

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

# Enough work for a second or so, in parts of a tenth of it.
LONGER = ["--runs", "24", "--steps", "150", "--save_steps", "[50, 150]", "--runs_per_job", "2"]
PATIENCE = 120.0


class Build:
    """A real `python -m hypergen zoo build`, and whatever processes it starts."""

    def __init__(self, config: Path, out: Path, workers: int) -> None:
        self.mark = f"HYPERGEN_MARK_{uuid.uuid4().hex}"
        self.log = out.with_suffix(".log")
        words = ["zoo", "build", "-c", str(config), "--out", str(out), "--workers", str(workers)]
        environment = {**os.environ, self.mark: "1", "HYPERGEN_PROGRESS": "1"}
        environment.pop("HYPERGEN_QUIET", None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hypergen", *words, *LONGER],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def begins(self) -> None:
        """Waits for the progress bar, which is drawn when the folder is locked."""
        until(lambda: "tiny" in self.log.read_text() or self.process.poll() is not None)

    def end(self) -> int:
        return self.process.wait(PATIENCE)

    def family(self) -> list[int]:
        """Every living process that was started by this build."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def kill_often(folder: Path, kills: int, workers: list[int]) -> None:
    config, out = tiny_file(folder), folder / "zoo"
    build_zoo(read_recipe(config, LONGER), folder / "good", workers=1)
    good = file_bytes(folder / "good")
    moments = random.Random(kills)
    interrupted = 0
    done = 0
    while done < kills:
        build = Build(config, out, workers[done % len(workers)])
        build.begins()
        time.sleep(moments.uniform(0, 1.5))
        if build.process.poll() is None:
            build.process.send_signal(signal.SIGKILL)
            done += 1
        code = build.end()
        until(lambda build=build: not build.family())
        present = file_bytes(out)
        if code == 0:  # finished before its time: begin anew
            assert present == good
            for path in sorted(out.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            continue
        assert code == -signal.SIGKILL
        # Whatever is there under its own name is whole.
        interrupted += 0 < len(present) < len(good)
        named = {name: data for name, data in present.items() if not name.endswith(".tmp")}
        assert named.items() <= good.items()
    assert interrupted > kills // 3
    last = Build(config, out, workers[0])
    assert last.end() == 0
    until(lambda: not last.family())
    assert file_bytes(out) == good
    assert verify_zoo(out) == []


def test_three_kills(tmp_path):
    kill_often(tmp_path, 3, workers=[1, 2])


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    kill_often(tmp_path, 20, workers=[1])


@pytest.mark.slow
def test_twenty_kills_of_two_workers(tmp_path):
    kill_often(tmp_path, 20, workers=[2])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_cleanly(tmp_path, workers):
    config, out = tiny_file(tmp_path), tmp_path / "zoo"
    build = Build(config, out, workers)
    build.begins()
    build.process.send_signal(signal.SIGINT)
    # Python ends by the signal, which shells show as 130, if it hit while a module was imported.
    assert build.end() in (130, -signal.SIGINT)
    until(lambda: not build.family())
    lines = build.log.read_text()
    assert "parts are finished; the same command goes on" in lines
    assert lines.rstrip().endswith("hypergen: interrupted")
    assert "Traceback" not in lines
