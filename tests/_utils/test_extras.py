"""Optional packages."""

import json
import sys

import pytest

from hypergen._utils.extras import require
from hypergen.errors import MissingExtraError


def test_an_installed_module_is_returned():
    assert require("json", "dev") is json


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.inner"])
def test_a_missing_package_names_its_extra(module):
    with pytest.raises(MissingExtraError) as caught:
        require(module, "graph", "the GHN generator")
    assert str(caught.value) == (
        "the GHN generator needs the 'graph' extra: pip install 'hypergen[graph]'"
    )


def test_without_a_feature_the_message_names_the_module():
    with pytest.raises(MissingExtraError, match=r"^no_such_package needs the 'zoo' extra"):
        require("no_such_package", "zoo")


def test_a_broken_package_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import a_module_that_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_lacks") as caught:
        require("broken_package", "graph")
    assert not isinstance(caught.value, MissingExtraError)
    assert "broken_package" not in sys.modules
