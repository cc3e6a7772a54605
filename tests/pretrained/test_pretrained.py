"""Generators that ship with the package are found by name, behind folders of that name."""

from __future__ import annotations

import pytest
from torch import nn

import hypergen
from hypergen import pretrained
from hypergen.conditions import HashingEncoder
from hypergen.errors import RunNotFoundError
from hypergen.generators import Generator, MLPGenerator
from hypergen.specs import LoRASpec

LARGEST = 12e6  # bytes; a wheel is downloaded by everybody


def save(folder, hidden=8):
    spec = LoRASpec(nn.Sequential(nn.Linear(6, 4)), ["0"], r=2)
    return MLPGenerator(spec, HashingEncoder(16), hidden=hidden, depth=1).save_pretrained(folder)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    for name in ("two", "one"):
        save(tmp_path / "shipped" / name)
    (tmp_path / "shipped" / "__pycache__").mkdir()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)


def test_names_are_found_and_sorted(shipped):
    assert pretrained.names() == ["one", "two"]
    assert hypergen.load("one").config["hidden"] == 8


def test_a_folder_of_that_name_comes_first(shipped, tmp_path):
    save(tmp_path / "one" / "generator", hidden=5)
    assert hypergen.load("one").config["hidden"] == 5
    assert hypergen.load("two").config["hidden"] == 8


def test_other_names_list_those_that_ship(shipped, monkeypatch, tmp_path):
    for name in ("three", "two/..", "runs/deep/er", "__pycache__"):
        with pytest.raises(RunNotFoundError, match=name):
            hypergen.load(name)
    with pytest.raises(RunNotFoundError, match=r"three does not exist; .* ship are one, two$"):
        hypergen.load("three")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "nothing")
    with pytest.raises(RunNotFoundError, match=r"three does not exist$"):
        hypergen.load("three")


@pytest.mark.parametrize("name", pretrained.names() or [None])
def test_what_ships_is_small_whole_and_has_a_card(name):
    if name is None:
        pytest.skip("nothing ships")
    folder = pretrained.FOLDER / name
    assert sum(file.stat().st_size for file in folder.rglob("*")) <= LARGEST
    assert isinstance(hypergen.load(name), Generator)
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---")
