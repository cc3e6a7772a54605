"""The same zoo on a Ray cluster of two workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from zoo_recipes import CountingZoo, file_bytes, tiny_file

from hypergen._utils.errors import RunError, UsageError
from hypergen.zoo.build import build_zoo, ray_engine, read_recipe
from hypergen.zoo.store import Zoo

pytestmark = [
    pytest.mark.slow,
    # Ray leaves its log files and sockets to the interpreter's end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster(monkeypatch):
    """A local cluster of two processors, whose workers find this folder's helper."""
    ray = pytest.importorskip("ray")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_cluster_makes_the_same_bytes_and_reports_failures(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(ray_engine, "_RETRIES", 0)
    recipe = read_recipe(tiny_file(tmp_path))
    build_zoo(recipe, tmp_path / "here", workers=1)
    build_zoo(recipe, tmp_path / "there", engine="ray", workers=2)
    assert file_bytes(tmp_path / "there") == file_bytes(tmp_path / "here")
    assert cluster.is_initialized()  # it was not ours to stop

    with pytest.raises(RunError, match=r"job 3 ran out of memory: count to less"):
        build_zoo(CountingZoo(fails=3), tmp_path / "memory", engine="ray", workers=1)
    assert len(Zoo(tmp_path / "memory")) == 3
    with pytest.raises(ZeroDivisionError, match="a bug"):
        build_zoo(CountingZoo(fails=0, how="bug"), tmp_path / "bug", engine="ray")
    with pytest.raises(RunError, match=r"job 1 lost its worker.*count to less"):
        build_zoo(CountingZoo(fails=1, how="kill"), tmp_path / "kill", engine="ray")


def test_a_cluster_of_its_own_is_stopped(tmp_path):
    ray = pytest.importorskip("ray")
    recipe = read_recipe(tiny_file(tmp_path), ["--runs", "4"])
    build_zoo(recipe, tmp_path / "here", workers=1)
    build_zoo(recipe, tmp_path / "there", engine="ray", workers=2)
    assert file_bytes(tmp_path / "there") == file_bytes(tmp_path / "here")
    assert not ray.is_initialized()


def test_no_cluster_at_the_address(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="there is no Ray cluster at 'auto': start one by"):
        build_zoo(CountingZoo(), tmp_path, engine="ray", address="auto")
