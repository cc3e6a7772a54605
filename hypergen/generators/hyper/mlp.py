"""The plain hypernetwork: pooled condition → MLP → all numbers."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.hyper.heads import FlatHead
from hypergen.generators.hyper.inits import HeadInit
from hypergen.generators.hyper.mip import MIPEncoding
from hypergen.specs import Weights, WeightSpec


class ResidualBlock(nn.Module):
    """x + W₂ · GELU(W₁ · norm(x))."""

    def __init__(self, dim: int, dropout: float = 0.0, expand: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, expand * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expand * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim]` → `[..., dim]`."""
        out: Tensor = x + self.body(x)
        return out


class GatedBlock(nn.Module):
    """x + W₃ · (GELU(W₁ · norm(x)) ⊙ W₂ · norm(x)).

    Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202. Products let one part of a
    condition turn another one round ("no" before what is to be accepted), whatever either is.
    """

    def __init__(self, dim: int, dropout: float = 0.0, expand: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * expand * dim)
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(expand * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., dim]` → `[..., dim]`."""
        gate, value = self.up(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(self.dropout(nn.functional.gelu(gate) * value))
        return out


class MLPGenerator(Generator):
    """Residual MLP on the pooled condition, one matrix product for all slots.

    Ha, Dai and Le, "HyperNetworks", ICLR 2017, arXiv:1609.09106, with MIP's input encoding and
    residual start (arXiv:2304.07645) as options.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition.
        hidden: Width of the trunk.
        depth: Number of residual blocks.
        dropout: Dropout inside the blocks.
        input_encoding: `"norm"` (layer norm), `"none"`, `"mip"` (inputs in [0, 1]) or
            `"mip_squash"` (unbounded inputs).
        init: Start of the generated weights, see `hypergen.generators.hyper.inits`.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        hidden: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        input_encoding: Literal["norm", "none", "mip", "mip_squash"] = "norm",
        init: HeadInit = "theta0",
    ) -> None:
        config = {
            "hidden": hidden,
            "depth": depth,
            "dropout": dropout,
            "input_encoding": input_encoding,
            "init": init,
        }
        super().__init__(spec, encoder, config)
        encodings: dict[str, tuple[nn.Module, int]] = {
            "norm": (nn.LayerNorm(encoder.dim), encoder.dim),
            "none": (nn.Identity(), encoder.dim),
            "mip": (MIPEncoding(), 2 * encoder.dim),
            "mip_squash": (MIPEncoding(squash=True), 2 * encoder.dim),
        }
        if input_encoding not in encodings:
            raise SpecError(
                f"input_encoding {input_encoding!r} is not one of {', '.join(encodings)}"
            )
        encoding, width = encodings[input_encoding]
        self.trunk = nn.Sequential(
            encoding,
            nn.Linear(width, hidden),
            *(ResidualBlock(hidden, dropout) for _ in range(depth)),
            nn.LayerNorm(hidden, elementwise_affine=False),
        )
        self.head = FlatHead(spec, hidden, init)

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        weights: Weights = self.head(self.trunk(condition.pooled))
        return weights
