"""A transformer autoencoder of token sequences of any length, in overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.denoiser import sinusoid
from hypergen.generators.hyper.transformer import ConditionBlock

_FREQUENCIES = 16


class PositionCode(nn.Module):
    """Positions (layer, slot, number in the slot) → vectors, for any layer, slot and number.

    Sines and cosines of the three, then an MLP: no table bounds what architectures fit.

    Args:
        dim: Width.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(6 * _FREQUENCIES, dim), nn.GELU(), nn.Linear(dim, dim)
        )

    def forward(self, positions: Tensor) -> Tensor:
        """`[..., 3]` → `[..., dim]`."""
        dtype = next(self.parameters()).dtype
        code = sinusoid(positions, _FREQUENCIES, period=1000.0).flatten(-2)
        out: Tensor = self.network(code.to(dtype))
        return out


class TokenAutoencoder(nn.Module):
    """Tokens → one latent vector each → tokens, by attention over the tokens of one network.

    Both halves end without a norm and begin as the identity, so that at the start the whole is
    one linear map of each token: a linear autoencoder, which attention and MLPs improve upon.

    Long sequences are cut into windows. Each token is computed in one window, with at least `halo`
    tokens (where there are any) on both sides of it in view: SANE's halo (arXiv:2406.09997).
    Windows lie at fixed places, so that padding behind a sequence changes nothing.

    Args:
        dim: Width inside.
        depth: Blocks of each half.
        heads: Attention heads.
        latent: Width of a latent vector; `outputs` of them leave the encoder.
        outputs: Numbers that the encoder makes of a token; `2 · latent` for a distribution.
        window: Tokens that attend to each other; all of a sequence when None.
        halo: Tokens at both ends of a window that are computed in the neighbouring windows.

    Raises:
        SpecError: A setting is out of range.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        latent: int,
        outputs: int,
        window: int | None,
        halo: int,
    ) -> None:
        super().__init__()
        if min(dim, heads, latent) < 1 or depth < 0:
            raise SpecError("dim, heads and latent must be positive, depth not negative")
        if window is not None and not 0 <= 2 * halo < window:
            raise SpecError(
                f"a window of {window} tokens has no room between halos of {halo} on both sides"
            )
        self.window, self.halo = window, halo
        self.position = nn.ModuleList(PositionCode(dim) for _ in range(2))
        self.encoder = nn.ModuleList(_block(dim, heads) for _ in range(depth))
        self.decoder = nn.ModuleList(_block(dim, heads) for _ in range(depth))
        self.enter = nn.Linear(dim, outputs)
        self.leave = nn.Linear(latent, dim)

    def encode(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Embedded tokens → latents.

        Args:
            x: `[B, T, dim]`.
            mask: `[B, T]`, False for padding.
            positions: `[T, 3]` or `[B, T, 3]`.

        Returns:
            `[B, T, outputs]`; what stands under the mask means nothing.
        """
        hidden = self._windows(self.encoder, x + self.position[0](positions), mask)
        out: Tensor = self.enter(hidden)
        return out

    def decode(self, latents: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Latents `[B, T, latent]` → embedded tokens `[B, T, dim]`."""
        x = self.leave(latents) + self.position[1](positions)
        return self._windows(self.decoder, x, mask)

    def _windows(self, blocks: Iterable[nn.Module], x: Tensor, mask: Tensor) -> Tensor:
        if self.window is None:
            return _run(blocks, x, mask)
        length, stride = x.shape[1], self.window - 2 * self.halo
        count = math.ceil(length / stride)
        places = torch.arange(count, device=x.device)[:, None] * stride - self.halo
        places = places + torch.arange(self.window, device=x.device)
        inside = (places >= 0) & (places < length)
        places = places.clamp(0, length - 1)
        cut = _run(blocks, x[:, places].flatten(0, 1), (mask[:, places] & inside).flatten(0, 1))
        own = cut[:, self.halo : self.halo + stride]
        return own.unflatten(0, (len(x), count)).flatten(1, 2)[:, :length]


def _run(blocks: Iterable[nn.Module], x: Tensor, mask: Tensor) -> Tensor:
    # A window without any token would have nothing to attend to: let it attend to its padding.
    mask = mask | ~mask.any(1, keepdim=True)
    for block in blocks:
        x = block(x, mask)
    return x


def _block(dim: int, heads: int) -> ConditionBlock:
    """A block that begins as the identity."""
    block = ConditionBlock(dim, heads, 0.0)
    for last in (block.attention.out, block.mlp.body[-1]):
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    return block
