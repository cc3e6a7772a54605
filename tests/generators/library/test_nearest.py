"""Retrieval returns what is stored."""

from __future__ import annotations

import matrix
import torch

from hypergen.conditions import HashingEncoder
from hypergen.generators import NearestExpert

TEXTS = [["even digits", "divisible by two"], ["odd digits"], ["round ones", "a circle"]]


def nearest(spec_name: str) -> tuple[NearestExpert, torch.Tensor]:
    spec = matrix.spec(spec_name)
    flat = torch.randn(3, spec.numel, generator=torch.Generator().manual_seed(0))
    return NearestExpert.from_weights(spec.from_flat(flat), TEXTS, HashingEncoder(32)), flat


def test_every_description_gives_exactly_its_own_expert():
    for spec_name in ("lora", "full_mlp", "adapter"):
        net, flat = nearest(spec_name)
        texts = [text for several in TEXTS for text in several]
        out = net.generate(texts).flat()
        assert torch.equal(out, flat[[0, 0, 1, 2, 2]])
        alone = torch.cat([net.generate(text).flat() for text in texts])
        assert torch.equal(out, alone)


def test_an_excluded_expert_is_not_used():
    net, _ = nearest("lora")
    condition = net.encode(text=["odd digits", "odd digits"])
    without = torch.tensor([[False, True, False], [False, False, False]])
    first, second = net.route(condition, without).tolist()
    assert second == 1
    assert first != 1


def test_there_is_nothing_to_train_and_a_device():
    net, _ = nearest("lora")
    assert not list(net.parameters())
    assert net.device == torch.device("cpu")
