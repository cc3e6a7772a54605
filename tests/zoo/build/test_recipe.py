"""Recipes: from YAML, to a dictionary and back."""

from __future__ import annotations

import json

import pytest
from zoo_recipes import CountingZoo, tiny_file

from hypergen._utils.errors import UsageError
from hypergen.zoo.build import NetworkZoo, Range, Recipe, read_recipe


def test_a_file_becomes_a_recipe(tmp_path):
    recipe = read_recipe(tiny_file(tmp_path))
    assert isinstance(recipe, NetworkZoo)
    assert recipe.network.to_dict()["init_args"]["hidden"] == [6]
    assert recipe.lr == Range("log_uniform", (1e-3, 1e-2))
    assert recipe.problem.source.classes[3] == "3"


def test_a_recipe_survives_json(tmp_path):
    recipe = read_recipe(tiny_file(tmp_path))
    data = json.loads(json.dumps(recipe.to_dict()))
    again = Recipe.from_dict(data)
    assert again.to_dict() == data
    assert again.header().to_dict() == recipe.header().to_dict()
    assert data["recipe"] == "NetworkZoo"


def test_a_recipe_of_another_module_is_named_by_its_path():
    data = CountingZoo(count=2).to_dict()
    assert data["recipe"] == "zoo_recipes.CountingZoo"
    assert Recipe.from_dict(data) == CountingZoo(count=2)


def test_options_change_the_file(tmp_path):
    words = ["--runs", "3", "--network.hidden=[4, 4]", "--widths", "[]", "--lr", "1e-3"]
    recipe = read_recipe(tiny_file(tmp_path), words)
    assert recipe.runs == 3
    assert recipe.network.hidden == (4, 4)
    assert recipe.widths == ()
    assert recipe.lr == Range("choice", (1e-3,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stpes", "3"], "NetworkZoo has no option 'stpes'. Did you mean 'steps'?"),
        (["--network.hiden", "[3]"], "network.hiden: MLP has no option 'hiden'. Did you mean"),
        (["--network.hidden", "[0]"], "network: hidden of MLP must be a whole number"),
        (["--problem.source", "Digit"], "problem.source: there is no 'Digit'. Did you mean"),
        (["--problem.n_tasks", "9"], "problem: n_tasks must be between 1 and 1, not 9"),
        (["--optimizer", "adam"], "optimizer cannot be 'adam'. Did you mean 'adamw'?"),
        (["--runs", "0"], "runs must be at least 1, not 0"),
        (["--save_steps", "[3, 7]"], "save_steps must rise from 0 or more to at most steps=6"),
        (["--save_steps", "[3, 3]"], "save_steps must rise"),
        (["--lr", "0"], "lr must be above 0"),
        (["--lr", "fast"], "lr: a number, {uniform"),
        (["--recipe", "NetworkZo"], "there is no recipe 'NetworkZo'. Did you mean 'NetworkZoo'?"),
        (["--recipe", "nowhere.Zoo"], "there is no module 'nowhere'"),
        (["--recipe", "json.Zoo"], "there is no recipe 'json.Zoo'"),
        (["--recipe", "3"], "say what is built"),
    ],
)
def test_a_wrong_recipe_names_the_file_and_the_option(tmp_path, words, message):
    with pytest.raises(UsageError) as caught:
        read_recipe(tiny_file(tmp_path), words)
    assert message in str(caught.value)
    assert "tiny.yaml" in str(caught.value)
