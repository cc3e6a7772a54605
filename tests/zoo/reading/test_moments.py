from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reading_zoo import MLP_SPEC, plain_rows, write_rows
from torch import nn

from hypergen.errors import UsageError
from hypergen.specs import FullSpec
from hypergen.zoo.reading import Moments, compute_moments, moments_by_architecture
from hypergen.zoo.store import Architecture, Block, Header, Row, Zoo, ZooWriter

FLAT = 3 + torch.randn(23, MLP_SPEC.numel, generator=torch.Generator().manual_seed(1))


@given(st.lists(st.integers(0, 23), max_size=6), st.randoms(use_true_random=False))
def test_any_cut_merged_in_any_order_equals_torch_on_the_whole(cuts, random):
    bounds = [0, *sorted(cuts), 23]
    parts = [FLAT[a:b] for a, b in itertools.pairwise(bounds)]
    random.shuffle(parts)
    total = Moments.empty(MLP_SPEC)
    for part in parts:
        total = total.merge(Moments.of(MLP_SPEC, part))
    whole = FLAT.double()
    assert total.count == 23
    assert torch.allclose(total.mean, whole.mean(0), rtol=1e-12)
    assert torch.allclose(total.std(), whole.std(0, correction=0), rtol=1e-12)
    assert torch.allclose(total.std(correction=1), whole.std(0), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 100, 1 << 20])
def test_a_zoo_read_in_chunks_equals_the_whole(tmp_path, chunk):
    zoo = write_rows(tmp_path / "zoo", plain_rows())
    found = compute_moments(zoo, chunk=chunk)
    whole = zoo.flat().double()
    assert torch.allclose(found.mean, whole.mean(0), rtol=1e-12)
    assert torch.allclose(found.std(), whole.std(0, correction=0), rtol=1e-12)
    for i, slot in enumerate(zoo.spec):
        values = zoo.slot(slot.name).double()
        assert found.slot_mean[i] == pytest.approx(float(values.mean()), rel=1e-9)
        assert found.slot_std[i] == pytest.approx(float(values.std(correction=0)), rel=1e-9)


def test_whole_weights_count_as_copies(tmp_path):
    zoo = write_rows(tmp_path / "zoo", plain_rows())
    copies = torch.tensor([i % 3 for i in range(len(zoo))])
    found = compute_moments(zoo, copies, chunk=100)
    repeated = zoo.flat().double().repeat_interleave(copies, 0)
    assert found.count == len(repeated)
    assert torch.allclose(found.mean, repeated.mean(0), rtol=1e-12)
    assert torch.allclose(found.std(), repeated.std(0, correction=0), rtol=1e-12)


def test_a_large_offset_does_not_eat_the_spread():
    flat = (1e4 + torch.randn(64, MLP_SPEC.numel)).float()
    total = Moments.empty(MLP_SPEC)
    for row in flat.split(1):
        total = total.merge(Moments.of(MLP_SPEC, row))
    assert torch.allclose(total.std(), flat.double().std(0, correction=0), rtol=1e-9)


def test_each_architecture_has_its_own(tmp_path):
    specs = {"net": MLP_SPEC, "line": FullSpec(nn.Linear(2, 2))}
    header = Header("two", architectures={key: Architecture(spec) for key, spec in specs.items()})
    with ZooWriter(tmp_path / "zoo", header) as writer:
        for key, spec in specs.items():
            rows = [Row(f"{key}{i}", 0, key) for i in range(4)]
            writer.append([Block(key, torch.randn(4, spec.numel), rows)])
    zoo = Zoo(tmp_path / "zoo")
    found = moments_by_architecture(zoo)
    assert set(found) == set(specs)
    for key, moments in found.items():
        flat = zoo.select(architecture=key).flat().double()
        assert torch.allclose(moments.mean, flat.mean(0), rtol=1e-12)
    only = moments_by_architecture(zoo, torch.tensor([0.0] * 4 + [1.0] * 4))
    assert set(only) == {zoo.rows[4].architecture}
    with pytest.raises(UsageError, match="different specs"):
        found["net"].merge(found["line"])
    with pytest.raises(UsageError, match="select"):
        compute_moments(zoo)


@pytest.mark.parametrize("weights", [[1.0], [-1.0] * 18, [0.0] * 18, [float("nan")] * 18])
def test_wrong_weights_are_refused(tmp_path, weights):
    zoo = write_rows(tmp_path / "zoo", plain_rows())
    with pytest.raises(UsageError, match="weights"):
        compute_moments(zoo, torch.tensor(weights))
