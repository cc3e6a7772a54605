"""Puts this folder where pytest finds the helpers that its tests share."""

from __future__ import annotations

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).parent)
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)
