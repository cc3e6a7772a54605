"""Every generator with every spec: what each pair of the matrix must do."""

from __future__ import annotations

import matrix
import pytest
import tiny
import torch
from torch import Tensor

from hypergen.conditions import Condition
from hypergen.generators import Generator
from hypergen.specs import Weights

pairs = pytest.mark.parametrize(
    ("name", "spec_name"),
    matrix.PAIRS,
    ids=lambda value: value,
)


def apart(a: Weights, b: Weights) -> list[float]:
    """Largest difference of each group, relative to its largest number."""
    return [
        float((x - y).abs().max() / x.abs().max().clamp(min=1e-12))
        for x, y in zip(a.groups, b.groups, strict=True)
    ]


@pairs
def test_shapes_and_numbers(name, spec_name):
    spec = matrix.spec(spec_name)
    weights = matrix.stepped(name, spec_name)(matrix.condition())
    assert weights.spec is spec
    assert len(weights) == 3
    for slot in spec:
        assert weights[slot.name].shape == (3, *slot.shape)
    assert weights.flat().shape == (3, spec.numel)
    weights.check_finite()
    one = matrix.stepped(name, spec_name)(matrix.condition()[:1])
    assert len(one) == 1
    assert one[spec.names[0]].shape == (1, *spec.slots[0].shape)


@pairs
def test_one_batched_call_equals_a_loop_over_networks(name, spec_name):
    target, base = matrix.target(spec_name), matrix.SPECS[spec_name].model
    with torch.no_grad():
        weights = matrix.stepped(name, spec_name)(matrix.condition())
        inputs = tiny.batch(base, 6)
        batched = tiny.logits(target(weights, inputs))
        loop = torch.cat(
            [tiny.logits(target(weights[i], tiny.rows(inputs, 2 * i, 2 * i + 2))) for i in range(3)]
        )
    assert torch.allclose(batched, loop, rtol=1e-5, atol=1e-5)
    # The three networks differ: rotated by one network, the outputs are others.
    with torch.no_grad():
        rotated = tiny.logits(target(weights[[1, 2, 0]], inputs))
    assert ((rotated - batched).abs().max() > 1e-6) == (name not in matrix.SAME)


@pytest.mark.parametrize(
    ("name", "spec_name"),
    [pair for pair in matrix.PAIRS if pair[0] not in matrix.CONSTANT],
    ids=lambda value: value,
)
def test_gradients_reach_the_condition_and_every_group(name, spec_name):
    """After one step: see `matrix.step` for why an exact-zero start passes no gradient on."""
    net, target = matrix.stepped(name, spec_name), matrix.target(spec_name)
    condition = matrix.condition()
    leaf = Condition(
        condition.tokens.clone().requires_grad_(),
        condition.mask,
        condition.pooled.clone().requires_grad_(),
    )
    weights = net(leaf)
    for group in weights.groups:
        group.retain_grad()
    inputs = tiny.batch(matrix.SPECS[spec_name].model, 3)
    tiny.logits(target(weights, inputs)).square().sum().backward()
    for group, tensor in zip(weights.spec.groups, weights.groups, strict=True):
        slot = weights.spec.slots[group.start].name
        assert tensor.grad is not None, slot
        assert bool((tensor.grad.abs() > 0).any()), slot
        assert bool(torch.isfinite(tensor.grad).all()), slot
    grads = [t.grad for t in (leaf.tokens, leaf.pooled) if t.grad is not None]
    assert all(bool(g.flatten(1).abs().amax(1).gt(0).all()) for g in grads)
    assert grads
    net.zero_grad()


@pairs
def test_every_group_follows_the_condition(name, spec_name):
    weights = matrix.stepped(name, spec_name)(matrix.condition())
    for group, tensor in zip(weights.spec.groups, weights.groups, strict=True):
        for index in range(len(group)):
            slot = weights.spec.slots[group.start + index].name
            first, second, third = tensor[:, index]
            if name in matrix.SAME or group.role in matrix.ALIKE.get(name, ()):
                assert torch.equal(first, second), slot
                assert torch.equal(first, third), slot
                continue
            assert not torch.equal(first, second), slot
            assert not torch.equal(first, third), slot


@pairs
def test_same_seed_same_bytes(name, spec_name):
    first = matrix.generator(name, spec_name, seed=3)
    again = matrix.generator(name, spec_name, seed=3)
    a = first.generate(matrix.TEXTS, seed=1)
    b = again.generate(matrix.TEXTS, seed=1)
    assert torch.equal(a.flat(), b.flat())
    assert torch.equal(a.flat(), first.generate(matrix.TEXTS, seed=1).flat())


@pairs
def test_neighbours_and_padding_do_not_matter(name, spec_name):
    net, condition = matrix.stepped(name, spec_name), matrix.condition()
    with torch.no_grad():
        together = net(condition)
        reordered = net(condition[[2, 0, 1]])[[1, 2, 0]]
        padded = net(pad(condition, 7))
        assert max(apart(together, reordered)) < 1e-6
        assert max(apart(together, padded)) < 1e-6
        for i in range(3):
            alone = net(condition[i].trim())
            assert max(apart(together[i], alone)) < 1e-6


def pad(condition: Condition, extra: int) -> Condition:
    tokens = torch.nn.functional.pad(condition.tokens, (0, 0, 0, extra))
    mask = torch.nn.functional.pad(condition.mask, (0, extra))
    return Condition(tokens, mask, condition.pooled)


@pairs
def test_start_is_the_base_or_a_network_of_its_size(name, spec_name):
    row, spec = matrix.SPECS[spec_name], matrix.spec(spec_name)
    net = matrix.generator(name, spec_name)
    with torch.no_grad():
        weights = net(matrix.condition())
        if name in matrix.MEANS:
            if name != "weighted_updates":  # another basis of the same updates
                experts = matrix.experts(spec_name).weights.flat()
                room = 1e-5 * experts.abs().max()
                assert bool((weights.flat() <= experts.amax(0) + room).all())
                assert bool((weights.flat() >= experts.amin(0) - room).all())
            return
        if row.starts_as_base is False or name in matrix.AUTOENCODED:
            for group, tensor in zip(spec.groups, weights.groups, strict=True):
                slots = spec.slots[group.start : group.stop]
                largest = max(abs(s.mean) + 10 * max(s.std, s.scale) for s in slots)
                assert float(tensor.abs().max()) <= largest, slots[0].name
            return
        inputs = tiny.batch(row.model, 3)
        target = matrix.target(spec_name)
        # One network at a time: a batched product may round differently from the base's own.
        for i in range(3):
            one = tiny.rows(inputs, i, i + 1)
            change = tiny.logits(target(weights[i], one)) - tiny.logits(target.base(one))
            assert float(change.abs().max()) <= float(row.starts_as_base is not True and 1e-6)


@pairs
def test_saved_generators_are_loaded_as_they_were(name, spec_name, tmp_path):
    net = matrix.stepped(name, spec_name)
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert type(loaded) is type(net)
    assert loaded.spec == net.spec
    assert not loaded.training
    weights = loaded.generate(matrix.TEXTS)
    assert torch.equal(weights.flat(), net.generate(matrix.TEXTS).flat())
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {
        k: v.dtype for k, v in net.state_dict().items()
    }


@pytest.mark.parametrize("spec_name", matrix.SPECS)
def test_saved_weights_give_the_same_logits(spec_name, tmp_path):
    target = matrix.target(spec_name)
    weights = matrix.stepped("mlp", spec_name).generate(matrix.TEXTS)
    weights.save(tmp_path / "weights.safetensors")
    loaded = Weights.load(tmp_path / "weights.safetensors")
    inputs = tiny.batch(matrix.SPECS[spec_name].model, 3)
    assert loaded.spec == weights.spec
    with torch.no_grad():
        assert torch.equal(logits(target, loaded, inputs), logits(target, weights, inputs))


def logits(target, weights: Weights, inputs) -> Tensor:
    return tiny.logits(target(weights, inputs))


@pytest.mark.parametrize("spec_name", matrix.SPECS)
def test_specs_know_whether_they_start_as_the_base(spec_name):
    row, spec, target = matrix.SPECS[spec_name], matrix.spec(spec_name), matrix.target(spec_name)
    assert spec.is_additive == (row.starts_as_base is not False)
    if not spec.is_additive:
        with pytest.raises(ValueError, match="no neutral weights"):
            spec.neutral()
        return
    inputs = tiny.batch(row.model, 2)
    with torch.no_grad():
        change = logits(target, spec.neutral(2), inputs) - tiny.logits(target.base(inputs))
    assert float(change.abs().max()) <= 1e-6


@pytest.mark.parametrize("spec_name", matrix.SPECS)
def test_the_frozen_model_stays_as_it_is(spec_name):
    row = matrix.SPECS[spec_name]
    net = tiny.make(row.model)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    asks = {name: p.requires_grad for name, p in net.named_parameters()}
    children = [type(m) for m in net.modules()]
    spec = row.make(net)
    assert {name: p.requires_grad for name, p in net.named_parameters()} == asks
    assert spec == matrix.spec(spec_name)
    target = matrix.make_target(net, spec)
    inputs = tiny.batch(row.model, 2)
    plain = tiny.logits(net(**inputs) if isinstance(inputs, dict) else net(inputs))
    weights = matrix.stepped("mlp", spec_name)(matrix.condition()[:2])
    loss = tiny.logits(target(weights, inputs)).square().sum()
    loss.backward()
    assert all(p.grad is None for p in net.parameters())
    assert [type(m) for m in net.modules()] == children
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    again = tiny.logits(net(**inputs) if isinstance(inputs, dict) else net(inputs))
    assert torch.equal(plain, again)
    matrix.stepped("mlp", spec_name).zero_grad()
