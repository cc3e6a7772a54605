"""MLPGenerator's options."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.conditions import Condition, HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import MLPGenerator
from hypergen.specs import LoRASpec

SPEC = LoRASpec(tiny.model("mlp"), ["fc1"], r=2)


def drawn(encoding: str) -> MLPGenerator:
    torch.manual_seed(0)
    net = MLPGenerator(
        SPEC, HashingEncoder(16), hidden=8, depth=1, input_encoding=encoding, init="forward"
    )
    return net.eval()


def pooled(scale: float) -> Condition:
    rows = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0)).sigmoid()
    return Condition.from_tokens(scale * rows)


def test_the_scale_of_the_input_passes_only_where_it_may():
    with torch.no_grad():
        norm, none = drawn("norm"), drawn("none")
        assert torch.allclose(norm(pooled(1)).flat(), norm(pooled(9)).flat(), atol=1e-3)
        assert not torch.allclose(none(pooled(1)).flat(), none(pooled(9)).flat(), atol=1e-1)


@pytest.mark.parametrize(("encoding", "width"), [("norm", 16), ("none", 16), ("mip", 32)])
def test_the_encoding_decides_the_width(encoding, width):
    assert drawn(encoding).trunk[1].in_features == width


def test_unknown_encodings_are_told():
    with pytest.raises(SpecError, match="input_encoding 'sine' is not one of norm, none, mip"):
        drawn("sine")


def test_only_the_pooled_vector_counts():
    net = drawn("norm")
    condition = HashingEncoder(16)(["one two three"])
    other = Condition(torch.zeros_like(condition.tokens), condition.mask, condition.pooled)
    assert torch.equal(net(condition).flat(), net(other).flat())
