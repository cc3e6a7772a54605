"""Makes the shared tiny models and the contract matrix importable: `import tiny`, `matrix`."""

from __future__ import annotations

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).parents[1] / "contracts")
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)
