"""Weights: indexing, arithmetic, files, fine-tuning."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from hypergen._utils.io import save_safetensors
from hypergen.errors import RunError, WeightsError
from hypergen.specs import FullSpec, LoRASpec, Slot, Weights, WeightSpec
from hypergen.targets import make_target

SPEC = WeightSpec(
    [
        Slot("a", (2, 3), "weight"),
        Slot("b", (3,), "bias"),
        Slot("c", (2, 3), "weight"),
        Slot("t", (), "other"),
    ]
)


def weights(batch: int = 3, flat: bool = True) -> Weights:
    values = torch.randn(batch, SPEC.numel, generator=torch.Generator().manual_seed(0))
    if flat:
        return SPEC.from_flat(values)
    return Weights(SPEC, [group.clone() for group in SPEC.split(values)])


both = pytest.mark.parametrize("flat", [True, False], ids=["flat", "groups"])


@both
def test_indexing_keeps_the_batch_axis(flat):
    w = weights(flat=flat)
    w.expected_gain = torch.tensor([0.1, 0.2, 0.3])
    for index, rows in [
        (1, [1]),
        (-1, [2]),
        (slice(0, 2), [0, 1]),
        ([2, 0], [2, 0]),
        ([True, False, True], [0, 2]),
        (torch.tensor(1), [1]),
        (torch.tensor([1, 1, 1, 1]), [1, 1, 1, 1]),
    ]:
        picked = w[index]
        assert torch.equal(picked.flat(), w.flat()[rows])
        assert torch.equal(picked["t"], w["t"][rows])
        assert torch.equal(picked.expected_gain, w.expected_gain[rows])
    assert [len(one) for one in w] == [1, 1, 1]
    assert w["a"].shape == (3, 2, 3)
    assert list(w.named()) == list(SPEC.names)
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 networks"):
            w[index]


def test_unknown_slots_point_to_the_right_one():
    spec = LoRASpec(tiny.model("mlp"), ["fc1"], r=2)
    with pytest.raises(WeightsError, match=r"no slot 'fc1\.lora_A'.* Did you mean 'fc1\.lora_A\.w"):
        spec.from_flat(spec.initial())["fc1.lora_A"]


@both
def test_arithmetic_is_entry_by_entry(flat):
    w = weights(flat=flat)
    f = w.flat().clone()
    assert torch.equal((w + w).flat(), f + f)
    assert torch.equal((w - w).flat(), torch.zeros_like(f))
    assert torch.equal((w * 2.0).flat(), f * 2)
    assert torch.equal((2.0 * w).flat(), f * 2)
    assert torch.equal((-w).flat(), -f)
    factors = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal((w * factors).flat(), f * factors[:, None])
    c = torch.randn(2, 3)
    assert torch.allclose(w.mix(c).flat(), c @ f)
    assert torch.allclose(w.mix(c[0]).flat(), c[:1] @ f)
    assert torch.equal(Weights.cat([w, w[1]]).flat(), torch.cat([f, f[1:2]]))
    with pytest.raises(WeightsError, match=r"\[2\], expected \[3\]"):
        w * torch.ones(2)
    with pytest.raises(WeightsError, match=r"expected \[C, 3\]"):
        w.mix(torch.ones(2, 2))
    with pytest.raises(WeightsError, match="no weights to join"):
        Weights.cat([])


def test_different_specs_do_not_mix():
    other = WeightSpec([Slot("a", (2, 3), "weight"), Slot("b", (4,), "bias")])
    with pytest.raises(WeightsError, match=r"slot 'c' is \(2, 3\) here, absent there"):
        weights(1) + other.from_flat(torch.zeros(other.numel))
    net = tiny.model("mlp")
    one, two = LoRASpec(net, ["fc1"], 2, 4), LoRASpec(net, ["fc1"], 2, 8)
    with pytest.raises(WeightsError, match="other settings"):
        Weights.cat([one.from_flat(one.initial()), two.from_flat(two.initial())])


@both
def test_cast_detach_and_clone(flat):
    w = weights(flat=flat)
    half = w.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half["a"].dtype == torch.bfloat16
    assert torch.equal(half.flat(), w.flat().bfloat16())
    copy = w.clone()
    with torch.no_grad():
        copy.flat().zero_()
    assert float(w.flat().abs().sum()) > 0
    leaf = w.flat().clone().requires_grad_()
    assert SPEC.from_flat(leaf).detach().flat().requires_grad is False


@both
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_generated_weights_are_the_start_of_fine_tuning(flat, optimizer):
    net = tiny.make("mlp")
    spec = FullSpec(net)
    w = spec.from_flat(spec.initial(0))
    if not flat:
        w = Weights(spec, [g.clone() for g in w.groups])
    target, x = make_target(net, spec), tiny.batch("mlp", 16)
    y = torch.arange(16) % 3
    w = w.detach().requires_grad_()
    optim = optimizer(w.parameters(), lr=0.05)
    losses, seen = [], w["fc1.weight"].detach().clone()
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(target(w, x), y)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    # The named views moved, and nothing holds an older copy.
    assert not torch.equal(w["fc1.weight"], seen)
    flat_view = spec.unpack(w.flat().detach())
    for name in spec.names:
        assert torch.equal(w[name].detach(), flat_view[name])
        assert torch.equal(w[0].detach()[name], flat_view[name])


def test_weights_of_a_graph_are_no_leaves():
    graph = SPEC.from_flat(torch.randn(1, SPEC.numel, requires_grad=True) * 2)
    with pytest.raises(WeightsError, match=r"detach\(\) first"):
        graph.requires_grad_()


def test_gradients_reach_the_flat_buffer_through_names():
    leaf = torch.randn(2, SPEC.numel, requires_grad=True)
    w = SPEC.from_flat(leaf)
    (w["c"].sum() + 2 * w["t"].sum()).backward()
    expected = {"a": 0.0, "b": 0.0, "c": 1.0, "t": 2.0}
    for name, grad in SPEC.unpack(leaf.grad).items():
        assert bool((grad == expected[name]).all()), name


def test_groups_of_a_wrong_shape_name_a_slot():
    groups = list(weights(2).groups)
    with pytest.raises(WeightsError, match="groups given, the spec has 3"):
        Weights(SPEC, groups[:1])
    groups[1] = groups[1][..., :-1]
    with pytest.raises(WeightsError, match=r"slot 'b' has shape \(2, 1, 2\), expected \(2, 1, 3\)"):
        Weights(SPEC, groups)


@pytest.mark.parametrize("name", SPEC.names)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_names_the_slot_and_nothing_is_written(name, value, tmp_path):
    w = weights(2).clone()
    with torch.no_grad():
        w[name][1].fill_(value)
    with pytest.raises(WeightsError, match=f"slot '{name}' contains NaN"):
        w.save(tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_finite_numbers_pass_whatever_their_sum_and_infinities_never():
    w = weights(2).clone()
    with torch.no_grad():
        w[SPEC.names[0]].fill_(3e38)  # whose sum is infinite
        assert w.check_finite() is w
        w[SPEC.names[0]][0].fill_(float("inf"))
        w[SPEC.names[0]][1].fill_(-float("inf"))
    with pytest.raises(WeightsError, match="contains NaN or infinity"):
        w.check_finite()


@both
def test_files_keep_everything(flat, tmp_path):
    w = weights(flat=flat)
    w.expected_gain = torch.tensor([0.1, 0.2, 0.3])
    w.provenance = {"text": ["α"], "seed": 3}
    path = tmp_path / "deep" / "w.safetensors"
    w.save(path)
    first = path.read_bytes()
    loaded = Weights.load(path)
    assert loaded.spec == SPEC
    assert torch.equal(loaded.flat(), w.flat())
    assert torch.equal(loaded.expected_gain, w.expected_gain)
    assert loaded.provenance == w.provenance
    loaded.save(path)
    assert path.read_bytes() == first


def test_rows_keep_the_sentence_that_they_were_made_from():
    w = weights(4)
    w.provenance = {"text": ["a", "b"], "generator": "G"}  # two draws of each
    assert [one.provenance["text"] for one in w] == ["a", "a", "b", "b"]
    assert w[[3, 0]].provenance == {"text": ["b", "a"], "generator": "G"}
    assert w[1:3][1].provenance["text"] == "b"
    assert w.provenance["text"] == ["a", "b"]
    w.provenance = {"text": ["a", "b", "c"]}  # which of them a row is made from is not known
    assert w[0].provenance["text"] == ["a", "b", "c"]
    w.provenance = {"text": "a"}
    assert w[0].provenance["text"] == "a"


def test_damaged_files_are_told(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(path, {"a": torch.zeros(1)}, {"format": "pt"})
    with pytest.raises(WeightsError, match="holds no hypergen spec"):
        Weights.load(path)
    save_safetensors(path, {"a": torch.zeros(1)}, {"hypergen.spec": "{"})
    with pytest.raises(RunError, match="spec in its header is damaged"):
        Weights.load(path)
    spec = json.dumps(SPEC.to_dict())
    save_safetensors(path, {"a": torch.zeros(1, 2, 3)}, {"hypergen.spec": spec})
    with pytest.raises(WeightsError, match="slot 'c' is missing"):
        Weights.load(path)
