"""Every generator with demonstrations as its condition."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.conditions import DemoEncoder, HashingEncoder

NAMES = [name for name, spec in matrix.PAIRS if spec == "lora"]
DEMOS = [
    [("the cat", "animal"), ("my car", "thing"), ("a dog", "animal")],
    [("one", "two")],
    [("up", "down"), ("hot", "cold")],
]


@pytest.mark.parametrize("tokens", ["pooled", "words"])
@pytest.mark.parametrize("name", NAMES)
def test_order_and_company_do_not_matter_and_what_is_shown_does(name, tokens):
    torch.manual_seed(0)
    encoder = DemoEncoder(HashingEncoder(16), 16, tokens)
    net = matrix.stepped(name, "lora")
    with torch.no_grad():
        batch = net(encoder(DEMOS)).flat()
        backwards = net(encoder([demos[::-1] for demos in DEMOS])).flat()
        alone = torch.cat([net(encoder(demos)).flat() for demos in DEMOS])
    assert torch.equal(batch, backwards)
    assert torch.allclose(batch, alone, atol=1e-5)
    if name not in (*matrix.SAME, "nearest"):  # the nearest may be one and the same
        assert float(torch.pdist(batch).min()) > 1e-6
