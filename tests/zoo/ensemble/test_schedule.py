"""Learning-rate schedules."""

from __future__ import annotations

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.zoo.ensemble import schedule_factors


def from_torch(make, steps: int) -> list[float]:
    """Rates of a schedule of torch, whose peak is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_that_of_torch():
    rates = from_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20), 20)
    assert schedule_factors("cosine", 20) == pytest.approx(rates)


def test_one_cycle_peaks_and_ends_where_that_of_torch_does():
    make = torch.optim.lr_scheduler.OneCycleLR
    rates = from_torch(lambda o: make(o, 1.0, total_steps=1000, cycle_momentum=False), 1000)
    ours = schedule_factors("one-cycle", 1000)
    assert ours[0] == pytest.approx(1 / 25)
    assert max(ours) == pytest.approx(1.0)
    # torch counts steps - 1 intervals.
    assert ours == pytest.approx(rates, abs=4e-3)


def test_warmup_is_linear_and_then_the_schedule_starts():
    factors = schedule_factors("constant", 10, warmup=0.4)
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])
    factors = schedule_factors("cosine", 10, warmup=0.4)
    assert factors[4] == pytest.approx(1.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert schedule_factors("constant", 3) == [1, 1, 1]


@pytest.mark.parametrize("name", ["constant", "cosine", "one-cycle"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_has_a_usable_rate(name, steps):
    factors = schedule_factors(name, steps)
    assert len(factors) == steps
    assert all(0 < f <= 1 for f in factors)


def test_bad_options_are_named():
    with pytest.raises(UsageError, match="Did you mean 'one-cycle'"):
        schedule_factors("onecycle", 5)
    with pytest.raises(UsageError, match="warmup"):
        schedule_factors("cosine", 5, warmup=1.0)
