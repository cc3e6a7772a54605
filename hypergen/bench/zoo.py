"""`hypergen bench zoo`: building and reading a zoo."""

from __future__ import annotations

from typing import Any

from hypergen.bench import zoo_build, zoo_read


def run() -> dict[str, Any]:
    """Runs both halves; see `hypergen bench` for the keys."""
    return {"name": "zoo", "rows": [*zoo_build.run()["rows"], *zoo_read.run()["rows"]]}
