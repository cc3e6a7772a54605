"""A run that was stopped and resumed ends in the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy
from lightning.pytorch import Callback

from hypergen.errors import RunError, RunNotFoundError
from hypergen.training import fit

STEPS, EPOCH = 20, 5


class Stop(Callback):
    """Breaks off after a step, as a crash would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def settings(name):
    """Data module, module and trainer options of a case, made anew."""
    data = toy.ToyData(epoch=EPOCH, learnt=name == "learnt", temperature=1.0)
    objective = {"task": 1.0, "reconstruction": 0.1} if name == "mixed" else "task"
    options = {"accumulate_grad_batches": 3} if name == "accumulated" else {}
    built = toy.module(data, objective=objective, ema_decay=0.9 if name == "ema" else 0.0)
    return data, built, {"max_steps": STEPS, "val_every": 5, "log_every": 3, **options}


def run(name, folder, **options):
    data, built, given = settings(name)
    fit(built, data, folder, **{**given, **options})
    return built


def files(folder) -> dict[str, bytes]:
    """What a run leaves, but for the checkpoint."""
    names = ("metrics.csv", "generator/generator.safetensors", "generator/generator.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("every", [5, 7])  # at the end of an epoch, and in the middle of one
@pytest.mark.parametrize("name", ["plain", "ema", "mixed", "learnt", "accumulated"])
def test_resumed_is_straight_bit_by_bit(tmp_path, name, every):
    straight = run(name, tmp_path / "a", checkpoint_every=every)
    with pytest.raises(RuntimeError, match="stopped"):
        run(name, tmp_path / "b", checkpoint_every=every, callbacks=[Stop(2 * every + 1)])
    assert not (tmp_path / "b" / "generator").exists()
    torch.manual_seed(99)  # whatever the new process drew before
    torch.rand(5)
    resumed = run(name, tmp_path / "b", checkpoint_every=every, resume=True)
    expected, got = straight.generator.state_dict(), resumed.generator.state_dict()
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_dropout_is_really_at_work(tmp_path):
    data, built, given = settings("plain")
    fit(built, data, **given)
    other = toy.module(data, seed=1)  # another seed of the noise, the same start and batches
    fit(other, data, **given)
    a, b = built.generator.state_dict(), other.generator.state_dict()
    assert any(not torch.equal(a[key], b[key]) for key in a)


def test_a_finished_run_can_be_prolonged(tmp_path):
    run("ema", tmp_path / "a", max_steps=10, checkpoint_every=100)
    data, built, given = settings("ema")
    built.schedule = "constant"
    trainer = fit(built, data, tmp_path / "a", **{**given, "max_steps": 14, "resume": True})
    assert trainer.global_step == 14
    assert trainer.fit_loop.epoch_loop.total_batch_idx == 13


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(RunNotFoundError, match=r"last\.ckpt does not exist: there is nothing to"):
        run("plain", tmp_path, resume=True)


def test_a_damaged_checkpoint_is_named_and_left(tmp_path):
    run("plain", tmp_path, max_steps=2)
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"last\.ckpt is not a readable checkpoint"):
        run("plain", tmp_path, resume=True)


def test_a_checkpoint_of_another_generator_is_refused(tmp_path):
    run("plain", tmp_path, max_steps=2)
    data, _, given = settings("plain")
    torch.manual_seed(0)
    other = toy.MLPGenerator(data.spec, data.encoder, hidden=24, depth=1)
    with pytest.raises(RunError, match="in the checkpoint"):
        fit(toy.GeneratorModule(other), data, tmp_path, **{**given, "resume": True})


RECIPE = """
data:
  class_path: toy.ToyData
  init_args: {epoch: 30}
model:
  generator:
    class_path: MLPGenerator
    init_args: {hidden: 16, depth: 1, dropout: 0.1}
  ema_decay: 0.9
trainer:
  max_steps: 1500
  accelerator: cpu
checkpoint_every: 20
"""


@pytest.mark.slow
def test_a_killed_process_resumes(tmp_path, child_env):
    (tmp_path / "toy.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "hypergen", "fit", "-c", "toy.yaml", "--run"]
    subprocess.run([*command, "straight"], cwd=tmp_path, env=child_env, check=True, timeout=300)
    child = subprocess.Popen([*command, "killed"], cwd=tmp_path, env=child_env)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "generator").exists()
    subprocess.run(
        [*command, "killed", "--resume"], cwd=tmp_path, env=child_env, check=True, timeout=300
    )
    assert files(tmp_path / "straight") == files(tmp_path / "killed")
    assert not list(Path(tmp_path / "killed").rglob("*.tmp"))
