"""The folder of a tiny run, and the helpers beside this file importable: `import generating`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _folder in (Path(__file__).parent, Path(__file__).parents[1] / "contracts"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run of a generator of LoRAs that has learnt an expected gain."""
    import torch
    from generating import build, scrambled

    from hypergen.generators import GainHead
    from hypergen.specs import LoRASpec

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    generator = scrambled(LoRASpec(build(), ["0", "2"], r=2))
    generator.gain = GainHead(16, 2)
    pooled = generator.encode(text=["is it even", "is it odd"]).pooled
    generator.gain.fit(pooled, torch.tensor([0.4, 0.1]), torch.arange(2))
    generator.save_pretrained(folder / "generator")
    return folder
