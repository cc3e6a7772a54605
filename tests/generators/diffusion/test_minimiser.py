from __future__ import annotations

import pytest
import torch

from hypergen._utils.seeding import generator as seeded
from hypergen.errors import WeightsError
from hypergen.generators.diffusion import Denoiser, Diffusion, FlowMatching, Minimiser, minimiser

POINTS = 3 * torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0))
PROCESSES = [
    FlowMatching(sampler="heun", steps=40),
    FlowMatching(sampler="rk4", steps=20),
    FlowMatching(sampler="euler", steps=100),
    FlowMatching("data", "heun", 30),
    Diffusion("noise", sampler="ddim", steps=100),
    Diffusion("velocity", "cosine", sampler="dpm++", steps=50),
    Diffusion("data", sampler="ddpm", steps=200),
]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: f"{p.sampler}-{p.prediction}")
def test_samples_are_the_training_points(process):
    net = Minimiser.of(POINTS, process)
    noise = torch.randn(60, 4, 3, generator=torch.Generator().manual_seed(1))
    out = process.sample(net, noise, [seeded(i) for i in range(60)])
    distance, which = torch.cdist(out.flatten(1), POINTS.flatten(1)).min(1)
    assert float(distance.max()) < 0.02
    assert len(which.unique()) >= 6  # not one of them alone


@pytest.mark.parametrize("process", [FlowMatching(), Diffusion("noise"), Diffusion("data")])
def test_it_minimises_the_loss(process):
    """Against the definition, written out; and no other prediction has a lower loss."""
    draw = torch.Generator().manual_seed(2)
    net, time = Minimiser.of(POINTS, process), torch.full((5,), 0.7)
    x = 2 * torch.randn(5, 4, 3, generator=draw)
    a, s = (float(level[0]) for level in process.levels(time))
    squares = (x[:, None] - a * POINTS[None]).double().square().sum((2, 3))
    share = torch.softmax(-squares / (2 * s**2), 1).float()
    expected = torch.einsum("bk,ktd->btd", share, POINTS)
    output = net(x, time)
    assert torch.allclose(process.to_data(x, output, time), expected, atol=1e-3)


def test_chunks_do_not_matter(monkeypatch):
    net = Minimiser.of(POINTS, FlowMatching())
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(3))
    time = torch.linspace(0.01, 1, 5)
    whole = net(x, time)
    monkeypatch.setattr(minimiser, "_CHUNK", 24)  # two points at a time
    assert torch.allclose(net(x, time), whole, atol=1e-6)


def test_it_is_saved_like_any_denoiser():
    net = Minimiser.of(POINTS, Diffusion(schedule="cosine"))
    again = Denoiser.from_dict(net.to_dict(), 4, 3, net.positions, net.mask, 0)
    again.load_state_dict(net.state_dict(), strict=True)
    x, time = torch.randn(2, 4, 3), torch.tensor([0.2, 0.9])
    assert torch.equal(again(x, time, None), net(x, time))


def test_points_are_checked():
    with pytest.raises(WeightsError, match="finite latents"):
        Minimiser.of(POINTS / 0, FlowMatching())
    with pytest.raises(WeightsError, match="finite latents"):
        Minimiser.of(POINTS[:0], FlowMatching())
