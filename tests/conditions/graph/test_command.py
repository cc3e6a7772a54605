"""`hypergen graph`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import re

import pytest

from hypergen import cli
from hypergen.conditions.graph import load_data
from hypergen.conditions.graph.command import write_report
from hypergen.conditions.graph.coverage import coverage
from hypergen.conditions.graph.draw import columns, draw, layers
from hypergen.conditions.graph.examples import EXAMPLES
from hypergen.conditions.graph.trace import trace


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    source = (
        "from torch import nn\n\ndef build(width=3):\n    return nn.Linear(width, 2)\n\nX = 3\n"
    )
    (tmp_path / "my_own_network.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_own_network"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_covered(name, capsys):
    assert cli.main(["graph", name]) == 0
    out = capsys.readouterr().out
    assert "100.0%" in out
    assert "traced by dispatch" in out


def test_the_report_holds_the_picture_the_table_and_the_graph(tmp_path, capsys):
    assert cli.main(["graph", "unet", "--report", str(tmp_path / "r")]) == 0
    assert capsys.readouterr().out.strip().endswith("report.html")
    page = (tmp_path / "r" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "up.weight" in page
    assert "http" not in page
    graph, data = load_data(tmp_path / "r" / "graph.safetensors")
    assert data.num_nodes == len(graph)
    table = json.loads((tmp_path / "r" / "coverage.json").read_text())
    assert table["coverage"]["complete"]
    assert (tmp_path / "r" / "graph.png").read_bytes()[:4] == b"\x89PNG"


def test_json_alone_is_printed(capsys):
    assert cli.main(["graph", "mlp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["graph"]["nodes"] == {"input": 1, "parameter": 6, "operation": 5, "output": 1}
    assert [p["name"] for p in found["coverage"]["parameters"]][:2] == ["0.weight", "0.bias"]


def test_a_config_folder_is_built_without_memory(tmp_path, capsys):
    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=2, architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    assert cli.main(["graph", str(tmp_path), "--kwargs", '{"vocab_size": 50}']) == 0
    out = capsys.readouterr().out
    assert out.startswith("LlamaForCausalLM called with input_ids=[2, 4] int64")
    assert "repeated blocks: 2 ×" in out


def test_a_function_of_ones_own_is_called(own_module, capsys):
    words = ["graph", f"{own_module}:build", "--kwargs", '{"width": 5}', "--input", "7x5"]
    assert cli.main(words) == 0
    assert "called with [7, 5] float32" in capsys.readouterr().out


def test_kept_parameters_are_listed(capsys):
    assert cli.main(["graph", "mlp", "--keep", "4.*"]) == 0
    assert "4.weight [10, 32]: kept by '4.*'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnett"], "no model 'resnett'.*Did you mean 'resnet'"),
        (["no_such_package:X"], "cannot be imported"),
        (["torch.nn:Lineer"], "Did you mean 'Linear'"),
        (["torch.nn:Linear"], "cannot be built.*--kwargs"),
        (["torch:float32"], "not a class or function"),
        (["builtins:dict"], "not a torch.nn.Module"),
        (["mlp", "--kwargs", "{"], "--kwargs is not JSON"),
        (["mlp", "--kwargs", "[1]"], "JSON object"),
        (["mlp", "--kwargs", '{"a": 1}'], "takes no --kwargs"),
        (["mlp", "--input", "2x5"], "Linear.*--input"),
        (["mlp", "--keep", "x"], "keep='x' matches no parameter"),
        (["mlp", "--report", __file__], "is a file"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(words, message, capsys):
    assert cli.main(["graph", *words]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error), error


def test_a_folder_without_a_config_is_refused(tmp_path, capsys):
    assert cli.main(["graph", str(tmp_path)]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_what_cannot_be_predicted_fails_unless_listed(tmp_path, monkeypatch, capsys):
    source = (
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.layer, self.spare = nn.Linear(3, 2), "
        "nn.Linear(3, 2)\n\n    def forward(self, x):\n        return self.layer(x)\n"
    )
    (tmp_path / "network_with_a_spare.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["graph", "network_with_a_spare:Net"]) == 2
    captured = capsys.readouterr()
    assert "spare.weight: the forward does not use it" in captured.err
    assert "unsupported       2 parameters" in captured.out
    assert cli.main(["graph", "network_with_a_spare:Net", "--no-strict"]) == 0


def test_pictures_are_equal_and_leave_out_repetitions(tmp_path):
    graph = trace(EXAMPLES["llama"]())
    picture, hidden = draw(graph)
    assert hidden == 0
    assert draw(graph)[0] == picture
    assert draw(graph, most=40)[1] == 23
    path = write_report(tmp_path, graph, coverage(EXAMPLES["llama"](), graph=graph))
    assert "All nodes are drawn" in path.read_text()


def test_layers_follow_data_and_parameters_stand_above_their_reader():
    edges = [(0, 2), (1, 2), (2, 4), (3, 4)]
    depth = layers(5, edges)
    assert depth == [0, 0, 1, 1, 2]
    x = columns(depth, edges)
    assert x[0] != x[1]
    assert x[2] != x[3]
