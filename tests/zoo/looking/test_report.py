from __future__ import annotations

import argparse
import json

import pytest
import torch
from looking_zoo import NETWORK, SPEC, independent, rows_of, walk, walking_zoo, write

from hypergen.errors import RunError, UsageError
from hypergen.zoo.looking import describe, write_report
from hypergen.zoo.looking.command import add_options, info_command
from hypergen.zoo.looking.report import to_html
from hypergen.zoo.networks import MLP
from hypergen.zoo.store import Architecture, Block


def options(*words: str, json: str | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return argparse.Namespace(**vars(parser.parse_args(words)), json=json)


def test_the_command_prints_and_writes_everything(tmp_path, capsys):
    wide = MLP(inputs=2, hidden=(3,), outputs=2)
    specs = {
        "net": Architecture(SPEC, NETWORK.to_dict()),
        "wide-2": Architecture(wide.spec(), wide.to_dict()),
    }
    flat = walk(independent(4), 3, 0.1)
    flat[4] = float("nan")
    blocks = [
        Block("net", flat, rows_of(4, 3)),
        Block("wide-2", independent(3, wide.spec()), rows_of(3, 1, "wide-2", tasks=0)),
    ]
    folder = write(tmp_path / "zoo", blocks, specs).folder
    report = tmp_path / "report"
    result = info_command(options(str(folder), "--report", str(report)))
    printed = capsys.readouterr().out
    assert "architecture net (MLP)" in printed
    assert "architecture wide-2 (MLP)" in printed
    assert str(report / "report.html") in printed
    html = (report / "report.html").read_text()
    for key in specs:
        assert f"Architecture {key}" in html
    assert "http" not in html  # loads nothing
    names = {path.name for path in (report / "plots").iterdir()}
    assert names == {
        *(f"net-{n}.png" for n in ("metrics", "norms", "map", "distances", "trajectories")),
        *(f"wide-2-{n}.png" for n in ("metrics", "norms", "map", "distances")),
    }
    assert html.count("data:image/png;base64,") == len(names)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (report / "plots").iterdir())
    data = json.loads((report / "info.json").read_text())
    assert data["verdict"] == result["verdict"]
    assert len(data["points"]["net"]["xy"]) == 11


def test_json_prints_nothing(tmp_path, capsys):
    folder = walking_zoo(tmp_path / "zoo").folder
    result = info_command(options(str(folder), json="-"))
    assert capsys.readouterr().out == ""
    assert result["checkpoints"] == 20


@pytest.mark.slow
def test_equal_zoos_give_equal_reports(tmp_path):
    zoo = walking_zoo(tmp_path / "zoo")
    for name in ("a", "b"):
        write_report(tmp_path / name, describe(zoo))
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("case", ["single", "bare", "zeros"])
def test_odd_zoos_are_drawn_too(tmp_path, case):
    blocks = {
        "single": Block("net", independent(1), rows_of(1, 1)),
        "bare": Block("net", walk(independent(2), 3, 0.1), rows_of(2, 3, tasks=0, metrics=False)),
        "zeros": Block("net", torch.zeros(20, SPEC.numel), rows_of(20, 1, tasks=20)),
    }
    zoo = write(tmp_path / "zoo", [blocks[case]])
    path = write_report(tmp_path / "report", describe(zoo))
    assert "Architecture net" in path.read_text()


def test_names_are_escaped(tmp_path):
    zoo = write(tmp_path / "zoo", [Block("net", independent(2), rows_of(2, 1))])
    evil = {"x<script>": "<b>"}
    rows = [type(row)(**{**row.to_dict(), "hyperparameters": evil}) for row in zoo.rows]
    html = to_html(describe(zoo.relabel(rows)), {"net": {}})
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_bad_folders_are_refused(tmp_path):
    zoo = walking_zoo(tmp_path / "zoo")
    with pytest.raises(UsageError, match="cannot lie in the zoo"):
        info_command(options(str(zoo.folder), "--report", str(zoo.folder / "report")))
    with pytest.raises(RunError, match="not a zoo"):
        info_command(options(str(tmp_path)))
