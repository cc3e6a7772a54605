"""Makes example networks and tiny models importable: `import zoo_networks`, `import tiny`."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[2]
for _folder in (_TESTS / "zoo" / "networks", _TESTS / "contracts"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))
