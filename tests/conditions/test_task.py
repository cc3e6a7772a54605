"""The table of task embeddings."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import TaskEncoder
from hypergen.errors import ConditionError


def test_tasks_are_looked_up_and_learnt():
    encoder = TaskEncoder(5, dim=4, tokens=3)
    c = encoder([4, 0, 4])
    assert c.tokens.shape == (3, 3, 4)
    assert bool(c.mask.all())
    assert torch.equal(c.tokens[0], c.tokens[2])
    assert torch.equal(c.tokens[1].flatten(), encoder.embedding.weight[0])
    c.pooled.sum().backward()
    assert encoder.embedding.weight.grad.abs().sum(1).gt(0).tolist() == [True] + [False] * 3 + [
        True
    ]
    assert len(encoder(3)) == 1


@pytest.mark.parametrize("inputs", [[5], [-1], []])
def test_other_numbers_are_told(inputs):
    with pytest.raises(ConditionError, match="from 0 to 4"):
        TaskEncoder(5)(inputs)


def test_sizes_are_positive():
    with pytest.raises(ConditionError, match="positive"):
        TaskEncoder(0)
