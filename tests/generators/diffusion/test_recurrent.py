"""RPG's denoiser."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import Condition
from hypergen.errors import SpecError
from hypergen.generators.diffusion import Denoiser
from hypergen.generators.diffusion.recurrent import RecurrentDenoiser

T, D, E = 12, 6, 5
POSITIONS = torch.tensor([[1 + t // 4, t // 4, t % 4] for t in range(T)])
MASK = torch.ones(T, D, dtype=torch.bool)
SMALL = {"width": 16, "layers": 1, "heads": 2, "hidden": 16, "depth": 2}
ALL = [
    {"backend": backend, "network": network, "reads_noise": reads}
    for backend in ("lstm", "transformer", "mamba")
    for network, reads in (("mlp", False), ("conv", False), ("mlp", True))
]


def make(seed=0, condition_dim=E, **options):
    """A denoiser whose last layer is no longer zero."""
    torch.manual_seed(seed)
    model = RecurrentDenoiser(T, D, POSITIONS, MASK, condition_dim, **{**SMALL, **options})
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def condition(rows=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Condition.from_tokens(torch.randn(rows, 4, E, generator=g))


@pytest.mark.parametrize("options", ALL)
def test_the_condition_reaches_every_token(options):
    model, x, time = make(**options), torch.randn(3, T, D), torch.rand(3)
    a, b = model(x, time, condition()), model(x, time, condition(seed=1))
    assert (a - b).abs().amax(-1).gt(1e-4).all()


@pytest.mark.parametrize("options", ALL)
def test_one_token_of_the_condition_reaches_every_token(options):
    model, x, time = make(**options), torch.randn(1, T, D), torch.rand(1)
    c = condition(1)
    tokens = c.tokens.clone()
    tokens[:, 2] += 1
    other = Condition.from_tokens(tokens)
    moved = (model(x, time, c) - model(x, time, other)).abs().amax(-1)
    assert moved.gt(1e-5).all()


@pytest.mark.parametrize("options", ALL)
def test_starts_at_zero_and_everything_learns(options):
    torch.manual_seed(0)
    model = RecurrentDenoiser(T, D, POSITIONS, MASK, E, **{**SMALL, **options})
    x, time = torch.randn(3, T, D), torch.rand(3)
    assert model(x, time, condition()).abs().max() == 0
    model = make(**options)
    c = condition()
    c.tokens.requires_grad_()
    c.pooled.requires_grad_()
    model(x, time, c).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert c.tokens.grad.abs().sum((1, 2)).gt(0).all()
    assert c.pooled.grad.abs().sum(1).gt(0).all()


@pytest.mark.parametrize("options", ALL)
def test_reading_once_is_reading_at_every_step(options):
    model, c = make(**options), condition()
    memory = model.read(c)
    for value in (0.1, 0.9):
        x, time = torch.randn(3, T, D), torch.full((3,), value)
        torch.testing.assert_close(model.step(x, time, memory), model(x, time, c))


@pytest.mark.parametrize("options", ALL)
def test_rows_do_not_depend_on_each_other(options):
    model, x, time, c = make(**options), torch.randn(3, T, D), torch.rand(3), condition()
    whole = model(x, time, c)
    torch.testing.assert_close(whole[1:2], model(x[1:2], time[1:2], c[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_a_subset_of_tokens_is_that_part_of_all(network):
    model, x, time, c = make(network=network), torch.randn(3, T, D), torch.rand(3), condition()
    chosen = torch.tensor([0, 3, 11])
    part = model(x[:, chosen], time, c, subset=chosen)
    torch.testing.assert_close(part, model(x, time, c)[:, chosen])


def test_subsets_are_drawn_by_the_global_seed():
    model = make(subset=5)
    torch.manual_seed(3)
    a = model.draw()
    torch.manual_seed(3)
    assert torch.equal(a, model.draw())
    assert len(a.unique()) == 5
    assert make().draw() is None
    assert make(subset=T).draw() is None


def test_tokens_of_a_sample_see_each_other_only_if_asked():
    x, time, c = torch.randn(1, T, D), torch.rand(1), condition(1)
    other = x.clone()
    other[:, 4] += 1
    for reads in (False, True):
        model = make(reads_noise=reads)
        moved = (model(x, time, c) - model(other, time, c)).abs().amax(-1)[0] > 1e-6
        assert moved.all() if reads else moved.nonzero().flatten().tolist() == [4]


def test_without_a_condition():
    model = make(condition_dim=0)
    x, time = torch.randn(3, T, D), torch.rand(3)
    assert model(x, time, None).shape == (3, T, D)
    assert not torch.allclose(model(x, time, None), model(x, 1 - time, None))


def test_time_reaches_every_token():
    model, x, c = make(), torch.randn(1, T, D), condition(1)
    moved = model(x, torch.tensor([0.1]), c) - model(x, torch.tensor([0.8]), c)
    assert moved.abs().amax(-1).gt(1e-4).all()


def test_positions_tell_equal_tokens_apart():
    model, c = make(), condition(1)
    out = model(torch.zeros(1, T, D), torch.tensor([0.5]), c)[0]
    assert torch.cdist(out, out).fill_diagonal_(1).min() > 1e-3


def test_rebuilt_from_its_options():
    model = make(backend="lstm", network="conv")
    again = Denoiser.from_dict(model.to_dict(), T, D, POSITIONS, MASK, E).eval()
    again.load_state_dict(model.state_dict())
    x, time, c = torch.randn(3, T, D), torch.rand(3), condition()
    assert torch.equal(again(x, time, c), model(x, time, c))


def test_bad_options_are_told():
    with pytest.raises(SpecError, match="'mlp' or 'conv'"):
        make(network="rnn")
    with pytest.raises(SpecError, match="subset"):
        make(subset=3, reads_noise=True)
    with pytest.raises(SpecError, match="subset"):
        make(reads_noise=True)(
            torch.zeros(1, 2, D), torch.zeros(1), condition(1), subset=torch.tensor([0, 1])
        )
