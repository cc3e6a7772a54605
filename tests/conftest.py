"""What every test stands on: no network, one thread, fixed seeds, no bars, no screen."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# What tests share: `import tiny_language`.
_FOLDER = str(Path(__file__).parent)
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)

# Set before anything heavy is imported; processes that tests start inherit them.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HYPERGEN_QUIET": "1",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "offline",
    }
)
os.environ.pop("HYPERGEN_DATA", None)

# The same examples in every run, and no limit on time: machines differ.
settings.register_profile("hypergen", deadline=None, derandomize=True, database=None)
settings.load_profile("hypergen")


@pytest.fixture
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Gives each test the same random numbers and threads, whatever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.manual_seed(0)
        torch.set_num_threads(1)
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
