"""What encoders of numbers share: reading them, their training statistics, Fourier features."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError


def read_numbers(inputs: Any, width: int, what: str) -> Tensor:
    """Reads rows of numbers.

    Args:
        inputs: `[B, width]` or `[width]`: tensor, array or lists.
        width: Numbers of a row.
        what: What a row is, for messages.

    Returns:
        `[B, width]`, float32, on the device of the inputs.

    Raises:
        ConditionError: Not numbers, no row, or rows of another length.
    """
    if isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], Tensor):
        inputs = torch.stack(list(inputs))
    elif isinstance(inputs, (list, tuple)):
        for i, row in enumerate(inputs):
            if isinstance(row, (list, tuple)) and len(row) != width:
                raise ConditionError(f"{what} {i} has {len(row)} numbers, expected {width}")
    try:
        values = torch.as_tensor(inputs, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConditionError(f"{what} must be numbers: {error}") from error
    values = values[None] if values.dim() == 1 else values
    if values.dim() != 2 or values.shape[1] != width:
        raise ConditionError(
            f"{what} has shape {list(values.shape)}, expected [B, {width}] or [{width}]"
        )
    if not len(values):
        raise ConditionError(f"no {what} given")
    return values


class Standardizer(nn.Module):
    """Mean, spread and range of the numbers of a training set, which are saved with the encoder.

    Until it is fitted it changes nothing and knows no range.

    Args:
        width: Numbers of a row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("std", 1.0), ("low", 0.0), ("high", 0.0)):
            self.register_buffer(name, torch.full((width,), value))
        self.register_buffer("fitted", torch.tensor(False))
        self.mean: Tensor
        self.std: Tensor
        self.low: Tensor
        self.high: Tensor
        self.fitted: Tensor

    def fit(self, values: Tensor) -> None:
        """Takes the statistics of `[N, width]` training rows; columns may hold NaN: left out.

        Raises:
            ConditionError: A column has no finite number.
        """
        values = values.double()
        known = torch.isfinite(values)
        if not bool(known.any(0).all()):
            raise ConditionError("a column of numbers to fit has no finite value")
        count = known.sum(0)
        mean = values.nan_to_num(0, 0, 0).sum(0) / count
        variance = (values - mean).square().nan_to_num(0, 0, 0).sum(0) / count
        std = variance.sqrt()
        self.mean.copy_(mean)
        # Columns that never change are left as they are, but for their mean.
        self.std.copy_(torch.where(std > 1e-8, std, 1.0))
        self.low.copy_(values.masked_fill(~known, math.inf).amin(0))
        self.high.copy_(values.masked_fill(~known, -math.inf).amax(0))
        self.fitted.fill_(True)

    def forward(self, values: Tensor) -> Tensor:
        """(values - mean) / std, `[B, width]`."""
        return (values - self.mean) / self.std

    def check(self, values: Tensor, names: list[str], shown: Tensor | None = None) -> None:
        """Checks rows of numbers `[B, width]`; waits for an accelerator.

        Args:
            values: In the units that were fitted.
            names: What the columns are called in messages.
            shown: The numbers as they were given, for messages.

        Raises:
            ConditionError: NaN or infinity; names row and column.
        """
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            row, column = (~finite).nonzero()[0].tolist()
            given = float((values if shown is None else shown)[row, column])
            raise ConditionError(f"{names[column]} of input {row} is {given}")
        if not bool(self.fitted):
            return
        # Half the range beyond its ends counts as near.
        margin = 0.5 * (self.high - self.low) + 1e-6
        far = (values < self.low - margin) | (values > self.high + margin)
        if bool(far.any()):
            row, column = far.nonzero()[0].tolist()
            given = float((values if shown is None else shown)[row, column])
            warnings.warn(
                f"{names[column]} of input {row} is {given:g}, far outside of what was trained, "
                f"{self._range(column, values, shown)}: expect little",
                stacklevel=4,
            )

    def _range(self, column: int, values: Tensor, shown: Tensor | None) -> str:
        low, high = (float(x.expand(values.shape[1])[column]) for x in (self.low, self.high))
        if shown is not None and shown is not values:  # fitted on logarithms
            low, high = math.exp(low), math.exp(high)
        return f"{low:g} to {high:g}"


def fourier(values: Tensor, frequencies: int, base: float = 2.0) -> Tensor:
    """Sines and cosines at geometric frequencies.

    Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
    Domains", NeurIPS 2020, arXiv:2006.10739.

    Args:
        values: `[...]`, of size about one.
        frequencies: Number F of frequencies, from a period of about 25 down.
        base: Ratio of neighbouring frequencies.

    Returns:
        `[..., 2 F + 1]`: the value itself, sines, cosines.
    """
    steps = torch.arange(frequencies, device=values.device, dtype=values.dtype)
    angle = values[..., None] * (0.25 * base**steps)
    return torch.cat([values[..., None], angle.sin(), angle.cos()], dim=-1)
