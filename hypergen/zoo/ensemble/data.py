"""Labelled images: scikit-learn's digits, and MNIST and CIFAR-10 from image-parquet files."""

from __future__ import annotations

import functools
import io
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.extras import require
from hypergen._utils.seeding import generator

DATA_VARIABLE = "HYPERGEN_DATA"


@dataclass(frozen=True)
class LabelledImages:
    """Images and labels by split.

    Attributes:
        images: Split (`"train"`, `"val"`, `"test"`) → `[N, C, H, W]`, float32; every channel has
            mean 0 and deviation 1 over the training images.
        labels: Split → `[N]` class numbers.
        classes: Names of the classes.
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: tuple[str, ...]


class ImageSource(ABC):
    """Where labelled images come from; subclasses are frozen dataclasses of settings."""

    classes: ClassVar[tuple[str, ...]]
    noun: ClassVar[str]  # what an image shows, for descriptions: "digit", "object"

    @abstractmethod
    def load(self) -> LabelledImages:
        """Reads the images; equal settings share the result within one process."""


@dataclass(frozen=True)
class Digits(ImageSource):
    """Scikit-learn's 1797 handwritten digits of 8 × 8 pixels, which come with the package.

    They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
    1998, UCI, CC BY 4.0).

    Attributes:
        seed: Decides which image is in which split.
        val: Share of the images for validation.
        test: Share of the images for the test.
    """

    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(10)))
    noun: ClassVar[str] = "digit"

    seed: int = 0
    val: float = 0.15
    test: float = 0.25

    def load(self) -> LabelledImages:
        """Reads the digits."""
        return _digits(self)


@dataclass(frozen=True)
class ParquetImages(ImageSource):
    """Images from parquet files in the layout of the Hugging Face hub.

    The files have a column `image` of structs with the encoded picture in `bytes`, and a column of
    class numbers. Two of them are read: `{name}-train.parquet`, part of which is for validation,
    and `{name}-test.parquet`.

    Attributes:
        folder: Folder of the files; `$HYPERGEN_DATA/vision` when not given.
        size: Height and width to which images are reduced (area average); their own when not given.
        samples: Number of training images to keep, drawn at random; all when not given.
        val: Share of the training file for validation.
        seed: Decides which images are kept and which are for validation.
    """

    name: ClassVar[str]
    label_column: ClassVar[str] = "label"

    folder: str | None = None
    size: int | None = None
    samples: int | None = None
    val: float = 0.1
    seed: int = 0

    def load(self) -> LabelledImages:
        """Reads and decodes both files.

        Raises:
            RunError: A file is missing or is not such a parquet file; says where to put it.
            MissingExtraError: pyarrow or pillow is not installed.
            UsageError: The settings leave a split empty.
        """
        return _parquet(self)

    def path(self, part: str) -> Path:
        """Path of the file of a part, `"train"` or `"test"`."""
        file = f"{self.name}-{part}.parquet"
        base = self.folder
        if base is None:
            data = os.environ.get(DATA_VARIABLE)
            if not data:
                raise RunError(
                    f"{file} is needed: give its folder as `folder`, or set {DATA_VARIABLE} to "
                    f"the folder that holds vision/{file}"
                )
            base = os.path.join(data, "vision")
        path = Path(base) / file
        if not path.is_file():
            raise RunError(
                f"{path} does not exist: put the Hugging Face parquet file of {self.name} "
                f"({part}) there, or give another `folder`"
            )
        return path


class MNIST(ParquetImages):
    """Handwritten digits, 28 × 28 grey levels (LeCun et al., "Gradient-Based Learning", 1998)."""

    name: ClassVar[str] = "mnist"
    classes: ClassVar[tuple[str, ...]] = tuple(map(str, range(10)))
    noun: ClassVar[str] = "digit"


class CIFAR10(ParquetImages):
    """Photographs of ten kinds of things, 32 × 32 colours (Krizhevsky, 2009)."""

    name: ClassVar[str] = "cifar10"
    classes: ClassVar[tuple[str, ...]] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    noun: ClassVar[str] = "object"


def _split(
    images: dict[str, Tensor], labels: dict[str, Tensor], source: ImageSource
) -> LabelledImages:
    """Standardises every channel by the training images."""
    for split, part in images.items():
        if not len(part):
            raise UsageError(f"{source} leaves no image in the {split} split")
    mean = images["train"].mean((0, 2, 3), keepdim=True)
    std = images["train"].std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    scaled = {split: ((part - mean) / std).contiguous() for split, part in images.items()}
    return LabelledImages(scaled, labels, source.classes)


@functools.lru_cache(maxsize=2)
def _digits(source: Digits) -> LabelledImages:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images).float()[:, None] / 16
    labels = torch.from_numpy(data.target).long()
    order = torch.randperm(len(pixels), generator=generator("digits", source.seed))
    n_test, n_val = round(source.test * len(order)), round(source.val * len(order))
    rows = dict(
        zip(
            ("test", "val", "train"),
            order.tensor_split([n_test, n_test + n_val]),
            strict=True,
        )
    )
    splits = ("train", "val", "test")
    return _split(
        {s: pixels[rows[s]] for s in splits}, {s: labels[rows[s]] for s in splits}, source
    )


@functools.lru_cache(maxsize=2)
def _parquet(source: ParquetImages) -> LabelledImages:
    if not 0 < source.val < 1:
        raise UsageError(f"val is a share of the training file in (0, 1), not {source.val}")
    total = _rows(source, "train")
    order = torch.randperm(total, generator=generator(source.name, source.seed))
    n_val = round(source.val * total)
    chosen = {"train": order[n_val:][: source.samples], "val": order[:n_val]}
    images, labels = {}, {}
    for split, rows in chosen.items():
        images[split], labels[split] = _decode(source, "train", rows)
    # Such files come sorted by class, and metrics may be taken of the first samples only.
    shuffle = generator(source.name, source.seed, "test")
    test = torch.randperm(_rows(source, "test"), generator=shuffle)
    images["test"], labels["test"] = _decode(source, "test", test)
    return _split(images, labels, source)


def _rows(source: ParquetImages, part: str) -> int:
    """Number of images in a file."""
    parquet = require("pyarrow.parquet", "zoo", "reading parquet files")
    path = source.path(part)
    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a parquet file: {error}") from error


def _decode(source: ParquetImages, part: str, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels `[N, C, H, W]` in 0…1, and labels `[N]`, of some rows of a file."""
    parquet = require("pyarrow.parquet", "zoo", "reading parquet files")
    image = require("PIL.Image", "zoo", "decoding images")
    path = source.path(part)
    try:
        table = parquet.read_table(path, columns=["image", source.label_column])
        table = table.take(rows.numpy())
        labels = torch.tensor(table[source.label_column].to_pylist(), dtype=torch.long)
        arrays = []
        for entry in table["image"].to_pylist():
            with image.open(io.BytesIO(entry["bytes"])) as picture:
                arrays.append(np.asarray(picture))
        stacked = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, 1, 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is not a parquet file of images of one size with the columns 'image' "
            f"(bytes) and '{source.label_column}': {error}"
        ) from error
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(source.classes):
        raise RunError(f"{path} has labels outside 0…{len(source.classes) - 1}")
    stacked = stacked[:, None] if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2)
    pixels = stacked.float() / 255
    if source.size is not None and len(pixels):
        pixels = F.interpolate(pixels, size=(source.size, source.size), mode="area")
    return pixels, labels
