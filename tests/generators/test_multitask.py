"""One set of weights, whatever is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hypergen.conditions import HashingEncoder
from hypergen.errors import WeightsError
from hypergen.generators import Generator, MultiTask
from hypergen.specs import LoRASpec


@pytest.fixture
def spec():
    torch.manual_seed(0)
    return LoRASpec(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)), ["0", "1"], r=2)


def test_it_says_the_same_to_everything_and_starts_as_the_base(spec):
    net = MultiTask(spec, HashingEncoder(8))
    weights = net.generate(text=["yes", "something else"])
    assert torch.equal(weights.flat()[0], weights.flat()[1])
    assert all(float(weights[name].abs().max()) == 0 for name in spec.names if "lora_B" in name)
    assert sum(p.numel() for p in net.parameters()) == spec.numel


def test_it_starts_from_a_file_and_does_not_ask_for_it_again(spec, tmp_path):
    stored = spec.from_flat(torch.randn(1, spec.numel))
    stored.save(tmp_path / "w.safetensors")
    net = MultiTask(spec, HashingEncoder(8), file=str(tmp_path / "w.safetensors"))
    (tmp_path / "w.safetensors").unlink()
    net.save_pretrained(tmp_path / "net")
    again = Generator.from_pretrained(tmp_path / "net")
    assert torch.equal(again.generate(text="yes").flat(), stored.flat())


def test_other_weights_are_refused(spec, tmp_path):
    path = tmp_path / "w.safetensors"
    spec.from_flat(torch.randn(2, spec.numel)).save(path)
    with pytest.raises(WeightsError, match="does not hold one set of weights"):
        MultiTask(spec, HashingEncoder(8), file=str(path))
