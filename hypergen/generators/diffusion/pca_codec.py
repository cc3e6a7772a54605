"""PCACodec: weights in the principal components of the zoo."""

from __future__ import annotations

import torch
from torch import Tensor

from hypergen._utils.errors import SpecError, WeightsError
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.specs import WeightSpec

_COLUMNS = 1 << 14  # columns of the zoo that are held in float64 at a time


class PCACodec(WeightCodec):
    """One token: the coordinates of a network in the leading principal components.

    Gupta et al., "DeepWeightFlow: Re-Basined Flow Matching for Generating Neural Network Weights",
    2026, arXiv:2601.05052. All components of N checkpoints span exactly their affine hull, which
    nothing that is decoded can leave: the number of components bounds what can be new.

    Fitting N checkpoints costs O(N² numel) when they are fewer than the numbers of each (the dual
    problem, on the N × N Gram matrix), else O(N numel²); encoding and decoding one GEMM.

    Args:
        spec: The weights.
        components: A number, or a share of the variance in (0, 1): as many components as explain
            it. The latents' width is known only when it was fitted then.
        standardize: Whether coordinates are divided by their spread over the zoo.
        rank: The number that a share came to; set by `fit`.

    Raises:
        SpecError: The number of components is not positive.
    """

    def __init__(
        self,
        spec: WeightSpec,
        components: int | float = 0.99,
        standardize: bool = True,
        rank: int | None = None,
    ) -> None:
        options = {"components": components, "standardize": standardize, "rank": rank}
        super().__init__(spec, options)
        if components <= 0 or (components >= 1 and components != int(components)):
            raise SpecError(f"components is a share below 1 or a whole number, not {components}")
        self.components, self.standardize = components, standardize
        if rank is None and components >= 1:
            rank = int(components)
        self.rank = rank
        self.register_buffer("mean", spec.initial(0))
        self.register_buffer("basis", torch.zeros(rank or 0, spec.numel))
        self.register_buffer("scale", torch.ones(rank or 0))
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor

    @property
    def sized(self) -> bool:
        """Whether the number of components is known."""
        return self.rank is not None

    @property
    def tokens(self) -> int:
        """One."""
        return 1

    @property
    def dim(self) -> int:
        """Number of components.

        Raises:
            WeightsError: A share of the variance was asked for, and it is not fitted yet.
        """
        if self.rank is None:
            raise WeightsError(
                f"how many components explain {self.components:g} of the variance is known after "
                "fit(): prepare the generator with its training data first"
            )
        return self.rank

    def describe(self, token: int) -> str:
        """The one token."""
        return "the principal components"

    def fit_statistics(self, flat: Tensor) -> None:
        """Finds mean and components.

        Raises:
            WeightsError: More components are asked for than the checkpoints have.
        """
        count, numel = flat.shape
        dual = count < numel
        mean = flat.mean(0, dtype=torch.float64)
        columns = [slice(i, i + _COLUMNS) for i in range(0, numel, _COLUMNS)]
        if dual:
            product = flat.new_zeros(count, count, dtype=torch.float64)
            for part in columns:
                centred = flat[:, part].double() - mean[part]
                product += centred @ centred.T
        else:
            centred = flat.double() - mean
            product = centred.T @ centred
        values, vectors = torch.linalg.eigh(product)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        # N centred rows have rank N - 1 at most; what is below rounding is no component.
        most = int((values > 1e-10 * values[0]).sum())
        most = min(most, count - 1) if values[0] > 0 else 0
        rank = self._rank(values, most)
        if dual:
            basis = torch.cat(
                [vectors[:, :rank].T @ (flat[:, part].double() - mean[part]) for part in columns], 1
            )
            basis = torch.nn.functional.normalize(basis, dim=1)
        else:
            basis = vectors[:, :rank].T
        # An eigenvector is given up to its sign: the largest entry is made positive.
        largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        basis = basis * largest.sign()
        scale = (values[:rank] / count).sqrt()
        if not self.standardize:
            scale = torch.ones_like(scale)
        self.mean.copy_(mean)
        self.basis, self.scale = basis.to(self.mean), scale.to(self.mean)
        self.rank = self.options["rank"] = rank

    def _rank(self, values: Tensor, most: int) -> int:
        if not most:
            raise WeightsError("the training checkpoints are all equal: they have no components")
        if self.components >= 1:
            if self.components > most:
                raise WeightsError(
                    f"{int(self.components)} components are asked for, but the training "
                    f"checkpoints span {most}: lower components"
                )
            return int(self.components)
        explained = values.cumsum(0) / values.sum()
        return min(most, 1 + int((explained < self.components).sum()))

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → coordinates `[B, 1, K]`."""
        self.check(flat)
        latents: Tensor = (flat - self.mean) @ self.basis.T / self.scale
        return latents[:, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Coordinates `[B, 1, K]` → flat `[B, numel]`."""
        flat: Tensor = self.mean + (latents[:, 0] * self.scale) @ self.basis
        return flat
