"""`hypergen evaluate` on the run of a graph hypernetwork."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen import cli
from hypergen.generators.graph import GraphHypernetwork
from hypergen.zoo.architectures import ArchitectureSpace, ImageProblem
from hypergen.zoo.architectures.files import save_setting


def make_run(folder, seed=0):
    torch.manual_seed(seed)
    encoder = {"name": "transformer", "dim": 8, "layers": 1}
    network = GraphHypernetwork(encoder, {"name": "low_rank", "rank": 4, "features": 16})
    network.save_pretrained(folder / "generator")
    space = ArchitectureSpace({"mlp": 1.0, "vit": 1.0}, (4, 12), (1, 2))
    save_setting(folder, ImageProblem(), space)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture
def fails(capfd):
    def of(*words):
        assert cli.main(["evaluate", *map(str, words)]) == 2
        out, error = capfd.readouterr()
        assert out == ""
        assert error.count("\n") == 1
        return error

    return of


def test_accuracy_straight_from_generation(run, tmp_path, capfd):
    words = ["evaluate", str(run), "--architectures", "2", "--samples", "40"]
    report = tmp_path / "report"
    assert cli.main([*words, "--report", str(report)]) == 0
    out = capfd.readouterr().out
    assert "test: 2 unseen architectures" in out
    assert f"report: {report / 'architectures.png'}" in out
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == json.loads((report / "architectures.json").read_text())
    assert set(found["splits"]) == {"test", "wide", "deep"}
    assert "trained" not in found["splits"]["test"]["methods"]


def test_trained_networks_are_the_oracle(run, capfd):
    words = ["evaluate", str(run), "--architectures", "2", "--samples", "40", "--json"]
    assert cli.main([*words, "--sgd-steps", "3"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["training"]["steps"] == 3
    assert "trained" in found["splits"]["test"]["methods"]


def test_starts_against_another_run(run, tmp_path, capfd):
    other = make_run(tmp_path / "second", seed=1)
    words = ["evaluate", str(run), "--architectures", "1", "--samples", "40", "--init-steps", "2"]
    words += ["--init-lr", "0.1", "--init-noise", "0.1", "--init-orthogonal", "--optimizer=adamw"]
    assert cli.main([*words, "--against", str(other), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found["groups"]) == {"vits", "mlps"}
    assert set(found["groups"]["vits"]["starts"]) == {"first", "second", "default"}
    assert found["training"]["optimizer"] == "adamw"
    assert found["settings"]["noise"] == 0.1
    assert found["settings"]["orthogonal"] is True


def test_one_split_alone(run, capfd):
    words = ["evaluate", str(run), "--architectures", "1", "--samples", "40", "--split", "deep"]
    assert cli.main([*words, "--json"]) == 0
    assert set(json.loads(capfd.readouterr().out)["splits"]) == {"deep"}
    assert cli.main([*words, "--json", "--init-steps", "1", "--init-lr", "0.1"]) == 0
    assert json.loads(capfd.readouterr().out)["split"] == "deep"


def test_options_that_do_not_go_together(run, fails, tmp_path):
    assert "--against needs --init-steps" in fails(run, "--against", run)
    assert "--init-noise needs --init-steps" in fails(run, "--init-noise", "1")
    assert "exclude" in fails(run, "--init-steps", "1", "--sgd-steps", "1")
    assert "two runs are called 'first'" in fails(run, "--init-steps", "1", "--against", run)
    assert "--k is for suites of tasks" in fails(run, "--k", "1")
    assert "test, wide, deep" in fails(run, "--split", "dense")
    assert "does not exist" in fails(run, "--init-steps", "1", "--against", tmp_path / "none")


def test_a_damaged_setting_is_named(tmp_path, fails):
    run = make_run(tmp_path / "run")
    (run / "architectures.json").write_text('{"problem": {"class": "Nothing"}}')
    assert "architectures.json is damaged" in fails(run)
