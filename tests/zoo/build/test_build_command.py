"""`hypergen zoo build` and its siblings on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from zoo_recipes import tiny_file

from hypergen import cli
from hypergen.zoo.build import command as build_module
from hypergen.zoo.store import Zoo


def build(tmp_path, *words) -> int:
    config = tiny_file(tmp_path)
    out = ["--out", str(tmp_path / "zoo")]
    return cli.main(["zoo", "build", "-c", str(config), *out, "--workers", "1", *words])


def test_a_build_prints_what_it_made(tmp_path, capsys):
    assert build(tmp_path) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].endswith("zoo: 30 checkpoints, 10 runs, 1 task, 2 architectures")
    assert any(line.startswith("test accuracy") for line in lines)
    assert lines[-1].startswith("10 networks in ")
    assert err == ""
    assert build(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing was left to build"


def test_json_says_the_same(tmp_path, capsys):
    words = ["--optimizer", "sgd", "--lr", "{choice: [0.01, 1e30]}", "--json"]
    assert build(tmp_path, *words) == 0
    result = json.loads(capsys.readouterr().out)
    zoo = Zoo(tmp_path / "zoo")
    last = zoo.select(step="last").metric("test", "loss")
    last = last[np.isfinite(last)]
    assert result["metrics"]["test"]["loss"] == pytest.approx(
        {"mean": last.mean(), "min": last.min(), "max": last.max()}
    )
    assert (result["checkpoints"], result["quarantined"]) == (len(zoo), len(zoo.quarantined))
    assert result["quarantined"] > 0
    assert (result["runs"], result["built"]) == (10, 10)
    assert result["models_per_second"] == pytest.approx(10 / result["seconds"])


def test_quarantined_checkpoints_are_counted_in_the_table(tmp_path, capsys):
    assert build(tmp_path, "--optimizer=sgd", "--lr=1e30") == 0
    assert "quarantined (NaN or infinity): 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stpes", "3"], "tiny.yaml: stpes: NetworkZoo has no option 'stpes'. Did you mean"),
        (["--steps"], "--steps needs a value"),
        (["steps"], "'steps' is no option"),
        (["--engine", "rai"], "no engine 'rai'"),
        (["--workers", "x"], "argument --workers: invalid int value: 'x'"),
    ],
)
def test_bad_words_are_one_line(tmp_path, capsys, words, message):
    assert build(tmp_path, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "zoo").exists()


def test_recipes_are_found_by_name(monkeypatch, root, capsys, tmp_path):
    monkeypatch.chdir(root)
    assert build_module.find_recipe("zoo_digits_mlp").name == "zoo_digits_mlp.yaml"
    assert cli.main(["zoo", "build", "-c", "zoo_digits_mpl"]) == 2
    assert "Did you mean 'configs/zoo_digits_mlp.yaml'?" in capsys.readouterr().err
    assert cli.main(["zoo", "build"]) == 2
    assert "required: -c/--config" in capsys.readouterr().err


def test_the_folder_follows_from_the_recipes_name(monkeypatch, tmp_path):
    config = tiny_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["zoo", "build", "-c", str(config), "--workers", "1", "--runs", "2"]) == 0
    assert Zoo(tmp_path / "runs" / "tiny").complete


def test_an_interruption_says_what_is_finished(tmp_path, capsys, monkeypatch):
    config = tmp_path / "counting.yaml"
    config.write_text("recipe: zoo_recipes.CountingZoo\nfails: 2\nhow: interrupt\n")
    words = ["zoo", "build", "-c", str(config), "--out", str(tmp_path / "zoo"), "--workers", "1"]
    assert cli.main(words) == 130
    err = capsys.readouterr().err
    assert "zoo: 2 of 4 parts are finished; the same command goes on" in err


def test_verify_fails_on_a_damaged_zoo(tmp_path, capsys):
    assert build(tmp_path) == 0
    folder = tmp_path / "zoo"
    assert cli.main(["zoo", "verify", str(folder)]) == 0
    assert "intact" in capsys.readouterr().out.splitlines()[-1]
    next((folder / "shards").iterdir()).unlink()
    assert cli.main(["zoo", "verify", str(folder), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert not result["intact"]
    assert "exit_code" not in result
    path = tmp_path / "result.json"
    assert cli.main(["zoo", "verify", str(folder), "--json", str(path)]) == 1
    assert json.loads(path.read_text()) == result
