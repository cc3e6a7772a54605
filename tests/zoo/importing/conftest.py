"""Makes the tiny models and the makers of sources importable: `import tiny, import_sources`."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parents[2] / "contracts", Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
