"""Processes and samplers, by cases whose answer is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hypergen._utils import extras
from hypergen._utils.seeding import generator as seeded
from hypergen.errors import MissingExtraError, SpecError
from hypergen.generators.diffusion import Diffusion, FlowMatching, Process
from hypergen.generators.diffusion.ddpm import signal_levels

MEAN, STD = 7.0, 0.4  # of Gaussian data: far outside of ±1, where images end
DIFFUSIONS = [
    Diffusion(prediction, schedule, sampler=sampler, steps=steps, variance=variance)
    for prediction in ("noise", "data", "velocity")
    for schedule in ("linear", "cosine")
    for sampler, steps, variance in (
        ("ddpm", 200, "large"),
        ("ddim", 200, "small"),
        ("dpm++", 30, "small"),
        ("euler", 200, "small"),
    )
]
FLOWS = [
    FlowMatching(prediction, sampler, steps)
    for prediction in ("velocity", "data")
    for sampler, steps in (("euler", 200), ("heun", 40), ("rk4", 20))
]
name = lambda p: "-".join(str(v) for v in p.options.values())  # noqa: E731
every = pytest.mark.parametrize("process", DIFFUSIONS + FLOWS, ids=name)


def best(process: Process):
    """The optimal prediction for data N(MEAN, STD²), in closed form."""

    def predict(x, time):
        a, s = process.levels(time)
        gain = a * STD**2 / ((a * STD).square() + s.square())
        return process.of_data(x, MEAN + gain * (x - a * MEAN), time)

    return predict


@every
def test_gaussian_data_come_back(process):
    noise = torch.randn(250, 4, 4, generator=torch.Generator().manual_seed(0))
    generators = [seeded("row", i) for i in range(len(noise))]
    out = process.sample(best(process), noise, generators)
    # Far outside of ±1: whatever clips samples, as diffusers' schedulers do by default, fails here.
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(out.std()) == pytest.approx(STD, rel=0.06)


@every
def test_predictions_say_the_same(process):
    draw = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 6, 3, 2, generator=draw)
    time = process.draw(6, draw)
    x = process.corrupt(data, noise, time)
    output = process.target(data, noise, time)
    assert torch.allclose(process.to_data(x, output, time), data, atol=1e-3)
    assert torch.allclose(process.of_data(x, data, time), output, atol=2e-2)
    again = Process.from_dict(process.to_dict())
    assert torch.equal(again.target(data, noise, time), output)


@pytest.mark.parametrize("process", [Diffusion(), Diffusion(levels=10, steps=10), FlowMatching()])
def test_times_lie_between_data_and_noise(process):
    time = process.draw(2000, torch.Generator().manual_seed(0))
    assert float(time.min()) > 0
    assert float(time.max()) <= 1
    assert float(time.mean()) == pytest.approx(0.5, abs=0.06)
    a, s = process.levels(time)
    assert a.shape == s.shape == (2000, 1, 1)
    order = time.argsort()
    assert bool((a.flatten()[order].diff() <= 0).all())
    assert bool((s.flatten()[order].diff() >= 0).all())


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "euler"])
@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_few_steps_of_any_number_end_at_the_data(sampler, steps):
    """With one data point, the right prediction leads to it exactly, however few the steps."""
    process = Diffusion("data", "cosine", sampler=sampler, steps=steps)
    point = 5 * torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1))
    times = []

    def predict(x, time):
        times.append(float(time[0]))
        return point.expand_as(x)

    out = process.sample(predict, noise, [seeded(i) for i in range(4)])
    assert torch.allclose(out, point.expand_as(out), atol=2e-3)
    assert len(times) == steps
    assert times[0] == 1
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("process", [Diffusion(sampler="ddpm", steps=9), FlowMatching(steps=5)])
def test_rows_draw_by_their_own_generators(process):
    noise = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))

    def run(rows):
        return process.sample(best(process), noise[rows], [seeded("row", i) for i in rows])

    together = run([0, 1, 2])
    assert torch.allclose(run([2, 0]), together[[2, 0]], atol=1e-6)
    assert torch.equal(run([0, 1, 2]), together)


def test_the_ends_of_the_schedules():
    linear, cosine = signal_levels("linear", 1000), signal_levels("cosine", 1000)
    # The paper's: the product of 1 - β over a thousand β from 1e-4 to 0.02.
    assert float(linear[-1]) == pytest.approx(4.036e-5, rel=1e-3)
    assert float(linear[0]) == pytest.approx(1 - 1e-4)
    assert torch.allclose(cosine[[0, -1]], linear[[0, -1]])
    assert float(cosine[499]) == pytest.approx(0.5, abs=0.02)
    assert bool((cosine.diff() < 0).all())


def test_min_snr_weights_errors_of_data_alike():
    """The weight of an error of the data is min(snr, γ), whatever is predicted."""
    time = torch.tensor([0.05, 0.4, 0.9])
    plain = Diffusion("data")
    a, s = (level.flatten() for level in plain.levels(time))
    wanted = (a / s).square().clamp(max=5)
    for prediction, factor in (("data", 1), ("noise", (s / a) ** 2), ("velocity", s**2)):
        weight = Diffusion(prediction, min_snr=5).weight(time)
        assert torch.allclose(weight, wanted * factor, rtol=1e-4)
    assert plain.weight(time) is None


def test_a_flow_is_solved_to_its_order():
    """dx/dt = -x from t = 1 to 0 has the solution e · x(1); the last step is one of Euler's."""
    errors = {}
    for sampler in ("euler", "heun", "rk4"):
        process = FlowMatching("velocity", sampler, 64)
        out = process.sample(lambda x, t: -x, torch.ones(1, 1, 1), [seeded()])
        last = 1 / 64
        exact = math.exp(1 - last) * (1 + last)
        errors[sampler] = abs(float(out) - exact)
    assert errors["heun"] < errors["euler"] / 50
    assert errors["rk4"] < 1e-5


def test_choices_that_do_not_exist():
    with pytest.raises(SpecError, match="sampled by ddpm, ddim"):
        Diffusion(sampler="heun")
    with pytest.raises(SpecError, match="steps must be 1 to 10"):
        Diffusion(levels=10, steps=11)
    with pytest.raises(SpecError, match="prediction is noise, data or velocity"):
        Diffusion("score")
    with pytest.raises(SpecError, match="predict data or velocity"):
        FlowMatching("noise")
    with pytest.raises(SpecError, match="no process 'Flow'"):
        Process.from_dict("Flow")
    process = Diffusion()
    process.choose("ddim", 5)
    assert process.to_dict()["sampler"] == "ddim"
    assert process.to_dict()["steps"] == 5


@pytest.mark.parametrize("process", [Diffusion(), FlowMatching(sampler="euler")])
def test_without_diffusers_the_extra_is_named(process, monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name="diffusers")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'hypergen\[diffusion\]'"):
        process.sample(best(process), torch.zeros(1, 1, 1), [seeded()])
    assert isinstance(process, nn.Module)
