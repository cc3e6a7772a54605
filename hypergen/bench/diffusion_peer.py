"""Diffusion over weights as the published code does it, written from its description.

What is kept of each: p-diff (arXiv:2402.13144) autoencodes flat weights by five strided
convolutions with batch norm and denoises the latent by a convolutional network at full length. RPG
(arXiv:2501.11587) denoises every token by a convolutional network at the resolution of the weights,
(input + prototype) · time. G.pt (arXiv:2209.12892) has a linear layer of its own for every token of
the current and of the noisy weights, and one for every token of its output, called one after the
other, and attends over all of them. All embed the condition again at every step, and sample one
network at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BITS = 10  # of the condition


def frequencies(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of numbers of steps, `[B]` → `[B, width]`."""
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angle = 1000 * time[:, None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ConvAutoencoder(nn.Module):
    """Flat weights ⇄ one latent, by strided convolutions with batch norm.

    Args:
        numel: Numbers of a network, a multiple of 32.
        latent: Width of the latent.
        channels: Channels of the five layers.
    """

    def __init__(self, numel: int, latent: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.last = (channels[-1], numel // 2 ** len(channels))
        layers: list[nn.Module] = []
        for a, b in pairwise([1, *channels]):
            layers += [nn.Conv1d(a, b, 5, 2, 2), nn.BatchNorm1d(b), nn.LeakyReLU()]
        self.down = nn.Sequential(*layers)
        layers = []
        for b, a in pairwise(reversed([1, *channels])):
            layers += [nn.ConvTranspose1d(b, a, 5, 2, 2, 1), nn.BatchNorm1d(a), nn.LeakyReLU()]
        self.up = nn.Sequential(*layers[:-2])
        features = self.last[0] * self.last[1]
        self.enter, self.leave = nn.Linear(features, latent), nn.Linear(latent, features)

    def encode(self, flat: Tensor) -> Tensor:
        """`[B, numel]` → `[B, latent]`."""
        out: Tensor = self.enter(self.down(flat[:, None]).flatten(1))
        return out

    def decode(self, latent: Tensor) -> Tensor:
        """`[B, latent]` → `[B, numel]`."""
        out: Tensor = self.up(self.leave(latent).unflatten(1, self.last))[:, 0]
        return out

    def loss(self, flat: Tensor) -> Tensor:
        """Squared error, with noise on input and latent."""
        latent = self.encode(flat + 1e-3 * torch.randn_like(flat))
        return F.mse_loss(self.decode(latent + 0.1 * torch.randn_like(latent)), flat)


class ConvNet(nn.Module):
    """A convolutional network at full length: (x + condition) · time in front of every layer.

    Args:
        length: Length of the signal.
        channels: Channels of the hidden layers.
        kernel: Width of the filters.
    """

    def __init__(self, length: int, channels: Sequence[int], kernel: int = 7) -> None:
        super().__init__()
        widths = [1, *channels, 1]
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(widths)
        )
        self.times = nn.ModuleList(nn.Linear(64, a) for a in widths[:-1])

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """`[B, length]`, `[B]` and `[B, length]` → `[B, length]`."""
        embedded = frequencies(time, 64)
        h = x[:, None]
        for i, (layer, scale) in enumerate(zip(self.layers, self.times, strict=True)):
            h = layer((h + condition[:, None]) * (1 + scale(embedded))[..., None])
            h = F.leaky_relu(h) if i < len(self.layers) - 1 else h
        return h[:, 0]


class PDiff(nn.Module):
    """Autoencoder and denoiser of a latent.

    Args:
        numel: Numbers of a network.
        latent: Width of the latent.
        codec: Channels of the autoencoder.
        channels: Channels of the denoiser.
    """

    def __init__(
        self, numel: int, latent: int, codec: Sequence[int], channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.codec = ConvAutoencoder(numel, latent, codec)
        self.condition = nn.Linear(BITS, latent)
        self.denoiser = ConvNet(latent, channels)
        self.shape = (latent,)

    def forward(self, x: Tensor, time: Tensor, bits: Tensor) -> Tensor:
        """Predicts noise in `[B, latent]`."""
        out: Tensor = self.denoiser(x, time, self.condition(bits))
        return out

    def latents(self, flat: Tensor) -> Tensor:
        """What is denoised."""
        with torch.no_grad():
            return self.codec.encode(flat)

    def weights(self, latent: Tensor) -> Tensor:
        """Flat weights of what was denoised."""
        return self.codec.decode(latent)


class RPG(nn.Module):
    """Prototypes by an LSTM over positions and condition, tokens by a convolutional network.

    Args:
        tokens: Number of tokens.
        dim: Width of a token.
        width: Width of the LSTM.
        channels: Channels of the denoiser.
    """

    def __init__(self, tokens: int, dim: int, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.place = nn.Parameter(torch.randn(tokens, width))
        self.condition = nn.Linear(BITS, width)
        self.recurrence = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.prototype = nn.Linear(width, dim)
        self.denoiser = ConvNet(dim, channels)

    def forward(self, x: Tensor, time: Tensor, bits: Tensor) -> Tensor:
        """Predicts noise in `[B, T, D]`."""
        given = self.place + self.condition(bits)[:, None]
        prototypes = self.prototype(self.recurrence(given)[0])
        repeated = time.repeat_interleave(self.shape[0])
        out = self.denoiser(x.flatten(0, 1), repeated, prototypes.flatten(0, 1))
        return out.view_as(x)

    def latents(self, flat: Tensor) -> Tensor:
        """Tokens `[B, T, D]`."""
        return flat.unflatten(1, self.shape)

    def weights(self, latent: Tensor) -> Tensor:
        """Flat weights of tokens."""
        return latent.flatten(1)


class GPT(nn.Module):
    """A transformer with a linear layer for every token, one after the other.

    Args:
        tokens: Number of tokens T.
        dim: Width of a token.
        width: Width of the transformer.
        depth: Number of blocks.
        heads: Attention heads.
    """

    def __init__(self, tokens: int, dim: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.shape, self.heads = (tokens, dim), heads
        self.enter = nn.ModuleList(nn.Linear(dim, width) for _ in range(2 * tokens))
        self.leave = nn.ModuleList(nn.Linear(width, dim) for _ in range(tokens))
        self.scalars = nn.ModuleList(nn.Linear(256, width) for _ in range(3))
        self.place = nn.Parameter(0.02 * torch.randn(2 * tokens + 3, width))
        self.blocks = nn.ModuleList(_Attention(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, time: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        """Predicts data of noisy tokens `[B, T, D]`, given current ones and `[B, 2]` metrics."""
        current, metric = given
        tokens = [
            layer(frequencies(v, 256))
            for layer, v in zip(self.scalars, (time, metric[:, 0], metric[:, 1]), strict=True)
        ]
        both = torch.cat([current, x], dim=1)
        for i, layer in enumerate(self.enter):
            tokens.append(layer(both[:, i]))
        h = torch.stack(tokens, 1) + self.place
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)[:, -self.shape[0] :]
        out = [layer(h[:, i]) for i, layer in enumerate(self.leave)]
        return current + torch.stack(out, 1)

    def latents(self, flat: Tensor) -> Tensor:
        """Tokens `[B, T, D]`."""
        return flat.unflatten(1, self.shape)

    def weights(self, latent: Tensor) -> Tensor:
        """Flat weights of tokens."""
        return latent.flatten(1)


class _Attention(nn.Module):
    """Attention with its weights written out, and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, width]` → `[B, T, width]`."""
        h = self.norm(x)
        q, k, v = (
            layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class Ancestral:
    """DDPM with a thousand linear levels, one network at a time (Ho et al., arXiv:2006.11239).

    Args:
        data: Whether the model predicts data; else it predicts noise.
    """

    def __init__(self, data: bool) -> None:
        self.data = data
        self.beta = torch.linspace(1e-4, 0.02, 1000)
        self.signal = (1 - self.beta).cumprod(0)

    def loss(self, model: nn.Module, latents: Tensor, given: object) -> Tensor:
        """Squared error at random levels."""
        level = torch.randint(1000, (len(latents),))
        signal = self.signal[level].view(-1, *[1] * (latents.dim() - 1))
        noise = torch.randn_like(latents)
        x = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        out = model(x, level / 1000, given)
        return F.mse_loss(out, latents if self.data else noise)

    @torch.no_grad()
    def sample(self, model: nn.Module, shape: tuple[int, ...], given: object, steps: int) -> Tensor:
        """One network: the last `steps` of the thousand levels."""
        x = torch.randn(1, *shape)
        for level in reversed(range(steps)):
            signal, beta = self.signal[level], self.beta[level]
            before = self.signal[level - 1] if level else torch.tensor(1.0)
            out = model(x, torch.full((1,), level / 1000), given)
            data = out if self.data else (x - (1 - signal).sqrt() * out) / signal.sqrt()
            mean = (before.sqrt() * beta * data + (1 - beta).sqrt() * (1 - before) * x) / (
                1 - signal
            )
            spread = (beta * (1 - before) / (1 - signal)).sqrt()
            x = mean + spread * torch.randn_like(x) if level else mean
        return x
