"""Generators that train a codec, then a denoiser, in one fit: exact resume, averaging, rates."""

from __future__ import annotations

import csv

import pytest
import torch
import toy
from lightning.pytorch import Callback

import hypergen
from hypergen.generators import DiffusionGenerator
from hypergen.training import GeneratorEMA, GeneratorModule, fit
from hypergen.training.optim import lr_factor

FIRST, STEPS = 8, 20
CODEC = {"name": "ConvCodec", "latent": 6, "channels": [4], "kernel": 5, "stride": 4}
MLP = {"name": "MLPDenoiser", "hidden": 16, "time_dim": 8}


class Watch(Callback):
    """Copies parameters after every step, and breaks off after one as a crash would."""

    def __init__(self, stop=None):
        self.stop, self.steps, self.stages = stop, [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append({n: p.detach().clone() for n, p in named(pl_module)})
        self.stages.append(pl_module.generator.stage)
        if trainer.global_step == self.stop:
            raise RuntimeError("stopped")

    def on_train_end(self, trainer, pl_module):
        ema = [c for c in trainer.callbacks if isinstance(c, GeneratorEMA)]
        self.average = dict(ema[0].average) if ema else None


def named(module):
    return list(module.generator.named_parameters())


def run(folder, watch, codec=CODEC, **options):
    data = toy.ToyData(epoch=5)
    torch.manual_seed(0)
    generator = DiffusionGenerator(
        data.spec,
        data.encoder,
        codec=codec,
        denoiser=MLP,
        process={"name": "FlowMatching", "steps": 2},
        codec_steps=FIRST,
    )
    module = GeneratorModule(generator, "denoising", lr=3e-3, ema_decay=0.5)
    settings = {"max_steps": STEPS, "log_every": 3, "checkpoint_every": 4, **options}
    fit(module, data, folder, callbacks=[watch], **settings)
    return module


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder, watch = tmp_path_factory.mktemp("runs") / "a", Watch()
    return run(folder, watch), watch, folder


@pytest.mark.parametrize("stop", [6, 8, 9, 14])  # before, at and after the end of the first stage
def test_resumed_is_straight_bit_by_bit(straight, stop, tmp_path):
    folder = tmp_path / "b"
    with pytest.raises(RuntimeError, match="stopped"):
        run(folder, Watch(stop))
    run(folder, Watch(), resume=True)
    for name in ("metrics.csv", "generator/generator.safetensors", "generator/generator.json"):
        assert (folder / name).read_bytes() == (straight[2] / name).read_bytes()


def test_a_resumed_run_finds_the_same_components(tmp_path):
    codec = {"name": "PCACodec", "components": 0.9}
    runs = {name: tmp_path / name for name in ("a", "b")}
    run(runs["a"], Watch(), codec)
    with pytest.raises(RuntimeError, match="stopped"):
        run(runs["b"], Watch(10), codec)
    run(runs["b"], Watch(), codec, resume=True)
    a, b = ((r / "generator/generator.safetensors").read_bytes() for r in runs.values())
    assert a == b


def test_each_stage_trains_its_own_part(straight):
    _, watch, folder = straight
    assert watch.stages == [1] * (FIRST - 1) + [2] * (STEPS - FIRST + 1)
    for step, (before, after) in enumerate(zip(watch.steps, watch.steps[1:], strict=False), 2):
        moved = {n.split(".")[0] for n in after if not torch.equal(before[n], after[n])}
        assert moved <= ({"codec"} if step <= FIRST else {"denoiser", "null"})
        assert ("codec" if step <= FIRST else "denoiser") in moved
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The stage that training is in after the row's step.
    assert [float(row["train/stage"]) for row in rows] == [1, 1, 2, 2, 2, 2]


def test_the_average_keeps_the_codec_and_begins_with_the_second_stage(straight):
    module, watch, folder = straight
    last = watch.steps[-1]
    codec = [n for n in last if n.startswith("codec.")]
    assert codec
    assert all(torch.equal(watch.average[n], last[n]) for n in codec)
    assert all(torch.equal(watch.average[n], watch.steps[FIRST - 1][n]) for n in codec)
    # By the formula, from the parameters as they were when the second stage began.
    name = "denoiser.head.weight"
    average = watch.steps[FIRST - 1][name]
    for n, step in enumerate(watch.steps[FIRST - 1 :]):
        average = torch.lerp(average, step[name], 1 - min(0.5, (1 + n) / (10 + n)))
    assert torch.allclose(watch.average[name], average, atol=1e-6)
    trained = dict(named(module))  # the average took their place
    assert torch.equal(trained[name].detach(), watch.average[name])
    loaded = hypergen.load(folder)
    assert torch.equal(
        loaded.generate("say yes", seed=1).flat(),
        module.generator.generate("say yes", seed=1).flat(),
    )


def test_each_stage_has_its_own_schedule():
    rates = [lr_factor(s, total=100, warmup=0.1, first=40) for s in range(100)]
    assert rates[:40] == [lr_factor(s, total=40, warmup=0.1) for s in range(40)]
    assert rates[40:] == [lr_factor(s, total=60, warmup=0.1) for s in range(60)]
    whole = [lr_factor(s, total=100, warmup=0.1) for s in range(100)]
    assert [lr_factor(s, total=100, warmup=0.1, first=100) for s in range(100)] == whole
