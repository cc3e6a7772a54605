"""Files: whole or not at all, with errors that name them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypergen._utils import io
from hypergen.errors import RunError, RunNotFoundError, UsageError, WeightsError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Text and JSON


def test_text_is_written_as_it_is_and_makes_its_folders(tmp_path):
    path = io.write_text(tmp_path / "a" / "b.txt", "é\r\nx")
    assert path.read_bytes() == "é\r\nx".encode()
    assert names(path.parent) == ["b.txt"]


def test_files_get_the_permissions_of_the_umask(tmp_path):
    umask = os.umask(0o027)
    try:
        path = io.write_text(tmp_path / "a.txt", "x")
        with io.atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = io.write_text(tmp_path / "a.json", "old")

    def fail(handle):
        raise OSError("disk full")

    monkeypatch.setattr(io.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        io.write_json(path, {"a": 1})
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        io.write_text(tmp_path, "x")


def test_json_is_sorted_and_indented_and_takes_what_results_hold(tmp_path):
    value = {
        "b": np.float32(0.5),
        "a": {"y": (1, 2), "x": torch.tensor([1.0, 2.0])},
        "c": [np.arange(2), Path("p"), None, True, "é"],
    }
    path = io.write_json(tmp_path / "a.json", value)
    plain = {"a": {"x": [1.0, 2.0], "y": [1, 2]}, "b": 0.5, "c": [[0, 1], "p", None, True, "é"]}
    expected = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_json_never_holds_nan(tmp_path, number):
    path = tmp_path / "a.json"
    with pytest.raises(RunError, match=r"a\.json: the value at 'x\.y\[1\]' is -?(nan|inf)"):
        io.write_json(path, {"x": {"y": [0, number]}})
    assert not path.exists()
    io.write_json(path, {"x": number}, nonfinite="null")
    assert io.read_json(path) == {"x": None}


@pytest.mark.parametrize(("value", "word"), [({"a": object()}, "object"), ({1: 2}, "key 1")])
def test_what_has_no_json_form_is_refused(tmp_path, value, word):
    with pytest.raises(TypeError, match=word):
        io.write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON has no lone surrogates in UTF-8
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@given(value=JSON)
def test_json_comes_back_as_it_went(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    assert io.read_json(io.write_json(path, value)) == value


def test_reading_json_names_the_file_that_is_wrong(tmp_path):
    with pytest.raises(RunNotFoundError, match=r"none\.json does not exist"):
        io.read_json(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"cut\.json is not valid JSON"):
        io.read_json(tmp_path / "cut.json")
    (tmp_path / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(RunError, match=r"latin\.json is not valid JSON"):
        io.read_json(tmp_path / "latin.json")
    with pytest.raises(RunError, match="cannot be read"):
        io.read_json(tmp_path)


# Safetensors


def test_tensors_come_back_bit_for_bit(tmp_path):
    flat = torch.randn(6)
    tensors = {
        "view": flat[:4].view(2, 2),
        "transposed": torch.randn(2, 3).t(),
        "half": torch.randn(3).to(torch.bfloat16),
        "int": torch.arange(3),
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
        "grad": torch.randn(2, requires_grad=True),
    }
    path = io.save_safetensors(tmp_path / "a.safetensors", tensors, {"format": "pt"})
    loaded = io.load_safetensors(path)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert io.load_safetensors_metadata(path) == {"format": "pt"}
    assert names(tmp_path) == ["a.safetensors"]


def test_shared_memory_is_stored_under_each_name(tmp_path):
    base = torch.arange(6.0)
    tensors = {"a": base, "same": base, "part": base[2:4], "rows": base.view(2, 3)[1]}
    loaded = io.load_safetensors(io.save_safetensors(tmp_path / "a.safetensors", tensors))
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)


def test_equal_input_gives_equal_bytes_in_every_process(tmp_path):
    metadata = {name: f'"{name}" é\n' for name in "hgfedcba"}
    code = (
        "import sys, torch; from hypergen._utils.io import save_safetensors;"
        "save_safetensors(sys.argv[1], {'b': torch.ones(3), 'a': torch.zeros(2, 2)},"
        f" {metadata!r})"
    )
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, file in enumerate(files):
        environment = {**os.environ, "PYTHONHASHSEED": str(i)}
        subprocess.run([sys.executable, "-c", code, str(file)], env=environment, check=True)
    io.save_safetensors(
        tmp_path / "here",
        {"b": torch.ones(3), "a": torch.zeros(2, 2)},
        dict(sorted(metadata.items())),
    )
    first = files[0].read_bytes()
    assert files[1].read_bytes() == first
    assert (tmp_path / "here").read_bytes() == first
    assert io.load_safetensors_metadata(files[0]) == metadata
    assert torch.equal(io.load_safetensors(files[0])["b"], torch.ones(3))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, number):
    tensors = {"fine": torch.ones(2), "bad.weight": torch.tensor([0.0, number])}
    path = tmp_path / "a.safetensors"
    with pytest.raises(WeightsError, match=r"tensor 'bad\.weight' holds NaN or infinity"):
        io.save_safetensors(path, tensors, check_finite=True)
    assert names(tmp_path) == []
    io.save_safetensors(path, tensors)
    assert path.exists()


def test_reading_tensors_names_the_file_that_is_wrong(tmp_path):
    path = io.save_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(100)})
    whole = path.read_bytes()
    for broken in (b"", b"not tensors", whole[:-1], whole[:20]):
        path.write_bytes(broken)
        with pytest.raises(RunError, match=r"a\.safetensors is not a valid safetensors file"):
            io.load_safetensors(path)
        with pytest.raises(RunError, match=r"a\.safetensors is not a valid safetensors file"):
            io.load_safetensors_metadata(path)
    with pytest.raises(RunNotFoundError, match=r"none\.safetensors does not exist"):
        io.load_safetensors(tmp_path / "none.safetensors")


# Paths and folders


def test_inside_keeps_paths_in_their_folder(tmp_path):
    assert io.inside(tmp_path, "a/../b.txt") == tmp_path.resolve() / "b.txt"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    for path in (
        "../b.txt",
        "a/../../b.txt",
        "/etc/passwd",
        "link/b.txt",
        str(tmp_path / "folder"),
    ):
        with pytest.raises(RunError, match="is not inside"):
            io.inside(tmp_path / "folder", path)


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "runs" / "demo"
    with io.atomic_folder(target) as folder:
        io.write_text(folder / "sub" / "a.txt", "x")
        assert not target.exists()
    assert (target / "sub" / "a.txt").read_text() == "x"
    assert names(target.parent) == ["demo"]


def test_a_failure_leaves_no_folder(tmp_path):
    def interrupted() -> None:
        with io.atomic_folder(tmp_path / "demo") as folder:
            io.write_text(folder / "a.txt", "x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_a_full_folder_is_replaced_only_on_request_and_only_by_success(tmp_path):
    target = tmp_path / "demo"
    io.write_text(target / "old.txt", "old")
    with pytest.raises(UsageError, match="demo is not empty"), io.atomic_folder(target):
        pass
    with pytest.raises(OSError, match="oops"), io.atomic_folder(target, overwrite=True):
        raise OSError("oops")
    assert names(target) == ["old.txt"]
    with io.atomic_folder(target, overwrite=True) as folder:
        io.write_text(folder / "new.txt", "new")
        assert names(target) == ["old.txt"]
    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["demo"]


def test_an_empty_folder_is_filled_and_a_file_is_not_touched(tmp_path):
    (tmp_path / "empty").mkdir()
    with io.atomic_folder(tmp_path / "empty") as folder:
        io.write_text(folder / "a.txt", "x")
    assert names(tmp_path / "empty") == ["a.txt"]
    io.write_text(tmp_path / "file", "x")
    with (
        pytest.raises(UsageError, match="is not a folder"),
        io.atomic_folder(tmp_path / "file", overwrite=True),
    ):
        pass
    assert (tmp_path / "file").read_text() == "x"


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "demo"
    io.write_text(target / "old.txt", "old")
    rename = Path.rename

    def fail_on_new(self, other):
        if (self / "new.txt").exists():
            raise OSError("no")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with (
        pytest.raises(OSError, match="no"),
        io.atomic_folder(target, overwrite=True) as folder,
    ):
        io.write_text(folder / "new.txt", "new")
    assert names(target) == ["old.txt"]
    assert names(tmp_path) == ["demo"]


def test_safetensors_are_as_readable_as_other_files(tmp_path):
    text = io.write_text(tmp_path / "a.txt", "x")
    tensors = io.save_safetensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
    assert tensors.stat().st_mode == text.stat().st_mode
