from __future__ import annotations

import pytest

from hypergen._utils.recipes import find_recipe
from hypergen.errors import UsageError


def test_a_recipe_is_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    path = tmp_path / "configs" / "zoo_small.yaml"
    path.write_text("")
    assert find_recipe(str(path)) == path
    assert (tmp_path / find_recipe("zoo_small")).samefile(path)
    with pytest.raises(UsageError, match=r"Did you mean 'configs/zoo_small\.yaml'"):
        find_recipe("zoo_smal")
    with pytest.raises(UsageError, match=r"no recipe 'zoo_smal'\.$"):
        find_recipe("zoo_smal", "other_*")
