"""What weights were made from."""

from __future__ import annotations

import json

import torch

from hypergen.conditions import VectorEncoder
from hypergen.generators import MLPGenerator
from hypergen.generators.provenance import told
from hypergen.specs import FullSpec, Weights

SPEC = FullSpec(torch.nn.Linear(2, 2))


def test_everything_becomes_plain():
    weights = SPEC.from_flat(torch.zeros(3, SPEC.numel))
    weights.provenance = {"zoo": "z"}
    out = told(
        {"text": ["a", "b"], "metric": torch.ones(2), "weights": weights, "large": torch.ones(9, 9)}
    )
    assert json.loads(json.dumps(out)) == {
        "text": ["a", "b"],
        "metric": [1.0, 1.0],
        "weights": {"weights": 3, "zoo": "z"},
        "large": "float32 numbers of shape [9, 9]",
    }
    assert told([object(), None]) == ["object", None]


def test_weights_made_from_tensors_are_saved(tmp_path):
    generator = MLPGenerator(SPEC, VectorEncoder(3, 4), hidden=4, depth=1)
    weights = generator.generate(vector=torch.tensor([[1.0, 0, 1]]))
    weights.save(tmp_path / "w.safetensors")
    assert Weights.load(tmp_path / "w.safetensors").provenance["vector"] == [[1.0, 0, 1]]
