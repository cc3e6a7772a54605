"""Generator folders are read strictly: whatever is missing, extra or wrong is named."""

from __future__ import annotations

import json
import os

import matrix
import pytest
import torch

from hypergen._utils.io import load_safetensors, save_safetensors
from hypergen.conditions import HashingEncoder, TaskEncoder
from hypergen.errors import ConditionError, RunError, RunNotFoundError, WeightsError
from hypergen.generators import GainHead, Generator, load

PAIRS = [("mlp", "lora"), ("transformer_slot", "lora_llama"), ("t2l_S", "peft_dora")]
pairs = pytest.mark.parametrize(("name", "spec_name"), PAIRS)


@pytest.fixture
def folder(tmp_path, name, spec_name):
    return matrix.generator(name, spec_name).save_pretrained(tmp_path / "generator")


def tensors_of(folder):
    return load_safetensors(folder / "generator.safetensors")


def put(folder, tensors):
    save_safetensors(folder / "generator.safetensors", tensors, {"format": "pt"})


@pairs
def test_each_missing_tensor_is_named(folder):
    tensors = tensors_of(folder)
    for key in tensors:
        put(folder, {k: v for k, v in tensors.items() if k != key})
        with pytest.raises(RunError, match=f"generator.safetensors lacks the tensor '{key}'"):
            Generator.from_pretrained(folder)


@pairs
def test_an_extra_tensor_is_named(folder):
    put(folder, {**tensors_of(folder), "odd": torch.zeros(1)})
    with pytest.raises(RunError, match="unexpected tensor 'odd'"):
        Generator.from_pretrained(folder)


@pairs
def test_a_tensor_of_another_shape_is_named(folder):
    tensors = tensors_of(folder)
    key = next(k for k, v in tensors.items() if v.dim() == 2)
    put(folder, {**tensors, key: tensors[key][:-1]})
    with pytest.raises(RunError, match=f"tensor '{key}' has shape"):
        Generator.from_pretrained(folder)


@pytest.fixture
def saved(tmp_path):
    return matrix.generator("mlp", "lora").save_pretrained(tmp_path / "generator")


def edit(folder, **changes):
    path = folder / "generator.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "generator.json has format version 99"),
        ({"class": "MLPGeneratr"}, "unknown generator 'MLPGeneratr'.* Did you mean 'MLPGenerator'"),
        ({"spec": ...}, "generator.json is damaged: KeyError.'spec'"),
        ({"init_args": {"width": 3}}, "generator.json is damaged: .*width"),
        ({"encoder": {"class": "Hashing"}}, "unknown condition encoder 'Hashing'"),
    ],
)
def test_a_damaged_config_is_told(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises((RunError, ConditionError), match=message):
        Generator.from_pretrained(saved)


def test_a_cut_file_and_missing_files_are_told(saved, tmp_path):
    path = saved / "generator.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=r"generator\.safetensors is not a valid safetensors file"):
        Generator.from_pretrained(saved)
    path.unlink()
    with pytest.raises(RunNotFoundError, match=r"generator\.safetensors does not exist"):
        Generator.from_pretrained(saved)
    with pytest.raises(RunNotFoundError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no generator"):
        load(tmp_path / "empty")


def test_load_takes_the_run_the_generator_and_nothing_unsafe(saved, tmp_path):
    assert load(tmp_path).spec == load(saved).spec == matrix.spec("lora")
    assert sorted(os.listdir(saved)) == ["README.md", "generator.json", "generator.safetensors"]


def test_nan_parameters_are_not_saved(tmp_path):
    net = matrix.generator("mlp", "lora")
    with torch.no_grad():
        next(net.head.parameters())[0] = float("nan")
    with pytest.raises(WeightsError, match="tensor 'head"):
        net.save_pretrained(tmp_path / "generator")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pairs
def test_tensors_can_be_stored_rounded(folder, tmp_path, dtype):
    whole = Generator.from_pretrained(folder)
    small = whole.save_pretrained(tmp_path / "small", dtype=dtype)
    stored, state = tensors_of(small), whole.state_dict()
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {dtype}
    sizes = [(f / "generator.safetensors").stat().st_size for f in (small, folder)]
    assert sizes[0] < 0.75 * sizes[1]
    loaded = Generator.from_pretrained(small)
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == state[key].dtype
        rounded = state[key].to(dtype) if state[key].is_floating_point() else state[key]
        assert torch.equal(tensor, rounded.to(tensor.dtype)), key
    # Nothing is lost the second time, whatever the dtype of the file.
    for again in (dtype, None):
        twice = Generator.from_pretrained(loaded.save_pretrained(tmp_path / "twice", dtype=again))
        assert twice.spec == whole.spec
        assert torch.equal(twice.spec.initial(), loaded.spec.initial())
        for key, tensor in twice.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[key]), key
    assert twice.generate("x").dtype == torch.float32


def test_a_dtype_that_is_too_small_is_refused(tmp_path):
    net = matrix.generator("mlp", "lora")
    with torch.no_grad():
        net.head.offset[-1] = 1e5
    with pytest.raises(WeightsError, match=r"'head\.offset' holds 1e\+05, above what"):
        net.save_pretrained(tmp_path / "generator", dtype=torch.float16)
    with pytest.raises(WeightsError, match="int8 holds whole numbers"):
        net.save_pretrained(tmp_path / "generator", dtype=torch.int8)
    assert list(tmp_path.iterdir()) == []
    net.save_pretrained(tmp_path / "generator", dtype=torch.bfloat16)


def test_nan_weights_name_the_slot():
    net = matrix.generator("mlp", "lora")
    with torch.no_grad():
        net.head.offset[-1] = float("inf")
    with pytest.raises(WeightsError, match=f"slot '{matrix.spec('lora').names[-1]}' contains NaN"):
        net.generate("x")


def test_an_encoder_given_at_loading_must_be_the_recorded_one(saved):
    assert Generator.from_pretrained(saved, encoder=HashingEncoder(16)).encoder.dim == 16
    with pytest.raises(ConditionError, match="trained with another encoder"):
        Generator.from_pretrained(saved, encoder=TaskEncoder(3, 16))


def test_learnt_encoders_gain_and_provenance_travel_along(tmp_path):
    from hypergen.generators import MLPGenerator

    net = MLPGenerator(matrix.spec("lora"), TaskEncoder(4, 16), hidden=8, depth=1)
    net.gain = GainHead(16, 4)
    pooled = net.encode(task=[0, 1, 2, 3]).pooled.detach()
    net.gain.fit(pooled, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.arange(4))
    net.provenance = {"zoo": "digits"}
    matrix_condition = net.encode(task=[2, 0])
    loaded = load(net.save_pretrained(tmp_path / "g"))
    assert loaded.provenance == {"zoo": "digits"}
    a = net.generate(condition=matrix_condition)
    b = loaded.generate(task=[2, 0])
    assert torch.equal(a.flat(), b.flat())
    assert torch.equal(a.expected_gain, b.expected_gain)
