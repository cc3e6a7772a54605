"""The frozen target sees without labels and answers every question at chance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hypergen.quickstart.images import load_images
from hypergen.quickstart.network import pretrain


@pytest.fixture(scope="module")
def images():
    return load_images(0)


def test_pretraining_never_reads_a_label(images):
    blind = dataclasses.replace(images, train_labels=np.full_like(images.train_labels, -1))
    a, b = pretrain(images, steps=5), pretrain(blind, steps=5)
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_pretraining_is_seeded_and_leaves_the_global_state_alone(images):
    before = torch.get_rng_state()
    a, b, c = (pretrain(images, steps=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.fc1.weight, b.fc1.weight)
    assert not torch.equal(a.fc1.weight, c.fc1.weight)
    assert not any(p.requires_grad for p in a.parameters())


def test_features_tell_digits_apart_far_better_than_untrained_ones(images):
    x, y = torch.from_numpy(images.train), torch.from_numpy(images.train_labels)
    val, truth = torch.from_numpy(images.val), torch.from_numpy(images.val_labels)

    def probe(steps: int) -> float:
        features = pretrain(images, steps=steps).features
        centres = torch.stack([features(x)[y == d].mean(0) for d in range(10)])
        return float((torch.cdist(features(val), centres).argmin(1) == truth).float().mean())

    assert probe(600) > probe(1)
