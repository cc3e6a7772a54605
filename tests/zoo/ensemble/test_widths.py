"""Narrow networks in a wide stack: padding stays zero and changes nothing."""

from __future__ import annotations

import pytest
import torch
from tiny_stacks import Blobs

from hypergen.errors import UsageError
from hypergen.zoo.ensemble import Classification, ImageFit, Member, train_ensemble
from hypergen.zoo.networks import CNN, MLP, SIREN, ViT

CLASSES = Classification(Blobs())
IMAGE = (1, 4, 4)


def mlp(*hidden: int, **options: object) -> MLP:
    return MLP(inputs=16, hidden=hidden, outputs=3, **options)


def cnn(*channels: int, **options: object) -> CNN:
    return CNN(image=IMAGE, channels=channels, outputs=3, **options)


CASES = {
    "relu": (mlp(6, 5), mlp(3, 5), CLASSES),
    "gelu": (mlp(6, 5, activation="gelu"), mlp(3, 4, activation="gelu"), CLASSES),
    "silu": (mlp(6, 5, activation="silu"), mlp(3, 4, activation="silu"), CLASSES),
    "tanh": (mlp(6, 5, activation="tanh"), mlp(3, 4, activation="tanh"), CLASSES),
    "elu": (mlp(6, 5, activation="elu"), mlp(3, 4, activation="elu"), CLASSES),
    "leaky": (mlp(6, 5, activation="leaky_relu"), mlp(3, 4, activation="leaky_relu"), CLASSES),
    "mlp-batch": (mlp(6, 5, norm="batch"), mlp(3, 5, norm="batch"), CLASSES),
    "cnn-batch": (cnn(4, 5), cnn(2, 4), CLASSES),
    "cnn-plain": (cnn(4, 5, norm=None), cnn(2, 4, norm=None), CLASSES),
    "cnn-residual": (cnn(4, 5, residual=True), cnn(2, 4, residual=True), CLASSES),
    "siren": (
        SIREN(hidden=(6, 5), omega=5.0),
        SIREN(hidden=(3, 4), omega=5.0),
        ImageFit(Blobs(), 3),
    ),
}


@pytest.mark.parametrize(
    ("name", "optimizer"),
    # A bias before batch norm has a gradient of rounding alone, of which Adam makes whole steps.
    [(n, o) for n in CASES for o in ("adamw", "sgd") if (n, o) != ("mlp-batch", "adamw")],
)
def test_a_narrow_member_equals_the_narrow_network(name, optimizer):
    wide, narrow, problem = CASES[name]
    options = {"steps": 8, "batch_size": 16, "optimizer": optimizer, "save_steps": (0, 8)}
    everyone = [Member(0, 0, 1e-2), Member(1, 0, 5e-3, 0.1, narrow), Member(2, 0, 1e-2)]
    mixed = train_ensemble(wide, everyone, problem, **options)
    alone = train_ensemble(narrow, [Member(1, 0, 5e-3, 0.1)], problem, **options)
    parts = {network: (rows, weights) for network, rows, weights in mixed.by_network()}
    assert parts[wide][0] == [0, 2]
    assert torch.equal(parts[wide][1], mixed.weights[:, [0, 2]])
    rows, cut = parts[narrow]
    assert rows == [1]
    torch.testing.assert_close(cut, alone.weights, rtol=1e-5, atol=3e-6)
    # What was cut away is zero exactly, but for the running variance of a unit that never varies.
    assert (mixed.weights[:, 1] != 0).sum() <= (cut != 0).sum()
    for split, metrics in alone.metrics.items():
        torch.testing.assert_close(
            mixed.metrics[split]["loss"][:, 1:2], metrics["loss"], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("wide", "narrow", "message"),
    [
        (mlp(6, 5), mlp(7, 5), r"\(7, 5\) do not fit"),
        (mlp(6, 5), mlp(6), "do not fit"),
        (mlp(6, 5), mlp(3, 5, activation="gelu"), "may differ in 'hidden' alone"),
        (mlp(6, 5, norm="layer"), mlp(3, 5, norm="layer"), "layer norm"),
        (mlp(6, 5, activation="sigmoid"), mlp(3, 5, activation="sigmoid"), "sigmoid"),
        (mlp(6, 5), cnn(4), "cannot be trained in a stack"),
        (
            ViT(image=IMAGE, patch=2, dim=8, outputs=3),
            ViT(image=IMAGE, patch=2, dim=4, outputs=3),
            "cannot be trained in a stack",
        ),
    ],
)
def test_what_cannot_be_padded_is_refused(wide, narrow, message):
    with pytest.raises(UsageError, match=message):
        train_ensemble(wide, [Member(0, 0, 0.1, network=narrow)], CLASSES, steps=1, batch_size=4)
