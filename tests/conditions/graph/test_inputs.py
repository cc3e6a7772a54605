"""Inputs given as tensors, as shapes and as words."""

from __future__ import annotations

import pytest
import torch
from graph_models import MODELS
from graph_networks import mlp
from torch import nn

from hypergen.conditions.graph.guess import guesses
from hypergen.conditions.graph.inputs import as_example, parse_inputs
from hypergen.errors import ConditionError


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4, dtype=torch.bfloat16)

    def forward(self, input_ids, scale, *, shift=None):
        return self.embedding(input_ids) * scale


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ((2, 3), "[2, 3] int64"),
        ([(2, 3), (3, 1)], "[2, 3] int64, [3, 1] bfloat16"),
        (((2, 3), torch.ones(1)), "[2, 3] int64, [1] float32"),
        ({"input_ids": (1, 2), "scale": [4, 1]}, "input_ids=[1, 2] int64, scale=[4, 1] bfloat16"),
        (torch.zeros(2, dtype=torch.int32), "[2] int32"),
    ],
)
def test_shapes_become_tensors_of_the_type_that_their_name_asks_for(example, expected):
    assert as_example(example, Two()).describe() == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["2x3", "3x1"], "[2, 3] int64, [3, 1] bfloat16"),
        (["2,3:int32"], "[2, 3] int32"),
        (["input_ids=1x8", "scale=1:float32"], "input_ids=[1, 8] int64, scale=[1] float32"),
    ],
)
def test_words_become_tensors(words, expected):
    example = parse_inputs(words, Two())
    assert example is not None
    assert example.describe() == expected


def test_no_words_are_no_example():
    assert parse_inputs([], Two()) is None


@pytest.mark.parametrize("word", ["x", "2x", "2x3:floaty", "2x3:nn", "-1", "=3", "2 3"])
def test_other_words_are_refused(word):
    with pytest.raises(ConditionError, match="--input"):
        parse_inputs([word], Two())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", "input_ids=[2, 4] int64"),
        ("t5", "input_ids=[2, 4] int64, decoder_input_ids=[2, 4] int64"),
        ("vit", "pixel_values=[2, 3, 32, 32] float32"),
        ("clip", "input_ids=[2, 4] int64, pixel_values=[2, 3, 32, 32] float32"),
        ("whisper", "input_features=[2, 8, 32] float32, decoder_input_ids=[2, 4] int64"),
    ],
)
def test_inputs_of_transformers_models_come_from_their_config(name, expected):
    assert next(guesses(MODELS[name]())).describe() == expected


def test_inputs_of_other_networks_come_from_their_first_layer():
    assert next(guesses(mlp())).describe() == "[2, 12] float32"
    assert next(guesses(nn.Conv3d(2, 3, 1).half())).describe() == "[2, 2, 16, 16, 16] float16"
    assert next(guesses(nn.GRU(5, 3))).describe() == "[2, 4, 5] float32"
