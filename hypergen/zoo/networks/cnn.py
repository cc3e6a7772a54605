"""Small convolutional networks: plain or residual, with or without normalisation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from torch import Tensor, nn

from hypergen.specs import Slot
from hypergen.zoo.canonical.scaling import ScalingGroup, scaling_of
from hypergen.zoo.canonical.symmetry import PermutationGroup, Place, Symmetry, group
from hypergen.zoo.networks.base import Network, choice, size, sizes
from hypergen.zoo.networks.norm import NORMS, norm_slots


class ConvNorm(nn.Module):
    """A 3 × 3 convolution and its normalisation.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: 1, or 2 to halve height and width.
        norm: batch, layer or None; without it the convolution has a bias.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=norm is None)
        make = NORMS[norm]
        self.norm = nn.Identity() if make is None else make(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H / stride, W / stride]`."""
        out: Tensor = self.norm(self.conv(x))
        return out


class Stage(nn.Module):
    """Halves the image; with `residual`, a residual block follows."""

    def __init__(self, inputs: int, outputs: int, norm: str | None, residual: bool) -> None:
        super().__init__()
        self.down = ConvNorm(inputs, outputs, 2, norm)
        self.inner = ConvNorm(outputs, outputs, 1, norm) if residual else None
        self.outer = ConvNorm(outputs, outputs, 1, norm) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, H, W]` → `[N, outputs, H / 2, W / 2]`."""
        x = self.down(x).relu()
        if self.inner is not None and self.outer is not None:
            x = (x + self.outer(self.inner(x).relu())).relu()
        return x


class ConvNet(nn.Module):
    """Stages, global average pooling, a linear layer; see `CNN`."""

    def __init__(
        self, channels: tuple[int, ...], outputs: int, norm: str | None, residual: bool
    ) -> None:
        super().__init__()
        pairs = itertools.pairwise(channels)
        self.stages = nn.Sequential(*(Stage(a, b, norm, residual) for a, b in pairs))
        self.head = nn.Linear(channels[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[N, C, H, W]` → `[N, outputs]`."""
        out: Tensor = self.head(self.stages(x).mean((-2, -1)))
        return out


@dataclass(frozen=True)
class CNN(Network):
    """Images `[N, C, H, W]` → `[N, outputs]`: 3 × 3 convolutions of stride 2, average pooling.

    The plain form without normalisation is that of the small-CNN zoo of Unterthiner et al.
    (arXiv:2002.11448). With `residual`, a block of two convolutions (He et al., CVPR 2016,
    arXiv:1512.03385) follows each convolution of stride 2.

    Args:
        image: Channels, height and width of the input.
        channels: Output channels of each stage.
        outputs: Number of outputs.
        norm: batch, layer (over channels and space, `GroupNorm(1)`) or None.
        residual: Whether residual blocks follow.

    Raises:
        UsageError: A size below 1, or an unknown norm.
    """

    image: tuple[int, int, int] = (1, 28, 28)
    channels: tuple[int, ...] = (8, 16, 16)
    outputs: int = 10
    norm: str | None = "batch"
    residual: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", sizes(self, "image", self.image, 3))
        object.__setattr__(self, "channels", sizes(self, "channels", self.channels))
        size(self, "number of stages", len(self.channels))
        size(self, "outputs", self.outputs)
        choice(self, "norm", self.norm, NORMS)
        choice(self, "residual", self.residual, {True: None, False: None})

    def module(self) -> nn.Module:
        """A `ConvNet`."""
        channels = (self.image[0], *self.channels)
        return ConvNet(channels, self.outputs, self.norm, bool(self.residual))

    def start(self, slot: Slot) -> Slot:
        """He's, with gain 1 for the outputs."""
        if slot.name != "head.weight":
            return slot
        std = self.channels[-1] ** -0.5
        return replace(slot, std=std, scale=std)

    def symmetry(self) -> Symmetry:
        """One group for each stage's stream of channels, one within each residual block."""
        groups: list[PermutationGroup] = []
        for i, units in enumerate(self.channels):
            stage = f"stages.{i}"
            after = f"stages.{i + 1}.down.conv" if i + 1 < len(self.channels) else "head"
            rows, columns = self._rows(f"{stage}.down"), [Place(f"{after}.weight", 1)]
            if self.residual:
                # What the block adds to the stream must be in the order of the stream.
                rows += self._rows(f"{stage}.outer")
                columns.append(Place(f"{stage}.inner.conv.weight", 1))
            groups.append(group(f"stage{i}", units, rows, columns))
            if self.residual:
                rows, columns = (
                    self._rows(f"{stage}.inner"),
                    [Place(f"{stage}.outer.conv.weight", 1)],
                )
                groups.append(group(f"stage{i}.inner", units, rows, columns))
        return Symmetry(self.spec(), groups)

    def scaling(self) -> tuple[ScalingGroup, ...]:
        """Every stage without residual block, and the inside of each block."""
        symmetry = self.symmetry()
        inner = [g for g in symmetry.groups if g.name.endswith(".inner") or not self.residual]
        return scaling_of(Symmetry(symmetry.spec, inner), norm=self.norm is not None)

    def _rows(self, path: str) -> list[str]:
        """Slots of a `ConvNorm` with one entry, or one filter, for each output channel."""
        bias = [f"{path}.conv.bias"] if self.norm is None else []
        return [f"{path}.conv.weight", *bias, *norm_slots(self.norm, f"{path}.norm")]
