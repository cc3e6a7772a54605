"""Fast weights of adapted modules of one shape: from tokens to sums, from sums to LoRA factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen.generators.fast_weights.polar import leading_directions, polar_factor

Keys = Literal["separate", "shared"]
Normalization = Literal["polar", "ridge", "frobenius", "none"]


@dataclass(frozen=True)
class Options:
    """How tokens are added up and sums become weights; see `GenerativeAdapter`."""

    state_rank: int
    keys: Keys
    shift: int
    normalization: Normalization
    decay: float
    epsilon: float
    ridge: float
    rms: bool


class FastWeights(nn.Module):
    """The fast weights of m modules that have rank, sizes and width of reading in common.

    With h a module's reading of a token, k = A2 h (or A1 h) and v = A3 h, the sum of a chunk is
    S = Σ k vᵀ, with C = Σ k kᵀ beside it for ridge regression: one matrix [S | C], since both add
    up alike. The update is B N(S)ᵀ A1, N being the normalisation.

    Args:
        rank: Rank r that is emitted.
        value_rank: Rank of the values, at least r.
        inputs: Width of the modules' inputs.
        outputs: Width of the modules' outputs.
        starts: First number of each module's reading in a token.
        width: Width h of a reading.
        options: How.
    """

    def __init__(
        self,
        rank: int,
        value_rank: int,
        inputs: int,
        outputs: int,
        starts: Sequence[int],
        width: int,
        options: Options,
    ) -> None:
        super().__init__()
        self.rank, self.value_rank, self.width, self.options = rank, value_rank, width, options
        modules, keys = len(starts), options.state_rank
        # Rows of N(S) are orthonormal, so A = N(S)ᵀ A1 has entries of A1's size: those that a LoRA
        # starts with. Keys and values have variance one. With B = 0 the base is unchanged.
        self.query = nn.Parameter(torch.randn(modules, keys, inputs) / math.sqrt(3 * inputs))
        self.key = (
            nn.Parameter(torch.randn(modules, keys, width) / math.sqrt(width))
            if options.keys == "separate"
            else None
        )
        self.value = nn.Parameter(torch.randn(modules, value_rank, width) / math.sqrt(width))
        self.out = nn.Parameter(torch.zeros(modules, outputs, value_rank))
        # Readings that several modules share are multiplied once, by all their matrices.
        self.units = list(dict.fromkeys(starts))
        self.step = _step(starts, self.units, width)
        if not self.step:
            index = torch.tensor(starts)[:, None] + torch.arange(width)
            self.register_buffer("index", index.flatten(), persistent=False)
            self.index: Tensor

    @property
    def sums_width(self) -> int:
        """Columns of [S | C]."""
        extra = self.options.state_rank if self.options.normalization == "ridge" else 0
        return self.value_rank + extra

    def empty(self, batch: int = 1) -> Tensor:
        """The sums of no token: `[m, B, r1, columns]`."""
        keys = self.options.state_rank
        return self.value.new_zeros(len(self.value), batch, keys, self.sums_width)

    def sums(self, tokens: Tensor, weight: Tensor, chunk: int, total: bool) -> Tensor:
        """Adds up the tokens of each chunk, or of all.

        Args:
            tokens: `[B, T, D]`, T a multiple of `chunk`.
            weight: `[B, T]` of each token, 0 for those that are masked.
            chunk: Tokens of a chunk.
            total: Whether to add up the chunks.

        Returns:
            `[m, B, chunks, r1, columns]`, or `[m, B, r1, columns]`.
        """
        shift = self.options.shift
        states = self._states(tokens)
        normed = F.rms_norm(states, states.shape[-1:], eps=1e-6) if self.options.rms else states
        key = self._project(states, self.query) if self.key is None else None
        key = self._project(normed, self.key) if key is None and self.key is not None else key
        assert key is not None
        value = self._project(normed, self.value)
        # [m, B, chunks, L, ·]; values are read `shift` tokens after their keys, in the same chunk.
        key, value = (part.unflatten(2, (-1, chunk)) for part in (key, value))
        weight = weight.unflatten(1, (-1, chunk))
        if shift:
            key, value = key[..., :-shift, :], value[..., shift:, :]
            weight = weight[..., :-shift] * (weight[..., shift:] != 0)
        if self.options.normalization == "ridge":
            value = torch.cat([value, key], -1)
        key = key * weight[..., None]
        if total:
            key, value = key.flatten(2, 3), value.flatten(2, 3)
        return key.mT @ value

    def factors(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """A `[m, N, r, in]` and B `[m, N, out, r]` of sums `[m, N, r1, columns]`."""
        state = self._normalized(sums)
        right: Tensor | None = None
        polar, epsilon = self.options.normalization == "polar", self.options.epsilon
        if self.rank < self.value_rank:
            state, right = leading_directions(state, self.rank, epsilon, polar)
        elif polar:
            state = polar_factor(state, epsilon)
        modules, batch = state.shape[:2]
        a = state.mT.reshape(modules, -1, state.shape[2]) @ self.query
        a = a.unflatten(1, (batch, self.rank))
        if right is None:
            return a, self.out[:, None].expand(-1, batch, -1, -1)
        return a, self.out[:, None] @ right

    def _normalized(self, sums: Tensor) -> Tensor:
        """S, unless `polar`, which is done with the truncation."""
        kind = self.options.normalization
        if kind == "frobenius":
            norm = torch.linalg.matrix_norm(sums, keepdim=True)
            # The norm of a polar factor.
            return sums * (math.sqrt(self.rank) / torch.where(norm > 0, norm, 1.0))
        if kind != "ridge":
            return sums
        wide = sums if sums.device.type == "mps" else sums.double()
        state, gram = wide[..., : self.value_rank], wide[..., self.value_rank :]
        size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        size = torch.where(size > 0, size, 1.0)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        lower = torch.linalg.cholesky(gram / size + self.options.ridge * eye)
        return torch.cholesky_solve(state / size, lower).to(sums.dtype)

    def _states(self, tokens: Tensor) -> Tensor:
        """Readings `[units, B, T, h]`, a view where they stand at regular places."""
        if not self.step:
            parts = tokens.index_select(-1, self.index).unflatten(-1, (-1, self.width))
        else:
            tokens = tokens[..., self.units[0] :]
            parts = tokens.unfold(-1, self.width, self.step)[..., : len(self.units), :]
        return parts.permute(2, 0, 1, 3)

    def _project(self, states: Tensor, matrix: Tensor) -> Tensor:
        """`[units, B, T, h]` and `[m, k, h]` → `[m, B, T, k]`."""
        units, batch, length, _ = states.shape
        stacked = matrix.reshape(units, -1, self.width)
        out = (states.reshape(units, batch * length, -1) @ stacked.mT).unflatten(1, (batch, -1))
        return out.unflatten(-1, (-1, matrix.shape[1])).permute(0, 3, 1, 2, 4).flatten(0, 1)


def _step(starts: Sequence[int], units: Sequence[int], width: int) -> int:
    """Distance of the units in a token; 0 if they, or the modules of each, are irregular."""
    times = len(starts) // len(units)
    if [unit for unit in units for _ in range(times)] != list(starts):
        return 0
    steps = {b - a for a, b in pairwise(units)} or {width}
    return max(0, steps.pop()) if len(steps) == 1 else 0


def prefix_sums(sums: Tensor, decay: float) -> Tensor:
    """Running sums over the chunks (axis 2), what came before losing `1 - decay` at each.

    Without decay one cumulative sum; with it ⌈log₂ chunks⌉ shifted additions, which never divide
    by a power of the decay.
    """
    if decay == 1:
        return sums.cumsum(2)
    step, factor = 1, decay
    while step < sums.shape[2]:
        moved = F.pad(sums[:, :, :-step], (0, 0, 0, 0, step, 0))
        sums, step, factor = sums + factor * moved, 2 * step, factor * factor
    return sums
