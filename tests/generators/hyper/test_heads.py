"""Heads: how slots are cut into rows, shared, and put together again."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import SpecError
from hypergen.generators.hyper import FlatHead, RowHeads
from hypergen.generators.hyper.heads import Rows
from hypergen.specs import FullSpec, LoRASpec, Slot, WeightSpec


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(1, 6), max_size=3).map(tuple),
    st.sampled_from(["weight", "lora_A", "lora_B", "adapter_up"]),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_rows_hold_each_number_once(shape, role, most, slots):
    spec = WeightSpec(Slot(f"s{i}", shape, role) for i in range(slots))
    rows = Rows.of(spec.groups[0], most)
    assert rows.count <= max(most, 1)
    tokens = torch.arange(2 * slots * rows.count * rows.width).float()
    tokens = tokens.view(2, slots, rows.count, rows.width)
    out = rows.assemble(tokens)
    assert out.shape == (2, slots, *shape)
    assert len(out.unique()) == out.numel()  # no token's number is used twice
    cut = rows.cut(out)
    assert cut.shape == tokens.shape
    assert torch.equal(rows.assemble(cut), out)
    assert torch.equal(cut, torch.where(torch.isin(tokens, out), tokens, 0))  # padding


def test_a_row_of_a_lora_is_a_rank():
    """Row i of A and column i of B."""
    spec = LoRASpec(tiny.model("mlp"), ["fc1"], r=3)
    for name, axis in (("fc1.lora_A.weight", 0), ("fc1.lora_B.weight", -1)):
        rows = Rows.of(spec.groups[spec.location[name][0]], 16)
        assert (rows.axis, rows.count, rows.per_token) == (axis, 3, 1)
        tokens = torch.zeros(1, 1, 3, rows.width)
        tokens[:, :, 1] = 1
        out = rows.assemble(tokens)[0, 0]
        assert torch.equal(out.select(axis, 1), torch.ones(rows.width))
        assert float(out.sum()) == rows.width


@pytest.mark.parametrize("share", ["group", "slot", "row"])
def test_row_heads_are_grouped_products_of_the_features(share):
    spec = LoRASpec(tiny.model("llama"), ["q_proj", "v_proj"], r=3)
    heads = RowHeads(spec, 8, most_rows=2, share=share, init="forward")
    features = torch.randn(2, heads.queries, 8)
    weights = heads(features)
    index = heads.query_index()
    assert index.shape == (heads.queries, 3)
    # Each number depends on the features of its own slot alone.
    moved = features.clone()
    first = index[:, 0] == 0
    moved[:, first] += 1
    changed = heads(moved)
    for i, name in enumerate(spec.names):
        assert torch.equal(changed[name], weights[name]) == (i != 0)


def test_sharing_decides_the_number_of_parameters():
    spec = LoRASpec(tiny.model("llama"), ["q_proj"], r=4)  # two layers: two slots a group
    counts = {
        share: sum(w.numel() for w in RowHeads(spec, 8, 4, share).weights)
        for share in ("group", "slot", "row")
    }
    assert counts["slot"] == 2 * counts["group"]
    assert counts["row"] == 4 * counts["slot"]
    with pytest.raises(SpecError, match="not 'layer'"):
        RowHeads(spec, 8, 4, "layer")


@pytest.mark.parametrize("init", ["theta0", "forward", "hyperfan_in", "hyperfan_out"])
def test_flat_heads_are_one_affine_map(init):
    spec = FullSpec(tiny.model("conv"))
    head = FlatHead(spec, 6, init)
    f, g = torch.randn(1, 6), torch.randn(1, 6)
    zero = head(torch.zeros(1, 6)).flat()
    assert torch.allclose(zero, head.offset[None])
    both = head(f + g).flat()
    assert torch.allclose(both - zero, head(f).flat() - zero + head(g).flat() - zero, atol=1e-5)


def test_unknown_starts_are_told():
    with pytest.raises(SpecError, match="init 'xavier' is not one of theta0"):
        FlatHead(FullSpec(tiny.model("mlp")), 4, "xavier")
