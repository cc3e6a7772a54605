"""The run folder: complete, whole, quiet."""

from __future__ import annotations

import csv
import signal
import sys

import pytest
import torch
import toy
import yaml
from lightning.pytorch import Callback

import hypergen
from hypergen.errors import MissingExtraError, UsageError, WeightsError
from hypergen.training import fit
from hypergen.zoo import TaskSuite


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_folder_is_complete(tmp_path):
    data = toy.ToyData()
    built = toy.module(data, ema_decay=0.9)
    trainer = fit(built, data, tmp_path / "run", max_steps=12, val_every=6, log_every=4)
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*.*")}
    assert found == {
        "config.yaml",
        "metrics.csv",
        "suite.json",
        "checkpoints/last.ckpt",
        "generator/generator.json",
        "generator/generator.safetensors",
        "generator/README.md",
    }
    text = "is it loud or soft"
    loaded = hypergen.load(tmp_path / "run")
    assert torch.equal(loaded.generate(text).flat(), built.generator.generate(text).flat())
    assert loaded.provenance["steps"] == 12
    assert isinstance(TaskSuite.load(tmp_path / "run"), toy.ToySuite)
    assert trainer.global_step == 12
    assert not built.generator.training


def test_metrics_have_a_row_for_each_logged_step(tmp_path):
    data = toy.ToyData()
    fit(toy.module(data), data, tmp_path, max_steps=12, val_every=6, log_every=4)
    table = rows(tmp_path)
    assert [row["step"] for row in table] == ["4", "6", "8", "12"]
    assert set(table[0]) == {"step", "epoch", "train/loss", "train/lr", "val/loss", "val/score"}
    assert [bool(row["train/loss"]) for row in table] == [True, False, True, True]
    assert [bool(row["val/score"]) for row in table] == [False, True, False, True]


def test_the_logged_loss_is_the_mean_since_the_last_log(tmp_path):
    losses = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, *args):
            losses.append(float(outputs["loss"]))

    data = toy.ToyData()
    fit(toy.module(data), data, tmp_path, max_steps=6, log_every=3, callbacks=[Record()])
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [float(row["train/loss"]) for row in rows(tmp_path)] == pytest.approx(means, rel=1e-6)


def test_the_config_records_the_settings(tmp_path):
    data = toy.ToyData(seed=3)
    fit(toy.module(data, lr=0.02), data, tmp_path, max_steps=2)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["lr"] == 0.02
    assert config["model"]["objective"] == "task"
    assert config["model"]["generator"]["class_path"] == "MLPGenerator"
    assert config["model"]["generator"]["init_args"]["hidden"] == 16
    assert config["data"]["class_path"] == "toy.ToyData"
    assert config["data"]["init_args"]["seed"] == 3
    assert config["trainer"]["max_steps"] == 2


def test_a_new_run_replaces_the_old_one_and_nothing_else(tmp_path):
    data = toy.ToyData()
    fit(toy.module(data), data, tmp_path, max_steps=8, log_every=2)
    (tmp_path / "notes.txt").write_text("mine")
    fit(toy.module(data), data, tmp_path, max_steps=4, log_every=2)
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4"]
    assert hypergen.load(tmp_path).provenance["steps"] == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = toy.ToyData()
    fit(toy.module(data, ema_decay=0.5), data, max_steps=3, val_every=3)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(tmp_path, capfd):
    data = toy.ToyData()
    fit(toy.module(data, ema_decay=0.5), data, tmp_path, max_steps=3, val_every=3)
    assert capfd.readouterr() == ("", "")


def test_the_bar_goes_to_standard_error(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HYPERGEN_QUIET", "0")
    monkeypatch.setenv("HYPERGEN_PROGRESS", "1")
    data = toy.ToyData()
    fit(toy.module(data), data, max_steps=3, desc="learning")
    out, err = capfd.readouterr()
    assert out == ""
    assert "learning: 100%" in err
    assert "3/3" in err


def test_global_random_numbers_and_threads_are_left_alone():
    data = toy.ToyData()
    built = toy.module(data)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    fit(built, data, max_steps=3)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        data = toy.ToyData()
        fit(toy.module(data, ema_decay=0.5), data, tmp_path / name, max_steps=6)
    file = "generator/generator.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    class Break(Callback):
        def on_train_end(self, trainer, pl_module):
            with torch.no_grad():
                next(pl_module.generator.parameters()).fill_(float("inf"))

    data = toy.ToyData()
    with pytest.raises(WeightsError, match="NaN or infinity"):
        fit(toy.module(data), data, tmp_path, max_steps=2, callbacks=[Break()])
    assert not (tmp_path / "generator").exists()


def test_an_interrupt_is_passed_on_and_the_checkpoint_stays(tmp_path):
    class Press(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    data = toy.ToyData()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(toy.module(data), data, tmp_path, max_steps=9, checkpoint_every=2, callbacks=[Press()])
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "generator").exists()
    assert fit(toy.module(data), data, tmp_path, max_steps=9, resume=True).global_step == 9


# -- loggers


def test_tensorboard_by_flag(tmp_path):
    data = toy.ToyData()
    fit(toy.module(data), data, tmp_path, max_steps=4, log_every=2, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(events.Scalars("train/loss")) == 2
    assert [row["step"] for row in rows(tmp_path)] == ["2", "4"]


def test_wandb_by_flag_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    data = toy.ToyData()
    fit(toy.module(data), data, tmp_path, max_steps=4, log_every=2, wandb=True)
    import wandb

    wandb.finish()
    (record,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert record.stat().st_size > 0
    assert not list(tmp_path.rglob("*.ckpt.*"))


def test_a_missing_logger_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    data = toy.ToyData()
    with pytest.raises(MissingExtraError, match=r"pip install 'hypergen\[wandb\]'"):
        fit(toy.module(data), data, tmp_path, max_steps=1, wandb=True)


# -- mistakes


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    data = toy.ToyData()
    with pytest.raises(UsageError, match="run is not a folder"):
        fit(toy.module(data), data, tmp_path / "run", max_steps=1)


def test_loggers_need_a_folder():
    data = toy.ToyData()
    with pytest.raises(UsageError, match="need a run folder"):
        fit(toy.module(data), data, max_steps=1, tensorboard=True)


def test_checkpoints_need_a_positive_distance(tmp_path):
    data = toy.ToyData()
    with pytest.raises(UsageError, match="checkpoint_every must be at least 1, not 0"):
        fit(toy.module(data), data, tmp_path, max_steps=1, checkpoint_every=0)
