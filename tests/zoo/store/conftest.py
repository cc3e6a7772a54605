from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_zoo import write_tiny_zoo


@pytest.fixture
def zoo_folder(tmp_path):
    return write_tiny_zoo(tmp_path / "zoo")
