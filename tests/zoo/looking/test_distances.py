from __future__ import annotations

import pytest
import torch
from looking_zoo import LORA, SPEC, independent, rows_of, walk, walking_zoo, write

from hypergen.specs import gram
from hypergen.zoo.looking import distances
from hypergen.zoo.looking.distances import measure, nearest, project, squared_distances
from hypergen.zoo.store import Architecture, Block


@pytest.mark.parametrize("strip", [1, 7, 1 << 10])
def test_distances_and_norms_equal_those_of_every_pair(tmp_path, monkeypatch, strip):
    if strip < 1 << 10:  # strips that cut through slots
        monkeypatch.setattr(distances, "_STRIP", strip)
        monkeypatch.setattr(distances, "_NUMBERS", 1)
    zoo = walking_zoo(tmp_path / "zoo")
    rows = [3, 0, 7, 12, 19]
    found = measure(zoo, rows)
    flat = zoo.flat(rows).double()
    naive = torch.stack([(flat - row).norm(dim=1) for row in flat])
    assert torch.allclose(squared_distances(found.products).sqrt(), naive, atol=1e-6)
    assert torch.allclose(found.norms, flat.norm(dim=1))
    for i, name in enumerate(SPEC.names):
        part = zoo.slot(name, rows).double().flatten(1)
        assert torch.allclose(found.slot_norms[:, i], part.norm(dim=1))


@pytest.mark.parametrize("numbers", [1, 1 << 20])
def test_loras_are_compared_by_their_updates(tmp_path, monkeypatch, numbers):
    monkeypatch.setattr(distances, "_NUMBERS", numbers)
    flat = torch.randn(6, LORA.numel)
    # The last one has other factors and the same update as the first.
    twin = LORA.unpack(flat[:1])
    for module in LORA.modules:
        a, b = LORA.pair_names(module)
        turn = torch.randn(2, 2)
        twin[a], twin[b] = turn @ twin[a], twin[b] @ turn.inverse()
    flat[5] = LORA.pack(twin)[0]
    specs = {"lora": Architecture(LORA)}
    zoo = write(tmp_path / "zoo", [Block("lora", flat, rows_of(6, 1, "lora"))], specs)
    found = measure(zoo, range(6))
    weights = zoo.weights()
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for module in LORA.modules:
        a, b = (x.double() for x in LORA.pair(weights, module))
        pairs = gram(a[:, None], b[:, None], a[None], b[None])
        expected += LORA.scaling(module) ** 2 * pairs
    assert torch.allclose(found.products, expected)
    deltas = torch.cat([LORA.delta(weights, m).flatten(1) for m in LORA.modules], 1).double()
    assert torch.allclose(found.norms, deltas.norm(dim=1), rtol=1e-5)
    squared = squared_distances(found.products)
    assert float(squared[0, 5].sqrt() / found.norms[0]) < 1e-3
    assert float((flat[0] - flat[5]).norm() / flat[0].norm()) > 0.1


def test_the_nearest_is_sought_inside_or_outside_the_group():
    x = torch.tensor([0.0, 1.0, 1.5, 9.0, 20.0])[:, None].double()
    squared = (x - x.T).square()
    groups = torch.tensor([0, 1, 0, 1, 2])
    found, where = nearest(squared, groups, inside=True)
    assert found.tolist() == [1.5, 8.0, 1.5, 8.0]
    assert where.tolist() == [2, 3, 0, 1]
    found, where = nearest(squared, groups, inside=False)
    assert found.tolist() == [1.0, 0.5, 0.5, 7.5, 11.0]
    assert where.tolist() == [1, 2, 1, 2, 3]
    alone, _ = nearest(squared[:1, :1], groups[:1], inside=False)
    assert alone.numel() == 0


def test_the_map_is_that_of_a_singular_value_decomposition():
    x = walk(independent(6), 3, 0.2).double()
    fit = torch.arange(0, 18, 3)
    mean = x[fit].mean(0)
    _, s, v = torch.linalg.svd(x[fit] - mean, full_matrices=False)
    expected = (x - mean) @ v[:2].T
    xy, shares = project((x - x.mean(0)) @ (x - x.mean(0)).T, fit)
    assert torch.allclose(xy.abs(), expected.abs())
    assert torch.allclose(shares, s[:2].square() / s.square().sum())


@pytest.mark.parametrize("rows", [torch.ones(1, 4), torch.ones(3, 4), torch.eye(2)])
def test_axes_that_do_not_exist_are_zero(rows):
    rows = rows.double()
    xy, shares = project(rows @ rows.T, torch.arange(len(rows)))
    assert xy.shape == (len(rows), 2)
    assert xy[:, 1].eq(0).all()
    assert shares[1] == 0
    assert torch.isfinite(xy).all()
