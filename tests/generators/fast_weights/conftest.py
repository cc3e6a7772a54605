"""Makes the contract matrix and the helpers beside this file importable."""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[2] / "contracts"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
