"""The expected-gain head."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import Condition
from hypergen.errors import ConditionError
from hypergen.generators import GainHead


def pooled(n: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def condition(rows: torch.Tensor) -> Condition:
    return Condition.from_tokens(rows[:, None])


def test_near_conditions_get_their_gain_and_far_ones_the_prior():
    head = GainHead(16, 6)
    bank, gains = pooled(6), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    head.fit(bank, gains, torch.arange(6), prior=-0.5)
    head.log_sharpness.fill_(6.0)
    head.log_prior_weight.fill_(-6.0)
    assert torch.allclose(head(condition(bank)), gains, atol=0.01)
    assert torch.allclose(head(condition(3 * bank)), gains, atol=0.01)  # length does not count
    # Opposite to all that is known:
    far = -bank.mean(0, keepdim=True)
    assert float(head(condition(far))) == pytest.approx(-0.5, abs=0.01)


def test_an_unfitted_head_expects_nothing():
    assert torch.equal(GainHead(16, 3)(condition(pooled(2))), torch.zeros(2))


def test_fitting_leaves_each_task_out():
    """Wordings of a task are alike: with its own ones at hand any gain would be predicted."""
    tasks = torch.arange(8).repeat_interleave(4)
    centres = pooled(8, seed=1)
    bank = centres[tasks] + 0.01 * pooled(32, seed=2)
    gains = torch.randn(8, generator=torch.Generator().manual_seed(3))[tasks]  # by task, at random
    own = GainHead(16, 32).fit(bank, gains, torch.arange(32))
    left_out = GainHead(16, 32).fit(bank, gains, tasks)
    assert own < 0.2 * left_out
    assert left_out > 0.5 * float(gains.std())


def test_fitting_finds_structure_that_carries_over():
    bank = pooled(60)
    gains = (bank @ pooled(1, seed=5)[0]).sigmoid()
    head = GainHead(16, 60)
    error = head.fit(bank, gains, torch.arange(60), prior=float(gains.mean()))
    assert error < 0.9 * float(gains.std())
    exclude = torch.eye(60, dtype=torch.bool)
    again = head.predict(bank, bank, gains, exclude) - gains
    assert float(again.square().mean().sqrt()) == pytest.approx(error, rel=1e-4)


def test_a_wrong_size_is_told_before_anything_changes():
    head = GainHead(16, 3)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    with pytest.raises(ConditionError, match=r"keeps \[3, 16\], not \[4, 16\]"):
        head.fit(pooled(4), torch.zeros(4), torch.arange(4))
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
    with pytest.raises(ConditionError, match="positive"):
        GainHead(0, 3)
