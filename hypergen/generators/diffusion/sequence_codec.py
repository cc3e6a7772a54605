"""SANE's codec: an autoencoder of sequences of weight tokens."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.latents import drawn, noisy, nt_xent
from hypergen.generators.diffusion.standardize import Scope, Standardize
from hypergen.generators.diffusion.token_autoencoder import TokenAutoencoder
from hypergen.specs import TokenLayout, WeightSpec


class SequenceCodec(WeightCodec):
    """Weights as a sequence of tokens, each of which becomes one latent vector and comes back.

    Schürholt, Mahoney and Borth, "Towards Scalable and Versatile Weight Space Learning" (SANE),
    ICML 2024, arXiv:2406.09997. A token is a row of a slot (an output channel), or a piece of it,
    with its layer, slot and number as a position. Transformer encoder and decoder attend to the
    tokens of one network, never to other networks; padding, of tokens and inside of tokens, does
    not count. Everything is shared by all tokens, so that the number of parameters does not grow
    with the network, and networks of several architectures fit into one batch (`encode_tokens`).

    The loss is (1 - contrast) · masked squared error + contrast · NT-Xent between two views of
    each network: its weights under two draws of noise or, with `view`, two exact permutations of
    them. SANE puts 0.05 on the contrast; here it is off unless asked for.

    What differs: biases are tokens of their own; latents get noise in units of their spread, and
    positions are not bound to the architecture.

    Args:
        spec: The weights.
        size: Width of a token; the widest row, at most 256, when None.
        by: Where tokens are cut, see `TokenLayout`.
        latent: Width of a latent vector, D.
        dim: Width of the transformers.
        depth: Blocks of encoder and of decoder.
        heads: Attention heads.
        window: Tokens that attend to each other; all of a network when None. In training, one
            window of each network is drawn at random.
        halo: Tokens at both ends of a window that neighbouring windows compute.
        normalize: What shares mean and spread, see `Standardize`.
        input_noise: Standard deviation of the noise on standardised weights in training.
        latent_noise: The same for latents, in units of their spread.
        kl_weight: Factor of the divergence of a variational autoencoder from a standard normal
            distribution, per latent number; 0 for a plain autoencoder.
        contrast: Share of the contrastive term in the loss, in [0, 1).
        temperature: Divides the cosines of the contrastive term.
        projection: Width of the vectors that are contrasted.

    Raises:
        SpecError: A setting is out of range.
    """

    trained: ClassVar[bool] = True

    def __init__(
        self,
        spec: WeightSpec,
        size: int | None = None,
        by: Literal["flat", "slot", "channel"] = "channel",
        latent: int = 32,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        window: int | None = None,
        halo: int = 0,
        normalize: Scope = "slot",
        input_noise: float = 0.01,
        latent_noise: float = 0.05,
        kl_weight: float = 0.0,
        contrast: float = 0.0,
        temperature: float = 0.1,
        projection: int = 64,
    ) -> None:
        if size is None:
            size = min(256, max(slot.numel // _channels(slot.shape) for slot in spec))
        options = {
            "size": size,
            "by": by,
            "latent": latent,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "window": window,
            "halo": halo,
            "normalize": normalize,
            "input_noise": input_noise,
            "latent_noise": latent_noise,
            "kl_weight": kl_weight,
            "contrast": contrast,
            "temperature": temperature,
            "projection": projection,
        }
        super().__init__(spec, options)
        if min(input_noise, latent_noise, kl_weight) < 0 or not 0 <= contrast < 1:
            raise SpecError(
                "input_noise, latent_noise and kl_weight must not be negative, contrast in [0, 1)"
            )
        if temperature <= 0 or projection < 1:
            raise SpecError("temperature and projection must be positive")
        self.layout = TokenLayout(spec, size, by)
        self.latent, self.window = latent, window
        self.input_noise, self.latent_noise, self.kl_weight = input_noise, latent_noise, kl_weight
        self.contrast, self.temperature = contrast, temperature
        self.normal = Standardize(spec, normalize)
        self.register_buffer("entries", self.layout.mask, persistent=False)
        self.register_buffer("places", self.layout.positions, persistent=False)
        # What follows from the layout, kept where the weights are.
        order = torch.empty(spec.numel, dtype=torch.long)
        order[self.layout.index[self.layout.mask]] = self.layout.mask.flatten().nonzero().flatten()
        self.register_buffer("index", self.layout.index, persistent=False)
        self.register_buffer("order", order, persistent=False)
        self.index: Tensor
        self.order: Tensor
        self.entries: Tensor
        self.places: Tensor
        outputs = 2 * latent if kl_weight else latent
        self.read = nn.Linear(size, dim)
        self.core = TokenAutoencoder(dim, depth, heads, latent, outputs, window, halo)
        self.write = nn.Linear(dim, size)
        self.projector: nn.Sequential | None = None
        if contrast:
            self.projector = nn.Sequential(
                nn.Linear(latent, dim), nn.GELU(), nn.Linear(dim, projection)
            )

    @property
    def tokens(self) -> int:
        """Number T of tokens."""
        return len(self.layout)

    @property
    def dim(self) -> int:
        """Width D of a latent vector."""
        return self.latent

    @property
    def positions(self) -> Tensor:
        """`[T, 3]` long: layer (0 without one, else 1 + layer), slot, number of the token in it."""
        return self.layout.positions

    def describe(self, token: int) -> str:
        """Names the slot of a token."""
        _, slot, number = self.layout.positions[token].tolist()
        return f"token {number} of slot {self.spec.slots[slot].name!r}"

    def fit_statistics(self, flat: Tensor) -> None:
        """Takes mean and spread of the weights."""
        self.normal.fit(flat)

    # -- both ways -----------------------------------------------------------------------------

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → latents `[B, T, D]`, the mean where they have a distribution."""
        self.check(flat)
        tokens = self._cut(flat)
        return self.encode_tokens(tokens, self._entries(len(flat)), self.places)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, T, D]` → flat `[B, numel]`."""
        self.check_latents(latents)
        tokens = self.decode_tokens(latents, self._entries(len(latents)), self.places)
        return self.normal.decode(tokens.flatten(1)[:, self.order])

    def encode_tokens(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Encodes tokens of any architectures, such as those of several in one batch.

        Args:
            tokens: `[B, T, size]`, standardised; what stands under the mask is ignored.
            mask: `[B, T, size]`, False for padding inside of tokens and behind the last one.
            positions: `[B, T, 3]`, or `[T, 3]` for all: layer, slot and number.

        Returns:
            `[B, T, D]`, zero for tokens that are all padding.
        """
        output = self._encode(tokens, mask, positions)[..., : self.latent]
        return output.masked_fill(~mask.any(-1)[..., None], 0)

    def decode_tokens(self, latents: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Decodes what `encode_tokens` made: `[B, T, size]`, zero under the mask."""
        return self._decode(latents, mask, positions)

    # -- training ------------------------------------------------------------------------------

    def loss(self, flat: Tensor, view: Tensor | None = None) -> Tensor:
        """Scalar training loss.

        Args:
            flat: `[B, numel]`.
            view: `[B, numel]`, the same networks with their hidden units in another order
                (`hypergen.zoo.canonical.augment`): the other view of the contrastive term, which
                is rebuilt too. Noise alone makes two views when not given.
        """
        self.check(flat)
        if view is not None:
            self.check(view)
        elif self.contrast:
            view = flat
        views = [flat] if view is None else [flat, view]
        tokens, mask, positions = self._crop(self._cut(torch.cat(views)), len(views))
        noise = self.input_noise * torch.randn_like(tokens)
        output = self._encode(tokens + noise, mask, positions)
        latents, mean, extra = drawn(output, self.kl_weight)
        rebuilt = self._decode(noisy(latents, self.latent_noise), mask, positions)
        error = ((rebuilt - tokens) * mask).square().sum() / mask.sum()
        if self.projector is not None:
            first, second = self.projector(mean.mean(1)).chunk(2)
            apart = nt_xent(first, second, self.temperature)
            error = (1 - self.contrast) * error + self.contrast * apart
        return error + extra

    def _crop(self, tokens: Tensor, views: int) -> tuple[Tensor, Tensor, Tensor]:
        """One window of each network, the same in its views; tokens, mask and positions."""
        count = len(tokens)
        if self.window is None or self.window >= self.tokens:
            return tokens, self._entries(count), self.places
        last = self.tokens - self.window
        start = torch.randint(last + 1, (count // views, 1), device=tokens.device)
        index = (start + torch.arange(self.window, device=tokens.device)).repeat(views, 1)
        row = torch.arange(count, device=tokens.device)[:, None]
        return tokens[row, index], self.entries[index], self.places[index]

    # -- pieces --------------------------------------------------------------------------------

    def _encode(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return self.core.encode(self.read(tokens.masked_fill(~mask, 0)), mask.any(-1), positions)

    def _decode(self, latents: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return self.write(self.core.decode(latents, mask.any(-1), positions)).masked_fill(~mask, 0)

    def _cut(self, flat: Tensor) -> Tensor:
        """Standardised tokens `[B, T, size]`, zero under the mask: `TokenLayout.encode`."""
        tokens = self.normal.encode(flat)[:, self.index.flatten()].unflatten(1, self.index.shape)
        return tokens.masked_fill(~self.entries, 0)

    def _entries(self, rows: int) -> Tensor:
        return self.entries.expand(rows, -1, -1)


def _channels(shape: tuple[int, ...]) -> int:
    """Rows that a slot is cut into by channel."""
    return shape[0] if len(shape) > 1 else 1
