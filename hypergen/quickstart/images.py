"""Real handwritten digits: scikit-learn's bundled set, split and standardised.

1797 images of 8 x 8 pixels with 17 grey levels, from the test part of the UCI "Optical Recognition
of Handwritten Digits" set (Alpaydin and Kaynak, 1998, CC BY 4.0). Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DigitImages:
    """Digits in three splits; every class has the same share of each.

    Attributes:
        train: images `[n, 64]`, standardised by the training mean and deviation of all pixels.
        train_labels: digits `[n]`.
        val: images `[n, 64]`.
        val_labels: digits `[n]`.
        test: images `[n, 64]`.
        test_labels: digits `[n]`.
        mean: what was subtracted, after the grey levels were divided by 16.
        std: what was divided by.
    """

    train: FloatArray
    train_labels: IntArray
    val: FloatArray
    val_labels: IntArray
    test: FloatArray
    test_labels: IntArray
    mean: float
    std: float


def load_images(seed: int = 0, val: float = 0.15, test: float = 0.25) -> DigitImages:
    """Loads and splits the digits.

    Args:
        seed: decides which image is in which split.
        val: fraction of the images for validation.
        test: fraction of the images for the test.

    Returns:
        The images of each split with their labels. One mean and one deviation, taken over all
        pixels of the training images, standardise every split (border pixels are constant, so a
        deviation for each pixel would be zero).

    Raises:
        ValueError: if the fractions leave a split empty.
    """
    if val <= 0 or test <= 0 or val + test >= 1:
        raise ValueError(f"val={val} and test={test} must be positive and leave training images")
    from sklearn.datasets import load_digits

    data = load_digits()
    images = data.data.astype(np.float32) / 16.0
    labels = data.target.astype(np.int64)
    rng = np.random.default_rng([seed, 1797])
    parts: dict[str, list[IntArray]] = {"train": [], "val": [], "test": []}
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        n_test, n_val = round(test * len(rows)), round(val * len(rows))
        parts["test"].append(rows[:n_test])
        parts["val"].append(rows[n_test : n_test + n_val])
        parts["train"].append(rows[n_test + n_val :])
    order = {name: rng.permutation(np.concatenate(rows)) for name, rows in parts.items()}
    if min(len(rows) for rows in order.values()) == 0:
        raise ValueError(f"val={val} and test={test} leave a split without images")
    mean = float(images[order["train"]].mean())
    std = float(images[order["train"]].std())
    scaled = ((images - mean) / std).astype(np.float32)
    return DigitImages(
        scaled[order["train"]],
        labels[order["train"]],
        scaled[order["val"]],
        labels[order["val"]],
        scaled[order["test"]],
        labels[order["test"]],
        mean,
        std,
    )
