"""MIP's encoding: one norm whatever the input."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.generators.hyper import MIPEncoding


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.booleans())
def test_the_norm_is_constant(values, squash):
    x = torch.tensor(values) if squash else torch.tensor(values).sigmoid()
    out = MIPEncoding(squash)(x)
    assert out.shape == (2 * len(values),)
    assert torch.allclose(out.square().sum(), torch.tensor(float(len(values))), rtol=1e-5)


def test_the_ends_of_the_interval_are_orthogonal():
    low, high = MIPEncoding()(torch.tensor([[0.0], [1.0]]))
    assert torch.allclose(low @ high, torch.tensor(0.0), atol=1e-6)


def test_inputs_are_told_apart_monotonically():
    out = MIPEncoding()(torch.linspace(0, 1, 11)[:, None])
    assert bool((out[1:, 0] < out[:-1, 0]).all())
