"""What every denoiser must do, and what each does in its own way."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import Condition
from hypergen.errors import SpecError
from hypergen.generators.diffusion import (
    ConvDenoiser,
    Denoiser,
    DiT,
    MLPDenoiser,
    TimeEmbedding,
    sinusoid,
)
from hypergen.generators.diffusion.dit import PositionEmbedding

T, D, E = 6, 5, 12
POSITIONS = torch.tensor([[0, 0, i] for i in range(4)] + [[1, 1, 0], [1, 1, 1]])
MASK = torch.ones(T, D, dtype=torch.bool)
OPTIONS = {
    "DiT": {"width": 16, "depth": 2, "heads": 2},
    "MLPDenoiser": {"hidden": 16, "time_dim": 8, "dropout": 0.0},
    "ConvDenoiser": {"channels": [4, 8], "kernel": 3, "time_dim": 8},
}
every = pytest.mark.parametrize("name", OPTIONS)


def make(name, width=E, **options) -> Denoiser:
    """A denoiser whose zeros are gone, as after some training."""
    torch.manual_seed(0)
    data = {"name": name, **OPTIONS[name], **options}
    made = Denoiser.from_dict(data, T, D, POSITIONS, MASK, width).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def inputs(batch=3):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, T, D, generator=draw)
    tokens = torch.randn(batch, 4, E, generator=draw)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] + [False] * 3])[:batch]
    return x, torch.rand(batch, generator=draw), Condition.from_tokens(tokens, mask)


@every
def test_it_starts_at_zero_and_keeps_the_shape(name):
    fresh = Denoiser.from_dict({"name": name, **OPTIONS[name]}, T, D, POSITIONS, MASK, E)
    x, time, condition = inputs()
    assert torch.equal(fresh(x, time, condition), torch.zeros_like(x))
    assert make(name)(x, time, condition).shape == x.shape


@every
def test_condition_and_time_reach_every_token(name):
    net = make(name)
    x, time, condition = inputs()
    before = net(x, time, condition)
    for other in (net(x, time, condition[[1, 2, 0]]), net(x, time.roll(1), condition)):
        assert bool(((other - before).abs().amax(-1) > 1e-6).all())


@every
def test_the_batch_and_padding_do_not_matter(name):
    net = make(name)
    x, time, condition = inputs()
    together = net(x, time, condition)
    for i in range(3):
        alone = net(x[i : i + 1], time[i : i + 1], condition[i].trim())
        assert torch.allclose(alone[0], together[i], atol=1e-6)


@every
def test_steps_read_the_condition_once(name):
    net = make(name)
    x, time, condition = inputs()
    memory = net.read(condition)
    assert torch.equal(net.step(x, time, memory), net(x, time, condition))


@every
def test_without_a_condition(name):
    net = make(name, width=0)
    x, time, _ = inputs()
    assert torch.isfinite(net(x, time, None)).all()
    names = [n for n, _ in net.named_parameters()]
    assert not [
        n for n in names if n.startswith(("pooled", "context", "key_value")) or "cross" in n
    ]


@every
def test_it_is_rebuilt_from_its_description(name):
    net = make(name)
    again = Denoiser.from_dict(net.to_dict(), T, D, POSITIONS, MASK, E).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    x, time, condition = inputs()
    assert torch.equal(again(x, time, condition), net(x, time, condition))


def test_unknown_names_and_bad_options():
    with pytest.raises(SpecError, match=r"no denoiser 'Dit'. Did you mean 'DiT'"):
        Denoiser.from_dict("Dit", T, D, POSITIONS, MASK, E)
    with pytest.raises(SpecError, match="a width that heads divide"):
        DiT(T, D, POSITIONS, MASK, E, width=10, heads=4)
    with pytest.raises(SpecError, match="odd kernel"):
        ConvDenoiser(T, D, POSITIONS, MASK, E, kernel=4)
    with pytest.raises(SpecError, match="hidden of at least 2"):
        MLPDenoiser(T, D, POSITIONS, MASK, E, hidden=1)


# -- the transformer ---------------------------------------------------------------------------


def test_every_token_of_the_condition_is_read():
    x, time, condition = inputs(1)
    other = condition.tokens.clone()
    other[0, 3] = other[0, 3].flip(0)
    changed = Condition(other, condition.mask, condition.pooled)
    for cross in (True, False):
        net = make("DiT", cross=cross)
        difference = (net(x, time, changed) - net(x, time, condition)).abs().amax(-1)
        assert bool((difference > 1e-7).all()) == cross


def test_one_transformer_reads_other_architectures_in_one_batch():
    net = make("DiT")
    x, time, condition = inputs(2)
    short = torch.tensor([[2, 3, 0], [2, 3, 1]])  # two tokens of another network
    places = torch.stack([POSITIONS, torch.cat([short, torch.full((4, 3), 9)])])
    present = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    both = net(x, time, condition, places, present)
    assert torch.allclose(both[:1], net(x[:1], time[:1], condition[0]), atol=1e-6)
    alone = net(x[1:, :2], time[1:], condition[1], short)
    assert torch.allclose(both[1:, :2], alone, atol=1e-6)
    assert sum(p.numel() for p in net.parameters()) == sum(
        p.numel() for p in DiT(99, D, torch.zeros(99, 3), None, E, **OPTIONS["DiT"]).parameters()
    )


def test_positions_tell_tokens_apart():
    net = make("DiT")
    _, time, condition = inputs(1)
    out = net(torch.zeros(1, T, D), time, condition)[0]
    assert bool((torch.cdist(out, out) + torch.eye(T) > 1e-6).all())


# -- time --------------------------------------------------------------------------------------


def test_times_are_told_apart():
    features = sinusoid(torch.tensor([0, 1, 500]), 4)
    assert features.shape == (3, 8)
    assert torch.equal(features[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert float(features[1, 0]) == pytest.approx(0.841471, abs=1e-6)
    embedded = TimeEmbedding(8)(torch.tensor([0.0, 0.001, 1.0]))
    assert float(torch.pdist(embedded.detach()).min()) > 1e-3


def test_half_precision_tells_times_and_positions_apart():
    near = torch.tensor([0.998, 0.999])  # equal in bfloat16, as are the positions
    embedded = TimeEmbedding(8).to(torch.bfloat16)(near)
    assert not torch.equal(embedded[0], embedded[1])
    far = torch.tensor([[1, 1, 1000], [1, 1, 1001]])
    placed = PositionEmbedding(8).to(torch.bfloat16)(far)
    assert not torch.equal(placed[0], placed[1])
