"""p-diff's autoencoder: strided convolutions over the flat weights, and a linear bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.latents import drawn, noisy
from hypergen.generators.diffusion.standardize import Scope, Standardize
from hypergen.specs import WeightSpec


class ConvCodec(WeightCodec):
    """A one-dimensional convolutional autoencoder of flat weights.

    Wang et al., "Neural Network Diffusion" (p-diff), 2024, arXiv:2402.13144. The standardised
    weights, padded to a whole number of strides, are one signal; each layer of the encoder divides
    its length by the stride, a linear layer makes the latents, and the decoder mirrors both. Noise
    on weights and latents in training makes it robust to what a diffusion makes of latents.

    What differs: layer norm over the features of a network in place of batch norm, so that neither
    training mode nor the other networks of a batch change what is decoded; noise on latents is in
    units of their own spread; latents may be a short sequence, in which each of `tokens` vectors
    holds one part of the signal. One vector can hold what the checkpoints of one run, or of one
    start, differ in; for networks of independent starts, take a vector for every hundred numbers.

    Args:
        spec: The weights.
        tokens: Number of latent vectors T.
        latent: Width of each, D.
        channels: Channels of the encoder's layers.
        stride: What each layer divides the length by.
        kernel: Width of the filters, odd and at least the stride.
        normalize: What shares mean and spread, see `Standardize`.
        input_noise: Standard deviation of the noise on standardised weights in training.
        latent_noise: The same for latents, in units of their spread.
        kl_weight: Factor of the divergence of a variational autoencoder from a standard normal
            distribution, per latent number; 0 for a plain autoencoder.

    Raises:
        SpecError: A setting is out of range.
    """

    trained: ClassVar[bool] = True

    def __init__(
        self,
        spec: WeightSpec,
        tokens: int = 1,
        latent: int = 256,
        channels: Sequence[int] = (16, 32),
        stride: int = 4,
        kernel: int = 5,
        normalize: Scope = "entry",
        input_noise: float = 1e-3,
        latent_noise: float = 0.1,
        kl_weight: float = 0.0,
    ) -> None:
        options = {
            "tokens": tokens,
            "latent": latent,
            "channels": list(channels),
            "stride": stride,
            "kernel": kernel,
            "normalize": normalize,
            "input_noise": input_noise,
            "latent_noise": latent_noise,
            "kl_weight": kl_weight,
        }
        super().__init__(spec, options)
        if min(tokens, latent, stride, *channels, len(channels)) < 1:
            raise SpecError("tokens, latent, channels and stride of a ConvCodec must be positive")
        if kernel < stride or kernel % 2 == 0:
            raise SpecError(f"kernel must be odd and at least the stride {stride}, not {kernel}")
        if min(input_noise, latent_noise, kl_weight) < 0:
            raise SpecError("input_noise, latent_noise and kl_weight must not be negative")
        self._tokens, self._dim = tokens, latent
        self.input_noise, self.latent_noise, self.kl_weight = input_noise, latent_noise, kl_weight
        self.normal = Standardize(spec, normalize)
        reach = stride ** len(channels)
        # Every token holds a part of the same length, a whole number of the last layer's steps.
        self.steps = math.ceil(spec.numel / (reach * tokens))
        self.length = self.steps * reach * tokens
        pairs = list(pairwise([1, *channels]))
        half, rest = kernel // 2, stride - 1
        self.down = nn.ModuleList(
            _Layer(nn.Conv1d(a, b, kernel, stride, half), b, kernel) for a, b in pairs
        )
        # Lengths are multiples of the stride: each layer undoes what its mirror did.
        self.up = nn.ModuleList(
            _Layer(nn.ConvTranspose1d(b, a, kernel, stride, half, rest), a, kernel)
            for a, b in reversed(pairs)
        )
        self.features = channels[-1] * self.steps
        outputs = 2 * latent if kl_weight else latent
        self.enter = _PerToken(tokens, self.features, outputs)
        self.leave = _PerToken(tokens, latent, self.features)

    @property
    def tokens(self) -> int:
        """Number T of latent vectors."""
        return self._tokens

    @property
    def dim(self) -> int:
        """Width D of a latent vector."""
        return self._dim

    def fit_statistics(self, flat: Tensor) -> None:
        """Takes mean and spread of the weights."""
        self.normal.fit(flat)

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → latents `[B, T, D]`, the mean where they have a distribution."""
        self.check(flat)
        return self._encode(self.normal.encode(flat))[..., : self._dim]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, T, D]` → flat `[B, numel]`."""
        self.check_latents(latents)
        return self.normal.decode(self._decode(latents))

    def loss(self, flat: Tensor) -> Tensor:
        """Mean squared error of standardised weights, with the weighted divergence if there is one.

        Args:
            flat: `[B, numel]`.
        """
        self.check(flat)
        normal = self.normal.encode(flat)
        output = self._encode(normal + self.input_noise * torch.randn_like(normal))
        latents, _, divergence = drawn(output, self.kl_weight)
        rebuilt = self._decode(noisy(latents, self.latent_noise))
        return F.mse_loss(rebuilt, normal) + divergence

    def _encode(self, normal: Tensor) -> Tensor:
        x = F.pad(normal, (0, self.length - self.spec.numel))[:, None]
        for layer in self.down:
            x = layer(x)
        # [B, C, T · steps] → [B, T, C · steps]
        x = x.unflatten(2, (self._tokens, self.steps)).transpose(1, 2).flatten(2)
        out: Tensor = self.enter(x)
        return out

    def _decode(self, latents: Tensor) -> Tensor:
        x = self.leave(latents).unflatten(2, (-1, self.steps)).transpose(1, 2).flatten(2)
        for layer in self.up:
            x = layer(x)
        return x[:, 0, : self.spec.numel]


class _Layer(nn.Module):
    """A strided convolution, then a residual one: y + conv(GELU(norm(y))).

    The residual part starts at zero, so that the whole codec starts as a linear one, which learns
    the principal components of the weights in a few steps.
    """

    def __init__(self, conv: nn.Module, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = conv
        # Over the features of one network: a batch norm would make networks depend on each other.
        self.norm = nn.GroupNorm(1, channels)
        self.residual = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        nn.init.zeros_(self.residual.weight)
        assert self.residual.bias is not None
        nn.init.zeros_(self.residual.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        out: Tensor = y + self.residual(F.gelu(self.norm(y)))
        return out


class _PerToken(nn.Module):
    """A linear map of its own for each token, all in one batched product."""

    def __init__(self, tokens: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tokens, inputs, outputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(tokens, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, inputs]` → `[B, T, outputs]`."""
        return torch.baddbmm(self.bias[:, None], x.transpose(0, 1), self.weight).transpose(0, 1)
