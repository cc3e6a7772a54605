"""Implicit neural representations: each network is one image."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen.zoo.ensemble.data import ImageSource
from hypergen.zoo.ensemble.problem import Problem
from hypergen.zoo.store import Task

_RANGE = 2.0  # of pixel values, from -1 to 1


class ImageFit(Problem):
    """Coordinates in [-1, 1]² → pixel values in [-1, 1]; one task an image.

    As in Dupont et al., "From data to functa" (ICML 2022, arXiv:2201.12204) and SIREN
    (arXiv:2006.09661). The metrics are the mean squared error (`loss`) and the peak
    signal-to-noise ratio in decibels (`psnr`) over all pixels.

    Args:
        source: The images; the first ones of its training split are taken.
        images: Number of images.

    Raises:
        UsageError: Fewer than one image is asked for.
    """

    splits: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(self, source: ImageSource, images: int) -> None:
        if images < 1:
            raise UsageError(f"images must be at least 1, not {images}")
        self.source, self.images = source, images

    @cached_property
    def pixels(self) -> Tensor:
        """`[images, H · W, C]`, from -1 (the darkest training pixel) to 1 (the brightest).

        Raises:
            UsageError: The source has fewer images.
        """
        images = self.source.load().images["train"]
        if len(images) < self.images:
            raise UsageError(f"{self.source} has {len(images)} images, {self.images} are wanted")
        low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
        rows = images[: self.images].flatten(2).mT
        return _RANGE * (rows - low) / (high - low) - _RANGE / 2

    @property
    def outputs(self) -> int:
        """Channels of an image."""
        return int(self.pixels.shape[-1])

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """One task an image, with its class in the description."""
        data = self.source.load()
        tasks = {}
        for i, label in enumerate(data.labels["train"][: self.images].tolist()):
            name = data.classes[label]
            descriptions = (
                f"An image of the {self.source.noun} {name}.",
                f"Draw the {self.source.noun} {name}.",
            )
            tasks[f"image-{i:06d}"] = Task(descriptions, metadata={"class": name})
        return tasks

    @cached_property
    def _coordinates(self) -> Tensor:
        height, width = self.source.load().images["train"].shape[-2:]
        axes = [(torch.arange(n) + 0.5) / n * 2 - 1 for n in (height, width)]
        return torch.cartesian_prod(*axes)

    def inputs(self, split: str) -> Tensor:
        """Centres of the pixels, `[H · W, 2]`: row, column."""
        self.check_split(split)
        return self._coordinates

    def targets(self, split: str, tasks: Tensor, index: Tensor) -> Tensor:
        """Pixel values `[..., M, B, C]`."""
        self.check_split(split)
        return self.pixels[tasks[:, None], index]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Squared error of every pixel."""
        return {"loss": (outputs - targets).square().mean(-1)}

    def summary(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the peak signal-to-noise ratio."""
        return {**means, "psnr": 10 * torch.log10(_RANGE**2 / means["loss"])}

    def output_gradient(self, outputs: Tensor, targets: Tensor, out: Tensor) -> bool:
        """Twice the difference, over batch and channels."""
        torch.sub(outputs, targets.mT, out=out)
        out.mul_(2 / (targets.shape[1] * targets.shape[2]))
        return True
