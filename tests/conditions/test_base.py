"""Conditions: shapes, picking, joining; encoders by name."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.conditions import Condition, ConditionEncoder, HashingEncoder, TaskEncoder
from hypergen.errors import ConditionError


def condition(batch: int = 3, length: int = 4, dim: int = 5) -> Condition:
    mask = torch.arange(length) < torch.arange(1, batch + 1)[:, None]
    return Condition.from_tokens(torch.randn(batch, length, dim), mask)


def test_from_tokens_masks_and_averages():
    c = condition()
    assert bool((c.tokens[~c.mask] == 0).all())
    assert torch.allclose(c.pooled[1], c.tokens[1, :2].mean(0))
    assert bool(Condition.from_tokens(torch.ones(1, 2, 3)).mask.all())


def test_shapes_are_checked():
    with pytest.raises(ConditionError, match=r"tokens \[B, T, D\] and mask \[B, T\]"):
        Condition(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3))
    with pytest.raises(ConditionError, match=r"pooled has shape \[2, 4\], expected \[2, 5\]"):
        Condition(torch.zeros(2, 3, 5), torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 4))


def test_picking_keeps_the_batch_axis():
    c = condition()
    for index, rows in [(0, [0]), (-1, [2]), (slice(1, 3), [1, 2]), ([2, 0], [2, 0])]:
        assert torch.equal(c[index].tokens, c.tokens[rows])
        assert torch.equal(c[index].pooled, c.pooled[rows])
    assert len(c[torch.tensor(1)]) == 1
    with pytest.raises(IndexError, match="3 rows"):
        c[3]
    assert c[0].trim().tokens.shape == (1, 1, 5)
    assert c.trim().tokens.shape == (3, 3, 5)


def test_joining_pads():
    a, b = condition(1, 2), condition(2, 4)
    joined = Condition.cat([a, b])
    assert joined.tokens.shape == (3, 4, 5)
    assert torch.equal(joined[0].trim().tokens, a.trim().tokens)
    assert torch.equal(joined.pooled, torch.cat([a.pooled, b.pooled]))
    with pytest.raises(ConditionError, match=r"widths \[5, 6\]"):
        Condition.cat([a, condition(1, 2, 6)])
    with pytest.raises(ConditionError, match="no conditions"):
        Condition.cat([])


def test_casting_keeps_the_mask_boolean():
    half = condition().to(torch.float16)
    assert (half.tokens.dtype, half.pooled.dtype) == (torch.float16, torch.float16)
    assert half.mask.dtype == torch.bool
    leaf = torch.ones(1, 2, 3, requires_grad=True)
    assert Condition.from_tokens(leaf).detach().pooled.requires_grad is False


@pytest.mark.parametrize("encoder", [HashingEncoder(24, 9), TaskEncoder(5, 8, 2)])
def test_encoders_are_rebuilt_from_json(encoder):
    again = ConditionEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert type(again) is type(encoder)
    assert again.config() == encoder.config()
    assert again.dim == encoder.dim


def test_unknown_encoders_are_told():
    with pytest.raises(ConditionError, match=r"'HashngEncoder'.* Did you mean 'HashingEncoder'"):
        ConditionEncoder.from_dict({"class": "HashngEncoder", "init_args": {}})


def test_signals_go_wherever_the_rows_go():
    tokens = torch.arange(12.0).view(3, 2, 2)
    plain = Condition.from_tokens(tokens)
    made = Condition(plain.tokens, plain.mask, plain.pooled, torch.arange(3.0)[:, None])
    assert made[1].signals.tolist() == [[1.0]]
    assert made[[2, 0]].trim().detach().to(torch.float64).signals.tolist() == [[2.0], [0.0]]
    assert Condition.cat([made, made[0]]).signals.flatten().tolist() == [0, 1, 2, 0]
    assert Condition.cat([plain, plain]).signals is None
    with pytest.raises(ConditionError, match="with and without signals"):
        Condition.cat([made, plain])
    with pytest.raises(ConditionError, match=r"signals have shape \[2, 1\]"):
        Condition(plain.tokens, plain.mask, plain.pooled, torch.zeros(2, 1))
