"""Makes the toy suite importable, here and in the processes that tests start: `import toy`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_FOLDER = str(Path(__file__).parent)
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)


@pytest.fixture
def child_env() -> dict[str, str]:
    """Environment of a child process that can import the toy suite and this checkout."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, _FOLDER, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
