"""An autoencoder of LoRA updates: what it rebuilds is ΔW, whatever the factors."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.latents import drawn, noisy
from hypergen.generators.diffusion.token_autoencoder import TokenAutoencoder
from hypergen.generators.objectives import DeltaReconstruction
from hypergen.specs import LoRASpec, Weights, WeightSpec
from hypergen.specs.merging import balance, pairs_by_group


class LoRACodec(WeightCodec):
    """A transformer autoencoder whose tokens are the rank-one components of LoRA updates.

    B·A stays the same under (B M⁻¹, M A), so the factors of equal updates can be far apart. Here
    each pair is first brought into one gauge, the balanced singular value decomposition of its
    update (see `hypergen.zoo.canonicalize_lora`): a token is a row of A and the column of B beside
    it, sorted by singular value. The loss is the relative squared error of ΔW, by Gram matrices
    (`DeltaReconstruction`), so that what is learnt does not depend on the gauge either; a share of
    it is the error of the factors themselves, which gives a gradient where both are still small.

    Modules of one shape share the first and the last layer, everything else is shared by all.

    Ours, of known parts: latent diffusion of LoRAs as in Jin et al., "Conditional LoRA Parameter
    Generation" (COND P-DIFF), 2024, arXiv:2408.01415, whose autoencoder rebuilds the factors.

    Cost: the decomposition of every pair of a batch, O((in + out) r²), and attention over all
    components within a window.

    Example: latent diffusion of the LoRAs of a model, `[N, numel]` in `flat`. Training goes through
    a `DiffusionGenerator` (`codec={"name": "LoRACodec", "latent": 32}`), or by hand:

        spec = LoRASpec(model, "all-linear", r=8)
        codec = LoRACodec(spec, latent=32)
        codec.fit(flat)
        optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3)
        for _ in range(1000):
            optimizer.zero_grad()
            codec.loss(flat).backward()
            optimizer.step()
        latents = codec.encode(flat)  # [N, modules · 8, 32]
        loras = spec.from_flat(codec.decode(latents))

    Args:
        spec: The LoRAs.
        latent: Width of a component's latent vector, D.
        dim: Width of the transformers.
        depth: Blocks of encoder and of decoder.
        heads: Attention heads.
        window: Components that attend to each other; all when None.
        halo: Components at both ends of a window that neighbouring windows compute.
        factor_weight: Share of the factors' own squared error, in [0, 1).
        input_noise: Standard deviation of the noise on standardised factors in training.
        latent_noise: The same for latents, in units of their spread.
        kl_weight: Factor of the divergence of a variational autoencoder from a standard normal
            distribution, per latent number; 0 for a plain autoencoder.

    Raises:
        SpecError: The weights are no LoRAs, or a setting is out of range.
    """

    trained: ClassVar[bool] = True

    def __init__(
        self,
        spec: WeightSpec,
        latent: int = 32,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        window: int | None = None,
        halo: int = 0,
        factor_weight: float = 0.1,
        input_noise: float = 0.01,
        latent_noise: float = 0.05,
        kl_weight: float = 0.0,
    ) -> None:
        options = {
            "latent": latent,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "window": window,
            "halo": halo,
            "factor_weight": factor_weight,
            "input_noise": input_noise,
            "latent_noise": latent_noise,
            "kl_weight": kl_weight,
        }
        super().__init__(spec, options)
        if not isinstance(spec, LoRASpec):
            raise SpecError(f"LoRACodec needs a LoRASpec, not {type(spec).__name__}")
        if min(input_noise, latent_noise, kl_weight) < 0 or not 0 <= factor_weight < 1:
            raise SpecError(
                "input_noise, latent_noise and kl_weight must not be negative, factor_weight in "
                "[0, 1)"
            )
        self.latent, self.factor_weight = latent, factor_weight
        self.input_noise, self.latent_noise, self.kl_weight = input_noise, latent_noise, kl_weight
        self.delta = DeltaReconstruction(spec)
        self.kinds = nn.ModuleList(
            _Kind(spec, of, rows, dim) for of, rows in pairs_by_group(spec).items()
        )
        places = torch.cat([kind.places for kind in self._kinds])
        # Components of a module, and modules that follow each other, lie in one window.
        order = (places[:, 1] * (int(places[:, 2].max()) + 1) + places[:, 2]).argsort()
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("places", places[order], persistent=False)
        self.order: Tensor
        self.back: Tensor
        self.places: Tensor
        outputs = 2 * latent if kl_weight else latent
        self.core = TokenAutoencoder(dim, depth, heads, latent, outputs, window, halo)

    @property
    def _kinds(self) -> list[_Kind]:
        return [kind for kind in self.kinds if isinstance(kind, _Kind)]

    @property
    def tokens(self) -> int:
        """Number T of rank-one components."""
        return len(self.order)

    @property
    def dim(self) -> int:
        """Width D of a latent vector."""
        return self.latent

    @property
    def positions(self) -> Tensor:
        """`[T, 3]` long: layer (0 without one, else 1 + layer), module, number of the component."""
        return self.places.cpu()

    def describe(self, token: int) -> str:
        """Names the module of a component."""
        assert isinstance(self.spec, LoRASpec)
        _, module, number = self.places[token].tolist()
        return f"component {number} of module {self.spec.modules[module]!r}"

    def fit_statistics(self, flat: Tensor) -> None:
        """Takes mean and spread of each component."""
        for kind, parts in zip(self._kinds, self._components(flat), strict=True):
            kind.fit(parts)

    # -- both ways -----------------------------------------------------------------------------

    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → latents `[B, T, D]`, the mean where they have a distribution."""
        self.check(flat)
        return self._encode(self._normal(flat))[..., : self.latent]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, T, D]` → flat `[B, numel]`, in nearly the gauge of `encode`."""
        self.check_latents(latents)
        return self._weights(self._decode(latents)).flat()

    def loss(self, flat: Tensor) -> Tensor:
        """(1 - factor_weight) · relative error of ΔW + factor_weight · error of the factors.

        Args:
            flat: `[B, numel]`.
        """
        self.check(flat)
        normal = self._normal(flat)
        output = self._encode([x + self.input_noise * torch.randn_like(x) for x in normal])
        latents, _, extra = drawn(output, self.kl_weight)
        rebuilt = self._decode(noisy(latents, self.latent_noise))
        error: Tensor = self.delta(self._weights(rebuilt), {"weights": flat})
        pairs = list(zip(rebuilt, normal, strict=True))
        count = sum(x.numel() for x in normal)
        factors = torch.stack([(a - b).square().sum() for a, b in pairs]).sum() / count
        return (1 - self.factor_weight) * error + self.factor_weight * factors + extra

    # -- pieces --------------------------------------------------------------------------------

    @torch.no_grad()
    def _components(self, flat: Tensor) -> list[Tensor]:
        """Canonical components of each kind, `[B, tokens of the kind, in + out]`."""
        groups = self.spec.from_flat(flat).groups
        return [kind.components(groups) for kind in self._kinds]

    def _normal(self, flat: Tensor) -> list[Tensor]:
        parts = self._components(flat)
        return [(x - k.mean) / k.std for k, x in zip(self._kinds, parts, strict=True)]

    def _encode(self, normal: list[Tensor]) -> Tensor:
        x = torch.cat([k.read(part) for k, part in zip(self._kinds, normal, strict=True)], dim=1)
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return self.core.encode(x[:, self.order], mask, self.places)

    def _decode(self, latents: Tensor) -> list[Tensor]:
        mask = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        hidden = self.core.decode(latents, mask, self.places)[:, self.back]
        parts = hidden.split([len(kind.places) for kind in self._kinds], dim=1)
        return [k.write(part) for k, part in zip(self._kinds, parts, strict=True)]

    def _weights(self, normal: list[Tensor]) -> Weights:
        batch = len(normal[0])
        groups = [normal[0].new_empty(batch, len(g), *g.shape) for g in self.spec.groups]
        for kind, part in zip(self._kinds, normal, strict=True):
            a, b = kind.factors(kind.mean + kind.std * part)
            groups[kind.of_a][:, kind.at_a], groups[kind.of_b][:, kind.at_b] = a, b
        return Weights(self.spec, groups)


class _Kind(nn.Module):
    """Modules whose factors lie in the same two groups of the spec: one shape, one rank.

    Args:
        spec: The LoRAs.
        of: Numbers of the group of A and of that of B.
        rows: For each module, its positions in the two groups and its number.
        dim: Width of the transformers.
    """

    def __init__(
        self, spec: LoRASpec, of: tuple[int, int], rows: list[tuple[int, int, int]], dim: int
    ) -> None:
        super().__init__()
        self.of_a, self.of_b = of
        self.rank, self.inputs = spec.groups[self.of_a].shape
        width = self.inputs + spec.groups[self.of_b].shape[0]
        table = torch.tensor(rows)
        layers = [spec[spec.pair_names(spec.modules[m])[0]].layer for m in table[:, 2].tolist()]
        layer = torch.tensor([0 if n is None else 1 + n for n in layers])
        number = torch.arange(self.rank).repeat(len(rows))
        places = torch.stack(
            [x.repeat_interleave(self.rank) for x in (layer, table[:, 2])] + [number], dim=1
        )
        for name, value in (("at_a", table[:, 0]), ("at_b", table[:, 1]), ("places", places)):
            self.register_buffer(name, value, persistent=False)
        # Until it is fitted: factors of the size of the smaller one's steps.
        scales = [min(spec[n].scale for n in spec.pair_names(spec.modules[m])) for _, _, m in rows]
        std = torch.tensor(scales).repeat_interleave(self.rank)[:, None]
        self.register_buffer("mean", torch.zeros(len(places), width))
        self.register_buffer("std", std)
        self.at_a: Tensor
        self.at_b: Tensor
        self.places: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.read = nn.Linear(width, dim)
        self.write = nn.Linear(dim, width)

    def components(self, groups: tuple[Tensor, ...]) -> Tensor:
        """Groups of a spec → `[B, modules · r, in + out]`, in canonical gauge."""
        a, b = balance(groups[self.of_a][:, self.at_a], groups[self.of_b][:, self.at_b])
        return torch.cat([a, b.mT], dim=-1).flatten(1, 2)

    def factors(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse: A `[B, modules, r, in]` and B `[B, modules, out, r]`."""
        split = components.unflatten(1, (-1, self.rank))
        return split[..., : self.inputs], split[..., self.inputs :].mT

    def fit(self, components: Tensor) -> None:
        """Takes the mean of every number, and one spread for each component."""
        values = components.double()
        mean = values.mean(0)
        std = (values - mean).square().mean((0, 2)).sqrt()
        self.mean.copy_(mean)
        # Components beyond the rank of all updates are zero, and stay so.
        floor = 1e-3 * std.max() if bool((std > 0).any()) else std.new_ones(())
        self.std.copy_(std.clamp(min=float(floor))[:, None])
