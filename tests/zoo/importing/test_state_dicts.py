"""Whole networks out of safetensors files and files of `torch.save`."""

from __future__ import annotations

import zipfile

import pytest
import torch
from import_sources import Bomb, reasons, state
from safetensors.torch import save_file
from torch import nn

from hypergen.errors import UsageError
from hypergen.specs import FullSpec
from hypergen.targets import make_target
from hypergen.zoo.importing import import_zoo
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Zoo, verify_zoo


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_every_form_of_a_state_dict_is_one_architecture(tmp_path, source):
    states = [state(i) for i in range(6)]
    save_file(states[0], source / "0.safetensors")
    torch.save(states[1], source / "1.pt")
    torch.save({"state_dict": states[2], "epoch": 3}, source / "2.pth")
    torch.save({"model": {f"module.{k}": v for k, v in states[3].items()}}, source / "3.pt")
    compiled = {f"_orig_mod.module.{k}": v for k, v in states[4].items()}
    torch.save({"model_state_dict": compiled}, source / "4.pt")
    torch.save(states[5], source / "5.pt", _use_new_zipfile_serialization=False)
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 6
    assert verify_zoo(tmp_path / "zoo") == []
    zoo = Zoo(tmp_path / "zoo")
    assert [row.run for row in zoo] == list("012345")
    for i, values in enumerate(states):
        weights = zoo.weights([i])
        floats = {k: v for k, v in values.items() if v.is_floating_point()}
        assert set(weights.named()) == set(floats)
        assert all(torch.equal(weights[k][0], v) for k, v in floats.items())
    roles = {slot.name: slot.role for slot in zoo.spec}
    assert roles["0.weight"] == "weight"
    assert roles["0.bias"] == "bias"
    assert roles["1.weight"] == "norm"
    assert roles["1.running_var"] == "other"
    left = {entry.path: entry.left_out for entry in report.entries}
    assert left["0.safetensors"] == ("1.num_batches_tracked (int64)",)
    assert left["2.pth"] == ("1.num_batches_tracked (int64)", "epoch (int)")


def test_an_unknown_network_runs_and_is_exported(tmp_path, source):
    torch.save(state(1), source / "net.pt")
    import_zoo(source, tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    target = make_target(net, zoo.spec)
    x = torch.randn(5, 4)
    out = target(zoo.weights(), x)
    net.load_state_dict(state(1))
    assert torch.allclose(out.detach(), net(x), atol=1e-6)
    (folder,) = zoo.weights().save_pretrained(tmp_path / "out")
    assert (folder / "model.safetensors").exists()


def test_other_shapes_are_another_architecture_and_dtypes_are_joined(tmp_path, source):
    torch.save(state(0), source / "a.pt")
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state(1).items()}
    torch.save(halves, source / "b.pt")
    torch.save(state(2, hidden=5), source / "c.pt")
    report = import_zoo(source, tmp_path / "zoo")
    keys = [entry.architecture for entry in report.of("taken")]
    assert keys[0] == keys[1] != keys[2]
    zoo = Zoo(tmp_path / "zoo")
    assert {slot.dtype for slot in zoo.select(architecture=keys[0]).spec} == {"float32"}


def test_wider_numbers_than_the_zoo_holds_are_another_architecture(tmp_path, source):
    for i, dtype in enumerate((torch.float16, torch.float32, torch.float16)):
        values = {k: v.to(dtype) for k, v in state(i).items() if v.is_floating_point()}
        torch.save(values, source / f"{i}.pt")
        report = import_zoo(source / f"{i}.pt", tmp_path / "zoo")
        assert report.counts["taken"] == 1
    zoo = Zoo(tmp_path / "zoo")
    assert [row.architecture for row in zoo] == ["network-35", "network-35-2", "network-35"]


def mapping(tmp_path, text: str):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return path


NETWORK = "network: {class: MLP, init_args: {inputs: 4, hidden: [3], outputs: 2}}"


def test_a_network_of_the_mapping_file_gives_roles(tmp_path, source):
    network = MLP(inputs=4, hidden=(3,), outputs=2)
    plain = network.module().state_dict()
    torch.save(plain, source / "plain.pt")
    torch.save({f"net.{k}": 2 * v for k, v in plain.items()}, source / "nested.pt")
    torch.save({**{k: 3 * v for k, v in plain.items()}, "more": torch.ones(1)}, source / "more.pt")
    torch.save(state(), source / "norm.pt")
    torch.save(MLP(inputs=4, hidden=(5,), outputs=2).module().state_dict(), source / "wide.pt")
    report = import_zoo(source, tmp_path / "zoo", mapping=mapping(tmp_path, NETWORK))
    words = "it does not fit the MLP of the mapping file"
    assert reasons(report) == {
        "more.pt": f"{words}: it has no 'more'",
        "norm.pt": f"{words}: it has no '1.weight'",
        "wide.pt": f"{words}: '0.weight' has shape (5, 4), not (3, 4)",
    }
    zoo = Zoo(tmp_path / "zoo")
    assert zoo.spec == network.spec()
    assert isinstance(zoo.spec, FullSpec)
    assert zoo.architecture.config == network.to_dict()
    assert [row.run for row in zoo] == ["nested", "plain"]


def test_a_network_that_makes_no_sense_stops_the_import(tmp_path, source):
    torch.save(state(), source / "a.pt")
    text = "network: {class: MPL}"
    with pytest.raises(UsageError, match="unknown network 'MPL'"):
        import_zoo(source, tmp_path / "zoo", mapping=mapping(tmp_path, text))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, source):
    for name in ("new.pt", "old.pth", "lightning.ckpt", "raw.pt"):
        content = {"state_dict": {"a": torch.ones(2)}, "x": Bomb(tmp_path / name)}
        if name == "raw.pt":
            import pickle

            (source / name).write_bytes(pickle.dumps(content["x"]))
        else:
            torch.save(content, source / name, _use_new_zipfile_serialization=name != "old.pth")
    torch.save(state(), source / "good.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 1
    assert len(reasons(report)) == 4
    for name, reason in reasons(report).items():
        assert not (tmp_path / name).exists()
        if name != "raw.pt":
            assert "Python objects that could run code, and was not opened" in reason
            assert "torch.save(model.state_dict(), …)" in reason


def bad_safetensors(path):
    path.write_bytes(b"\xff" * 64)


def bad_torch(path):
    path.write_bytes(b"not a checkpoint")


def cut(path):
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:300])


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (8 << 20))


def expanded(path):
    torch.save({"a": torch.zeros(1).expand(10**12)}, path)


def repeated(path):
    big = torch.zeros(1000)
    torch.save({f"t{i}": big for i in range(20)}, path)


def loop(path):
    data: dict = {"a": torch.ones(1)}
    data["model"] = data
    torch.save(data, path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.safetensors", bad_safetensors, "is not a valid safetensors file"),
        ("a.pt", bad_torch, "no file of torch.save"),
        ("a.ckpt", cut, "no file of torch.save"),
        ("a.pt", bomb, "it unpacks to 8,388,608 bytes"),
        ("a.pt", expanded, "tensor 'a' claims more numbers than the file stores"),
        ("a.pt", repeated, "repeat the same stored numbers"),
        ("a.pt", lambda p: torch.save([1, 2], p), "it holds no state dict"),
        ("a.pt", lambda p: torch.save({"epoch": 1}, p), "it holds no state dict"),
        ("a.pt", lambda p: torch.save({1: torch.ones(1)}, p), "names that are not plain text"),
        (
            "a.pt",
            lambda p: torch.save({"\ud800": torch.ones(1)}, p),
            "names that are not plain text",
        ),
        ("a.pt", lambda p: torch.save({"a": torch.ones(1).long()}, p), "no floating-point"),
        ("a.pt", lambda p: torch.save({"a": torch.ones(2).to_sparse()}, p), "sparse"),
        ("a.pt", lambda p: torch.save({"a": torch.ones(2, dtype=torch.cfloat)}, p), "complex64"),
        (
            "a.safetensors",
            lambda p: save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, p),
            "tensor 'a' is float8_e4m3fn: a slot is float16, bfloat16, float32, float64",
        ),
    ],
)
def test_what_cannot_be_taken_is_a_reason(tmp_path, source, name, make, message):
    make(source / name)
    torch.save(state(), source / "good.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 1
    assert list(reasons(report)) == [name]
    assert message in reasons(report)[name]
    assert len(reasons(report)[name]) < 400


def test_a_file_that_holds_itself_is_no_endless_loop(tmp_path, source):
    loop(source / "a.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 1


def test_empty_tensors_are_left_out(tmp_path, source):
    torch.save({**state(), "none": torch.zeros(0, 3), "scale": torch.ones(())}, source / "a.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert "none (empty)" in report.of("taken")[0].left_out
    assert Zoo(tmp_path / "zoo").spec["scale"].shape == ()
