"""RPG: a sequence model makes a prototype of every token, a small network denoises each."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding
from hypergen.generators.diffusion.recurrence import Backend, make_recurrence
from hypergen.generators.diffusion.token_denoiser import TokenConv, TokenMLP, position_codes

_NETWORKS = {"mlp": TokenMLP, "conv": TokenConv}


class RecurrentDenoiser(Denoiser):
    """Prototypes from a recurrence over position codes and the condition; tokens one by one.

    Wang et al., "Recurrent Diffusion for Large-Scale Parameter Generation", 2025,
    arXiv:2501.11587. The costly part reads positions and condition alone, so that a sampling runs
    it once; every step is a small network on each token, with projections that all tokens share.

    The condition is read at every position (by attention of the position to its tokens, and pooled)
    and the recurrence runs in both directions. There is no state that stands for a training
    checkpoint: what differs between samples of one condition is their noise. As a consequence the
    tokens of a sample know of each other by the condition only. Where several networks answer one
    condition (each from a start of its own), `reads_noise=True` lets the recurrence see all noisy
    tokens, at the price of running it at every step.

    Args:
        tokens: See `Denoiser`.
        dim: See `Denoiser`.
        positions: See `Denoiser`.
        mask: See `Denoiser`.
        condition_dim: See `Denoiser`.
        backend: `"mamba"` (a selective scan), `"lstm"` or `"transformer"`.
        width: Width of prototypes.
        layers: Layers of the recurrence.
        heads: Heads of the recurrence, and of the attention to the condition.
        network: What denoises a token, `"mlp"` or `"conv"` (the paper's).
        hidden: Its width, or its channels.
        depth: Its blocks, or layers.
        reads_noise: Whether the recurrence sees the noisy tokens too.
        subset: Tokens of which a training step takes a random part, this many; all when not given.

    Raises:
        SpecError: An option is unknown, or does not fit the others.
    """

    def __init__(
        self,
        tokens: int,
        dim: int,
        positions: Tensor,
        mask: Tensor,
        condition_dim: int,
        backend: Backend = "mamba",
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        network: Literal["mlp", "conv"] = "mlp",
        hidden: int = 256,
        depth: int = 3,
        reads_noise: bool = False,
        subset: int | None = None,
    ) -> None:
        options = {
            "backend": backend,
            "width": width,
            "layers": layers,
            "heads": heads,
            "network": network,
            "hidden": hidden,
            "depth": depth,
            "reads_noise": reads_noise,
            "subset": subset,
        }
        super().__init__(tokens, dim, positions, mask, condition_dim, options)
        if network not in _NETWORKS:
            raise SpecError(f"network is 'mlp' or 'conv', not {network!r}")
        if subset is not None and (reads_noise or subset < 1):
            raise SpecError(
                "subset must be at least 1, and not with reads_noise: the recurrence would see "
                "only some of the tokens"
            )
        self.heads, self.reads_noise, self.subset = heads, reads_noise, subset
        codes = position_codes(positions)
        self.register_buffer("codes", codes, persistent=False)
        self.codes: Tensor
        self.place = nn.Linear(codes.shape[1], width)
        if condition_dim:
            self.pooled = nn.Linear(condition_dim, width)
            self.query = nn.Linear(width, width, bias=False)
            self.key_value = nn.Linear(condition_dim, 2 * width, bias=False)
            self.attended = nn.Linear(width, width)
        self.time = TimeEmbedding(width)
        if reads_noise:
            self.noisy = nn.Linear(dim, width)
            self.moment = nn.Linear(width, width)
        self.recurrence = make_recurrence(backend, width, layers, heads)
        self.norm = nn.LayerNorm(width)
        self.network = _NETWORKS[network](dim, width, hidden, depth)

    # -- of the condition, once ----------------------------------------------------------------

    def inputs(self, condition: Condition | None) -> Tensor:
        """What the recurrence reads at every position: `[B, T, width]` (`[1, …]` without one)."""
        place: Tensor = self.place(self.codes)[None]
        if condition is None or not self.condition_dim:
            return place
        query = self.query(place).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (
            self.key_value(condition.tokens)
            .unflatten(-1, (2, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        seen = F.scaled_dot_product_attention(
            query.expand(len(condition), -1, -1, -1),
            key,
            value,
            attn_mask=condition.mask[:, None, None],
        )
        out: Tensor = (
            place
            + self.pooled(condition.pooled)[:, None]
            + self.attended(seen.transpose(1, 2).flatten(2))
        )
        return out

    def prototypes(self, condition: Condition | None) -> Tensor:
        """`[B, T, width]`, one vector for each token, of the condition alone."""
        out: Tensor = self.norm(self.recurrence(self.inputs(condition)))
        return out

    def read(self, condition: Condition | None) -> Any:
        """The recurrence, and what it adds to each block; its inputs alone with `reads_noise`."""
        if self.reads_noise:
            return self.inputs(condition)
        return self.network.inject(self.prototypes(condition))

    # -- at every step -------------------------------------------------------------------------

    def step(self, x: Tensor, time: Tensor, memory: Any) -> Tensor:
        """Denoises every token on its own."""
        moment = self.time(time)
        if self.reads_noise:
            given = memory + self.noisy(x) + self.moment(F.silu(moment))[:, None]
            memory = self.network.inject(self.norm(self.recurrence(given)))
        out: Tensor = self.network(x, moment, tuple(m.expand(len(x), -1, -1) for m in memory))
        return out

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        condition: Condition | None,
        subset: Tensor | None = None,
    ) -> Tensor:
        """Predicts from noisy tokens.

        Args:
            x: `[B, T, D]`; with `subset` `[B, S, D]`, those tokens alone.
            time: `[B]` in [0, 1].
            condition: `[B]` conditions.
            subset: `[S]`, numbers of tokens. All prototypes are made, some tokens are denoised.

        Returns:
            Of the shape of `x`.
        """
        if subset is None:
            return self.step(x, time, self.read(condition))
        if self.reads_noise:
            raise SpecError("a recurrence that reads all noisy tokens takes no subset of them")
        chosen = self.norm(self.recurrence(self.inputs(condition)))[:, subset]
        return self.step(x, time, self.network.inject(chosen))

    def draw(self) -> Tensor | None:
        """`[S]`, sorted: the random tokens of a training step, or None for all of them."""
        if self.subset is None or self.subset >= self.tokens:
            return None
        order = torch.randperm(self.tokens, device=self.positions.device)
        return order[: self.subset].sort().values
