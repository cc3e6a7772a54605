"""Averaged weights: of the generator alone, by the formula, in validation and at the end."""

from __future__ import annotations

import pytest
import torch
import toy
from lightning.pytorch import Callback

from hypergen.errors import RunError, UsageError
from hypergen.training import GeneratorEMA, fit


class Record(Callback):
    """Copies the generator's parameters and the averaging's state along the way."""

    def __init__(self):
        self.steps, self.validated, self.trained = [], [], []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append(copy(pl_module))

    def on_validation_epoch_start(self, trainer, pl_module):
        self.validated.append(copy(pl_module))

    def on_train_batch_start(self, trainer, pl_module, *args):
        self.trained.append(copy(pl_module))

    def on_train_end(self, trainer, pl_module):
        self.ema = next(c for c in trainer.callbacks if isinstance(c, GeneratorEMA))
        self.average = dict(self.ema.average)


def copy(module):
    return {n: p.detach().clone() for n, p in module.generator.named_parameters()}


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def close(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-7) for k in a)


@pytest.fixture(scope="module")
def trained():
    data = toy.ToyData()
    built = toy.module(data, ema_decay=0.3, lr=1e-2)
    start, record = copy(built), Record()
    fit(built, data, max_steps=6, val_every=3, callbacks=[record])
    return data, built, start, record


def test_it_averages_by_the_formula_with_a_warm_up(trained):
    _, _, start, record = trained
    average = start
    averages = []
    for n, step in enumerate(record.steps):
        decay = min(0.3, (1 + n) / (10 + n))
        average = {k: decay * average[k] + (1 - decay) * step[k] for k in average}
        averages.append(average)
    assert close(record.average, averages[-1])
    assert [close(v, averages[i]) for v, i in zip(record.validated, (2, 5), strict=True)] == [
        True,
        True,
    ]


def test_training_goes_on_from_the_parameters_not_the_average(trained):
    _, _, _, record = trained
    assert all(equal(a, b) for a, b in zip(record.steps[:-1], record.trained[1:], strict=True))


def test_the_average_is_the_result(trained):
    _, built, _, record = trained
    assert equal(copy(built), record.average)
    assert not equal(copy(built), record.steps[-1])


def test_only_the_generator_is_averaged(trained):
    # Lightning's EMAWeightAveraging copies the frozen target with the module.
    data, built, _, record = trained
    count = sum(p.numel() for p in built.generator.parameters())
    assert sum(a.numel() for a in record.average.values()) == count
    assert sum(p.numel() for p in data.target.parameters()) > 0


def test_the_saved_generator_is_the_average(tmp_path):
    data = toy.ToyData()
    built, record = toy.module(data, ema_decay=0.5), Record()
    fit(built, data, tmp_path, max_steps=4, callbacks=[record])
    from hypergen.generators import load

    assert equal(dict(load(tmp_path).named_parameters()), record.average)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    raw = {k.removeprefix("generator."): v for k, v in checkpoint["state_dict"].items()}
    assert equal({k: raw[k] for k in record.average}, record.steps[-1])
    assert equal(checkpoint["callbacks"]["GeneratorEMA"]["average"], record.average)


def test_accumulated_gradients_count_as_one_update():
    data = toy.ToyData()
    built, record = toy.module(data, ema_decay=0.5), Record()
    fit(built, data, max_steps=3, callbacks=[record], accumulate_grad_batches=2)
    assert record.ema.updates == 3
    assert len(record.steps) == 6


def test_an_error_in_validation_does_not_leave_them_exchanged():
    data = toy.ToyData()
    built, record = toy.module(data, ema_decay=0.5), Record()

    def fail(*args):
        raise RuntimeError("broken")

    data.score = fail
    with pytest.raises(RuntimeError, match="broken"):
        fit(built, data, max_steps=3, val_every=3, callbacks=[record])
    assert equal(copy(built), record.steps[-1])


def test_without_a_decay_nothing_is_averaged():
    assert toy.module(toy.ToyData()).configure_callbacks() == []


def test_an_average_of_another_generator_is_refused(tmp_path):
    data = toy.ToyData()
    ema = GeneratorEMA(0.9)
    ema.load_state_dict({"updates": 3, "average": {"a": torch.ones(2)}})
    with pytest.raises(RunError, match="another generator"):
        fit(toy.module(data), data, max_steps=1, callbacks=[ema])


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(UsageError, match="ema_decay"):
        GeneratorEMA(1.0)
