"""Two processes with different hash seeds make the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROBE = Path(__file__).with_name("hash_seed_probe.py")


def test_the_hash_seed_changes_nothing(root):
    processes = []
    for seed in ("0", "4242"):
        path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(PROBE)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    first, second = map(json.loads, outputs)
    assert first.keys() == second.keys()
    assert len(first) > 80
    assert {"adapter causal", "splits t5", "batch t5 decoder_input_ids"} <= set(first)
    assert [key for key in first if first[key] != second[key]] == []
