"""Symmetry: groups that leave the function alone, checked places, JSON."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
import zoo_networks
from torch import nn
from torch.func import functional_call

from hypergen.errors import SpecError, UsageError, WeightsError
from hypergen.specs import FullSpec, LoRASpec, Slot, WeightSpec
from hypergen.targets import make_target
from hypergen.zoo.canonical import (
    PermutationGroup,
    Place,
    Symmetry,
    augment,
    random_permutations,
    symmetry_of,
)
from hypergen.zoo.networks import MLP, ViT

SPEC = MLP(4, (3,), 2).spec()


def one(*places, size=3):
    return [PermutationGroup("units", size, tuple(Place(*place) for place in places))]


@pytest.mark.parametrize("name", zoo_networks.NETWORKS)
def test_each_group_keeps_the_function(name):
    network = zoo_networks.NETWORKS[name]
    whole = network.symmetry()
    flat = zoo_networks.weights_of(network, 3)
    for group in whole.groups:
        symmetry = Symmetry(whole.spec, [group])
        moved = augment(flat, symmetry, seed=1)
        zoo_networks.assert_same_function(network, flat, moved)
        assert torch.equal(moved.sort(1).values, flat.sort(1).values)
        assert group.size == 1 or not torch.equal(moved, flat)


@pytest.mark.parametrize("name", ["mlp-batch", "cnn-batch-residual", "vit"])
def test_a_group_with_a_place_left_out_changes_the_function(name):
    network = zoo_networks.NETWORKS[name]
    flat, x = zoo_networks.weights_of(network, 2), zoo_networks.inputs_of(network, 8)
    before = zoo_networks.outputs_of(network, flat, x)
    for group in network.symmetry().groups:
        for place in group.places:
            rest = tuple(other for other in group.places if other != place)
            broken = Symmetry(network.spec(), [PermutationGroup("units", group.size, rest)])
            after = zoo_networks.outputs_of(network, augment(flat, broken, seed=2), x)
            # One that does not matter: keys' biases drop out of the softmax.
            if not place.slot.endswith("key.bias"):
                assert float((after - before).abs().max()) > 1e-5, place


@pytest.mark.parametrize("name", zoo_networks.NETWORKS)
def test_every_hidden_axis_is_in_some_group(name):
    network = zoo_networks.NETWORKS[name]
    symmetry = network.symmetry()
    free = {(p.slot, p.axis) for g in symmetry.groups for p in g.places}
    fixed = [
        (slot.name, axis)
        for slot in network.spec()
        for axis in range(min(2, len(slot.shape)))
        if (slot.name, axis) not in free
    ]
    # Left are inputs, outputs and positions, and nothing else.
    slots = [name for name in network.module().state_dict() if name != "position"]
    ends = {(slots[0], 1), (slots[-2], 0), (slots[-1], 0)}
    ends |= {("position", 0)} if name == "vit" else set()
    assert set(fixed) == ends


def test_index_and_source():
    symmetry = MLP(4, (3,), 2).symmetry()
    order = torch.tensor([[2, 0, 1]])
    flat = torch.randn(1, SPEC.numel)
    moved = SPEC.unpack(flat.gather(1, symmetry.index([order])))
    before = SPEC.unpack(flat)
    assert torch.equal(moved["0.weight"], before["0.weight"][:, order[0]])
    assert torch.equal(moved["0.bias"], before["0.bias"][:, order[0]])
    assert torch.equal(moved["2.weight"], before["2.weight"][:, :, order[0]])
    assert torch.equal(moved["2.bias"], before["2.bias"])


def test_fused_projections_and_flattened_images():
    class Fused(nn.Module):
        """Attention whose query, key and value are one matrix; then a flattened image."""

        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(6, 12)
            self.out = nn.Linear(4, 6)
            self.conv = nn.Conv1d(2, 4, 1)
            self.fc = nn.Linear(4 * 3, 2)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
            x = self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))
            return self.fc(torch.relu(self.conv(x.view(-1, 2, 3))).flatten(1))

    net = Fused()
    spec = FullSpec(net)
    symmetry = Symmetry(
        spec,
        [
            PermutationGroup(
                "heads",
                2,
                (
                    Place("qkv.weight", 0, outer=3, inner=2),
                    Place("qkv.bias", 0, outer=3, inner=2),
                    Place("out.weight", 1, inner=2),
                ),
            ),
            PermutationGroup(
                "channels",
                4,
                (Place("conv.weight", 0), Place("conv.bias", 0), Place("fc.weight", 1, inner=3)),
            ),
        ],
    )
    flat = torch.randn(1, spec.numel)
    x = torch.randn(5, 3, 6)
    before = functional_call(net, {k: v[0] for k, v in spec.unpack(flat).items()}, (x,))
    moved = flat.gather(1, symmetry.index([torch.tensor([[1, 0]]), torch.tensor([[2, 3, 0, 1]])]))
    after = functional_call(net, {k: v[0] for k, v in spec.unpack(moved).items()}, (x,))
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-5)
    assert int((moved != flat).sum()) > spec.numel // 2


def test_a_recurrent_matrix_has_its_group_on_both_axes():
    net = nn.RNN(2, 4, batch_first=True)
    spec = FullSpec(net)
    rows = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    places = (*(Place(row, 0) for row in rows), Place("weight_hh_l0", 1))
    symmetry = Symmetry(spec, [PermutationGroup("state", 4, places)])
    flat, order = torch.randn(1, spec.numel), torch.tensor([[3, 1, 0, 2]])
    moved = flat.gather(1, symmetry.index([order]))
    x = torch.randn(2, 5, 2)
    first, second = (
        functional_call(net, {k: v[0] for k, v in spec.unpack(f).items()}, (x,))[0]
        for f in (flat, moved)
    )
    assert torch.allclose(first[..., order[0]], second, atol=1e-5)


def test_json_and_back():
    symmetry = ViT().symmetry()
    again = Symmetry.from_dict(json.loads(json.dumps(symmetry.to_dict())), symmetry.spec)
    assert again == symmetry
    assert hash(again) == hash(symmetry)
    assert Symmetry.from_dict(symmetry.to_dict(), symmetry.spec) == symmetry
    short = {"format_version": 1, "groups": [{"name": "h", "size": 3, "places": []}]}
    short["groups"][0]["places"] = [{"slot": "0.bias", "axis": 0}]
    assert Symmetry.from_dict(short, SPEC).groups[0].places == (Place("0.bias", 0, 1, 1),)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (one(("1.weight", 0)), r"'units' names slot '1\.weight'.* Did you mean '\d\.weight'"),
        (one(("0.weight", 2)), r"slot '0\.weight' has shape \(3, 4\), no axis 2"),
        (one(("0.weight", -1)), "no axis -1"),
        (one(("0.weight", 1)), r"axis 1 of slot '0\.weight' is 4 long, its units take 3"),
        (one(("0.weight", 0, 1, 2)), r"take 6 \(outer 1 · units 3 · inner 2\)"),
        (one(("0.weight", 0, -1, -1)), r"slot '0\.weight' must be at least 1"),
        (one(("0.bias", 0), ("0.bias", 0)), r"slot '0\.bias' is taken already, by 'units'"),
        (one(size=3), "'units' has no units or no places"),
        (one(("0.bias", 0)) + one(("0.weight", 0)), "two permutation groups are called 'units'"),
    ],
)
def test_places_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(SpecError, match=message):
        Symmetry(SPEC, groups)


GOOD = {"name": "h", "size": 3, "places": [{"slot": "0.bias", "axis": 0}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"format_version": 2}, "format version 2"),
        ([], r"format version \[\]"),
        (
            {"format_version": 1, "groups": [{**GOOD, "places": [{"slot": ["a"], "axis": 0}]}]},
            r"names a slot by \['a'\]",
        ),
        ({"format_version": 1}, "groups of a symmetry must be a list"),
        ({"format_version": 1, "groups": [3]}, "groups of a symmetry must be a list"),
        ({"format_version": 1, "groups": [{"size": 3, "places": []}]}, "has no field 'name'"),
        ({"format_version": 1, "groups": [{**GOOD, "extra": 1}]}, "unknown field 'extra'"),
        ({"format_version": 1, "groups": [{**GOOD, "size": "3"}]}, "size .* not '3'"),
        ({"format_version": 1, "groups": [{**GOOD, "places": [{"slot": "a"}]}]}, "no field 'axis'"),
        (
            {"format_version": 1, "groups": [{**GOOD, "places": [{"slot": "a", "axis": 0.5}]}]},
            "axis .* not 0.5",
        ),
    ],
)
def test_damaged_json_is_refused(data, message):
    with pytest.raises(SpecError, match=message):
        Symmetry.from_dict(data, SPEC)


def test_weights_and_permutations_must_fit():
    symmetry = MLP(4, (3,), 2).symmetry()
    with pytest.raises(WeightsError, match=r"shape \[N, 23\], not \[23\]"):
        symmetry.check(torch.zeros(23))
    with pytest.raises(WeightsError, match=r"not \[2, 23\] of torch\.int64"):
        symmetry.check(torch.zeros(2, 23, dtype=torch.long))
    with pytest.raises(UsageError, match="0 permutations for the 1 groups"):
        symmetry.index([])
    with pytest.raises(UsageError, match=r"'hidden0' have shape \[1, 4\], expected \[1, 3\]"):
        symmetry.index([torch.zeros(1, 4, dtype=torch.long)])


def test_the_symmetry_of_an_architecture_of_a_zoo():
    for network in zoo_networks.NETWORKS.values():
        stored = WeightSpec.from_dict(network.spec().to_dict())
        assert symmetry_of(stored, network.to_dict()) == network.symmetry()
    with pytest.raises(UsageError, match="without description is unknown"):
        symmetry_of(SPEC, {})
    with pytest.raises(UsageError, match="unknown network 'Resnet'"):
        symmetry_of(SPEC, {"class": "Resnet"})
    other = WeightSpec([Slot("0.weight", (3, 4), "weight")])
    with pytest.raises(SpecError, match=r"names slot '0\.bias', which the spec does not have"):
        symmetry_of(other, MLP(4, (3,), 2).to_dict())


def test_ranks_of_a_lora_are_units():
    net = tiny.make("llama")
    spec = LoRASpec(net, "all-linear", r=3)
    symmetry = symmetry_of(spec, {"class": "PeftModel"})
    flat = 0.3 * torch.randn(2, spec.numel)
    moved = augment(flat, symmetry, seed=0)
    target, inputs = make_target(net, spec), tiny.batch("llama", 4)
    before = tiny.logits(target(spec.from_flat(flat), inputs))
    after = tiny.logits(target(spec.from_flat(moved), inputs))
    assert torch.allclose(before, after, atol=1e-5 * float(before.abs().max()))
    assert len(random_permutations(symmetry, 1, 0)) == len(spec.modules)
