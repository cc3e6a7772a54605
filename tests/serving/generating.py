"""A tiny base, a generator for it whose every number is random, and options of the command."""

from __future__ import annotations

import argparse

import torch
from torch import nn

from hypergen.conditions import HashingEncoder
from hypergen.generators import MLPGenerator


def build() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def scrambled(spec, encoder=None) -> MLPGenerator:
    """A generator whose every parameter is random: nothing starts at zero."""
    generator = MLPGenerator(spec, encoder or HashingEncoder(16), hidden=8, depth=1)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    return generator.eval()


def options(run, out, **more):
    given = {"text": None, "demos": None, "document": None, "n": 1, "seed": 0, "json": "-"}
    return argparse.Namespace(run=str(run), out=str(out), **{**given, **more})
