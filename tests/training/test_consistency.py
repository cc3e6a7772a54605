"""Consistency between descriptions of one task."""

from __future__ import annotations

import torch
from toy import Net

from hypergen.generators import Consistency
from hypergen.specs import LoRASpec
from hypergen.training.objectives import make_objective

SPEC = LoRASpec(Net(), "all-linear", r=2)


def loss(flat, tasks):
    return Consistency()(SPEC.from_flat(flat), {"tasks": torch.tensor(tasks)})


def test_it_is_the_share_of_the_spread_that_is_within_tasks():
    torch.manual_seed(0)
    one, two = torch.randn(2, SPEC.numel)
    assert float(loss(torch.stack([one, one, two, two]), [5, 5, 3, 3])) < 1e-10
    torch.testing.assert_close(
        loss(torch.stack([one, two, two, one]), [0, 0, 1, 1]), torch.tensor(1.0)
    )
    flat = torch.randn(4, SPEC.numel)
    # Within: half the squared distance of each pair; spread: around the mean of all.
    expected = []
    for group in SPEC.from_flat(flat).groups:
        rows = group.flatten(1)
        within = sum((rows[a] - rows[b]).square().sum() / 2 for a, b in ((0, 2), (1, 3)))
        expected.append(within / (rows - rows.mean(0)).square().sum())
    torch.testing.assert_close(loss(flat, [7, 2, 7, 2]), torch.stack(expected).mean())
    torch.testing.assert_close(loss(100 * flat, [7, 2, 7, 2]), loss(flat, [7, 2, 7, 2]))


def test_tasks_with_one_description_add_nothing():
    torch.manual_seed(1)
    flat = torch.randn(5, SPEC.numel)
    torch.testing.assert_close(loss(flat, [0, 0, 1, 1, 2]), loss(flat[:4], [0, 0, 1, 1]))
    assert float(loss(flat, [0, 1, 2, 3, 4])) == 0
    assert float(loss(torch.ones(4, SPEC.numel), [0, 0, 1, 1])) == 0


def test_its_gradient_brings_wordings_together_and_pushes_no_task_away():
    torch.manual_seed(2)
    flat = torch.randn(4, SPEC.numel, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(flat, [0, 0, 1, 1]), flat)
    pairs = gradient.view(2, 2, -1)
    torch.testing.assert_close(pairs.sum(1), torch.zeros_like(pairs[:, 0]), atol=1e-7, rtol=0)
    step = flat.detach() - 0.01 * gradient / gradient.norm()
    before, after = ((f[0] - f[1]).norm() for f in (flat.detach(), step))
    assert float(after) < float(before)


def test_it_is_an_objective_by_name():
    assert isinstance(make_objective("consistency", object()), Consistency)
