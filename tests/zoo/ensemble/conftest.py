"""Makes this folder's helper importable: importlib mode puts no folder of tests on the path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "tiny_stacks" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "tiny_stacks", Path(__file__).with_name("tiny_stacks.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_stacks"] = module
    spec.loader.exec_module(module)
