"""The order of the data."""

from __future__ import annotations

import torch

from hypergen.zoo.ensemble.order import DataOrder


def test_every_pass_sees_each_sample_once():
    order = DataOrder([3, 4], samples=10, batch_size=4).take(5)
    assert order.shape == (5, 2, 4)
    for member in range(2):
        passes = order[:, member].reshape(2, 10)
        assert all(torch.equal(p.sort().values, torch.arange(10)) for p in passes)
        assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(order[:, 0], order[:, 1])


def test_a_member_keeps_its_order_in_any_company_and_any_portions():
    alone = DataOrder([7], samples=11, batch_size=4).take(9)[:, 0]
    company = DataOrder([1, 7, 2], samples=11, batch_size=4)
    portions = torch.cat([company.take(n) for n in (1, 5, 3)])[:, 1]
    assert torch.equal(alone, portions)


def test_a_batch_may_hold_several_passes():
    order = DataOrder([0], samples=3, batch_size=7).take(3).flatten()
    assert torch.equal(order.bincount(), torch.tensor([7, 7, 7]))
