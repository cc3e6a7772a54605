"""PrefixSpec: keys and values in PEFT's order."""

from __future__ import annotations

import pytest
import tiny
import torch

from hypergen.errors import SpecError
from hypergen.specs import PrefixSpec


def test_grouped_queries_need_few_heads():
    spec = PrefixSpec(tiny.model("llama"), 3)
    assert len(spec) == 4
    assert spec.slots[0].shape == (3, 2 * 4)  # two key-value heads of width four
    assert [slot.name for slot in spec][:3] == ["prefix.0.key", "prefix.0.value", "prefix.1.key"]
    assert PrefixSpec(tiny.model("gpt2"), 3).slots[0].shape == (3, 16)


def test_the_table_of_peft_and_back():
    spec = PrefixSpec(tiny.model("llama"), 3)
    weights = spec.from_flat(torch.randn(2, spec.numel))
    table = spec.to_peft(weights[1])
    # PEFT views it as [tokens, layers, 2, heads, width].
    viewed = table.view(3, 2, 2, 2, 4)
    key, value = spec.key_values(weights)[1]
    assert torch.equal(key[1], viewed[:, 1, 0].transpose(0, 1))
    assert torch.equal(value[1], viewed[:, 1, 1].transpose(0, 1))
    assert torch.equal(spec.from_peft(table).flat(), weights[1].flat())


def test_models_without_heads_are_refused():
    with pytest.raises(SpecError, match="MLP has no transformers config"):
        PrefixSpec(tiny.model("mlp"))
    with pytest.raises(SpecError, match="at least 1"):
        PrefixSpec(tiny.model("llama"), 0)
