"""Numbers of a zoo brought to mean 0 and spread 1, and exactly back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hypergen._utils.errors import RunError, UsageError, WeightsError
from hypergen._utils.io import load_safetensors, read_json, save_safetensors, write_json
from hypergen.specs import WeightSpec
from hypergen.zoo.reading.moments import Moments, compute_moments
from hypergen.zoo.store import Zoo

FORMAT_VERSION = 1
SETTINGS_FILE, TENSORS_FILE = "normalizer.json", "normalizer.safetensors"

By = Literal["entry", "slot"]


class Normalizer(nn.Module):
    """Affine map of each entry, or of each slot: z = (x - mean) / std.

    Entries that hardly vary over the zoo would be blown up by their tiny spread, so a spread never
    counts as less than `floor` times that of the whole slot; a slot that is constant altogether is
    only shifted.

    Mean and std are buffers `[numel]`: they move with the module that holds the normaliser.

    Args:
        spec: What the numbers mean.
        mean: `[numel]` by entry, `[slots]` by slot.
        std: The same shape, all positive.
        by: Whether every entry or every slot has its own mean and std.

    Raises:
        WeightsError: A shape does not fit the spec, or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: WeightSpec, mean: Tensor, std: Tensor, by: By = "entry") -> None:
        super().__init__()
        if by not in get_args(By):
            raise UsageError(f"a normaliser works by 'entry' or 'slot', not {by!r}")
        self.spec = spec
        self.by: By = by
        dtype = torch.promote_types(spec.dtype, torch.float32)
        sizes = torch.tensor([slot.numel for slot in spec])
        for name, values in (("mean", mean), ("std", std)):
            length = spec.numel if by == "entry" else len(spec)
            if values.shape != (length,):
                raise WeightsError(
                    f"{name} of a normaliser by {by} has shape [{length}] for {spec!r}, not "
                    f"{list(values.shape)}"
                )
            full = values if by == "entry" else values.repeat_interleave(sizes)
            self.register_buffer(name, full.to(dtype).clone())
        if not bool((self.std > 0).all() & torch.isfinite(self.std).all()):
            raise WeightsError("every std of a normaliser must be positive and finite")

    @staticmethod
    def fit(
        zoo: Zoo, by: By = "entry", *, weights: Tensor | None = None, floor: float = 1e-3
    ) -> Normalizer:
        """Reads a zoo of one architecture once; give it the training split only.

        Args:
            zoo: Checkpoints of one architecture.
            by: See the class.
            weights: `[N]`, weight of each checkpoint.
            floor: Smallest spread of an entry, as a fraction of its slot's.
        """
        return Normalizer.from_moments(compute_moments(zoo, weights), by, floor=floor)

    @staticmethod
    def from_moments(found: Moments, by: By = "entry", *, floor: float = 1e-3) -> Normalizer:
        """Makes a normaliser from moments; see `fit`."""
        if floor <= 0:
            raise UsageError(f"the floor of a normaliser must be positive, not {floor}")
        spec, slot_std = found.spec, found.slot_std
        # Relative to the mean too: a constant leaves a spread of rounding errors.
        eps = torch.finfo(spec.dtype).eps
        if by == "slot":
            tiny = slot_std <= eps * found.slot_mean.abs()
            return Normalizer(spec, found.slot_mean, slot_std.masked_fill(tiny, 1.0), by)
        sizes = torch.tensor([slot.numel for slot in spec])
        least = floor * slot_std.repeat_interleave(sizes)
        std = found.std().maximum(least)
        return Normalizer(spec, found.mean, std.masked_fill(std <= eps * found.mean.abs(), 1.0), by)

    def forward(self, flat: Tensor) -> Tensor:
        """Same as `encode`."""
        return self.encode(flat)

    def encode(self, flat: Tensor) -> Tensor:
        """Numbers `[..., numel]` → z-scores `[..., numel]`."""
        self._check(flat)
        return (flat - self.mean).div_(self.std)

    def decode(self, scores: Tensor) -> Tensor:
        """Z-scores `[..., numel]` → numbers `[..., numel]`, the inverse of `encode`."""
        self._check(scores)
        return scores * self.std + self.mean

    def _check(self, flat: Tensor) -> None:
        if flat.shape[-1] != self.spec.numel:
            raise WeightsError(
                f"expected [..., {self.spec.numel}] numbers, got {list(flat.shape)}: the "
                "normaliser was made for another spec"
            )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.spec!r}, by={self.by!r}"

    # -- files ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """`mean` and `std` in the shapes that the constructor takes."""
        if self.by == "entry":
            return {"mean": self.mean, "std": self.std}
        sizes = torch.tensor([slot.numel for slot in self.spec])
        first = (sizes.cumsum(0) - sizes).to(self.mean.device)
        return {"mean": self.mean[first], "std": self.std[first]}

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form of everything but the tensors."""
        return {"format_version": FORMAT_VERSION, "by": self.by, "spec": self.spec.to_dict()}

    @staticmethod
    def from_dict(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Normalizer:
        """Rebuilds a normaliser from `to_dict` and `tensors`.

        Raises:
            RunError: Another version, or something is missing, unexpected or malformed.
        """
        if data.get("format_version") != FORMAT_VERSION:
            raise RunError(
                f"normaliser of format version {data.get('format_version')!r}; this hypergen "
                f"reads {FORMAT_VERSION}"
            )
        if set(tensors) != {"mean", "std"}:
            raise RunError(f"a normaliser holds the tensors mean and std, not {sorted(tensors)}")
        try:
            spec = WeightSpec.from_dict(data["spec"])
            return Normalizer(spec, tensors["mean"], tensors["std"], data["by"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the normaliser is malformed: {error}") from error

    def save(self, folder: str | Path) -> Path:
        """Writes `normalizer.safetensors` and `normalizer.json`; returns the folder."""
        folder = Path(folder)
        save_safetensors(folder / TENSORS_FILE, self.tensors())
        write_json(folder / SETTINGS_FILE, self.to_dict())
        return folder

    @staticmethod
    def load(folder: str | Path) -> Normalizer:
        """Reads what `save` wrote.

        Raises:
            RunError: A file is missing or damaged; names it.
        """
        folder = Path(folder)
        data, tensors = read_json(folder / SETTINGS_FILE), load_safetensors(folder / TENSORS_FILE)
        try:
            if not isinstance(data, dict):
                raise RunError("it holds no object")
            return Normalizer.from_dict(data, tensors)
        except RunError as error:
            raise RunError(f"{folder / SETTINGS_FILE}: {error}") from error
