"""Mapping files: rules, tables of tasks, and their mistakes."""

from __future__ import annotations

import json

import pytest

from hypergen.errors import UsageError
from hypergen.zoo.importing.mapping import read_mapping


def lookup(tmp_path, text: str, *paths: str, suffix: str = ".yaml"):
    file = tmp_path / f"map{suffix}"
    file.write_text(text)
    return read_mapping(file).lookup(paths, set())


def test_named_groups_are_fields(tmp_path):
    text = r"""
    - regex: (?P<run>seed(?P<seed>\d+))/lr(?P<hyperparameters__lr>[\d.]+)/step-(?P<step>\d+)
      task: digits
    - regex: acc(?P<metrics__test__accuracy>[\d.]+)\.pt$
    """
    found = lookup(tmp_path, text, "x/seed07/lr0.1/step-100-acc0.5.pt")
    assert found == {
        "run": "seed07",
        "seed": 7,
        "step": 100,
        "task": "digits",
        "hyperparameters": {"lr": 0.1},
        "metrics": {"test": {"accuracy": 0.5}},
    }


def test_later_rules_win_field_by_field(tmp_path):
    rules = [
        {"glob": "**", "task": "a", "hyperparameters": {"lr": 1, "wd": 0}, "seed": 1},
        {"path": "runs/x.pt", "task": "b", "hyperparameters": {"lr": 2}},
    ]
    found = lookup(tmp_path, json.dumps(rules), "runs/x.pt", suffix=".json")
    assert found == {"task": "b", "hyperparameters": {"lr": 2, "wd": 0}, "seed": 1}
    lines = "\n".join(map(json.dumps, rules))
    assert lookup(tmp_path, lines, "runs/x.pt", suffix=".jsonl") == found


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("*.pt", {"a.pt"}),
        ("**/*.pt", {"a.pt", "x/a.pt", "x/y/a.pt"}),
        ("x/**", {"x/a.pt", "x/y/a.pt"}),
        ("x/?.pt", {"x/a.pt"}),
        ("x/*", {"x/a.pt"}),
        ("x/[a].pt", set()),
    ],
)
def test_a_star_stays_in_its_folder(tmp_path, pattern, fits):
    text = json.dumps([{"glob": pattern, "seed": 1}])
    paths = ("a.pt", "x/a.pt", "x/y/a.pt", "a.pth")
    assert {path for path in paths if lookup(tmp_path, text, path)} == fits


def test_tasks_and_a_network_for_all(tmp_path):
    file = tmp_path / "map.yaml"
    file.write_text(
        "tasks: {up: {descriptions: [Say it louder.], family: case}}\n"
        "network: {class: MLP, init_args: {inputs: 4}}\n"
        "rules: [{path: b.pt, network: {class: CNN}}]\n"
    )
    mapping = read_mapping(file)
    assert mapping.tasks["up"].descriptions == ("Say it louder.",)
    assert mapping.tasks["up"].family == "case"
    used: set[str] = set()
    assert mapping.lookup(["a.pt"], used)["network"] == {"class": "MLP", "init_args": {"inputs": 4}}
    assert mapping.lookup(["b.pt"], used)["network"] == {"class": "CNN"}
    assert used == {f"{file}, rule 1 (path 'b.pt')"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "must hold a list of rules"),
        ("{rulez: []}", "unknown key 'rulez'. Did you mean 'rules'"),
        ("[: ]]", "is not a valid mapping file"),
        ("- {glob: '*', when: 2024-01-01}", "is not a valid mapping file"),
        ("- {task: a}", "rule 1 needs exactly one of 'glob', 'path' and 'regex'"),
        ("- {glob: a, path: b}", "rule 1 needs exactly one of"),
        ("- {glob: a, tsak: b}", r"rule 1 \(glob 'a'\): unknown field 'tsak'. Did you mean 'task'"),
        ("- {glob: ../a}", r"rule 1 \(glob '../a'\): paths are relative to the folder"),
        ("- {path: /etc/passwd}", "paths are relative to the folder"),
        ("- {path: 'a\\b'}", "paths are relative to the folder"),
        ("- {regex: '('}", "is no regular expression"),
        ("- {regex: '(?P<stpe>a)'}", "unknown group 'stpe'. Did you mean 'step'"),
        ("- {regex: '(?P<metrics__a>a)'}", "write the group 'metrics__a' as"),
        ("- {glob: a, step: -1}", "'step' must hold a whole number of at least 0, not -1"),
        ("- {glob: a, seed: yes}", "'seed' must hold a whole number"),
        ("- {glob: a, run: 3}", "'run' must hold a text, not 3"),
        ("- {glob: a, descriptions: x}", "'descriptions' must hold a list of sentences"),
        ("- {glob: a, metrics: {accuracy: 0.5}}", "'metrics' must hold split → name → number"),
        ("- {glob: a, hyperparameters: 3}", "'hyperparameters' must hold an object"),
        ("- {glob: a, network: MLP}", "'network' must hold a network"),
        ("tasks: {a: {descriptoin: x}}", "task 'a': unknown field 'descriptoin'"),
        ("- !!python/object/apply:os.mkdir [/tmp/x]", "is not a valid mapping file"),
    ],
)
def test_mistakes_name_the_file_and_the_rule(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        lookup(tmp_path, text, "a")
    assert "map.yaml" in str(caught.value)


def test_a_missing_file_and_a_group_that_is_no_number(tmp_path):
    with pytest.raises(UsageError, match=r"none.yaml cannot be read"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="the group 'step' holds 'x' in step-x"):
        lookup(tmp_path, "- {regex: 'step-(?P<step>.*)'}", "step-x")
    with pytest.raises(UsageError, match="the group 'metrics' holds 'x' in x"):
        lookup(tmp_path, "- {regex: '(?P<metrics__a__b>.*)'}", "x")
