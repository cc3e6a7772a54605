from __future__ import annotations

import pytest
import torch

from hypergen.conditions import ConditionEncoder, NoCondition
from hypergen.errors import ConditionError


def test_it_says_nothing_to_any_number_of_rows():
    encoder = ConditionEncoder.from_dict(NoCondition().to_dict())
    condition = encoder(3)
    assert condition.tokens.shape == (3, 1, encoder.dim)
    assert bool(condition.mask.all())
    assert not condition.tokens.any()
    assert not list(encoder.parameters())
    assert encoder.constant


@pytest.mark.parametrize("inputs", ["text", 0, None, True, [1]])
def test_it_takes_a_number_of_rows_alone(inputs):
    with pytest.raises(ConditionError, match="takes a number of rows"):
        NoCondition()(inputs)


def test_rows_do_not_share_memory():
    tokens = NoCondition()(2).tokens
    tokens[0] += 1
    assert torch.equal(tokens[1], torch.zeros(1, 1))
