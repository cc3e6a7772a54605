"""The frozen network's own weights as a condition: one token for each module."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence, Sized
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, did_you_mean
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions.base import Condition, ConditionEncoder

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class BaseWeightsEncoder(ConditionEncoder):
    """Fixed sketches of a frozen network's matrices, one token a module, no model needed later.

    That a generator should see the weights that its update is added to is the idea of
    "Prompt2Effect", 2026, arXiv:2606.13971, which tokenises every row and column of W and trains
    the reader of them. The sketch here is ours: it has no parameters, is made once, and is kept as
    a buffer of the generator. A token of W `[out, in]` holds, with Gaussian P `[out, k]` and Q
    `[in, k]` drawn by the size of their side (modules that read one stream are seen in one basis),

    - PᵀWQ / ‖W‖, `k · k` numbers. Unlike singular vectors these are linear in W / ‖W‖: no
      arbitrary sign, no jump where two singular values meet;
    - the singular values of WQ / ‖W‖, `k` numbers: how fast the spectrum falls;
    - five quantiles each of the logarithms of the norms of rows and of columns;
    - the logarithms of the size of an entry, of `out` and of `in`.

    All have a size of about one. The cost is 2 · out · in · k operations a module, once, and one
    reading of the weights for the fingerprint; memory is that of one module in float32.

    A constant part of a condition: `FusedEncoder` adds it to whatever else is given. See
    `WithBaseWeights` for generators that read the tokens of each module themselves.

    Args:
        modules: Paths of the modules.
        sketch: Number k of directions of each side.
        fingerprint: Identifies the weights; `from_model` fills it in.
    """

    input_name: ClassVar[str] = "base"
    constant: ClassVar[bool] = True

    def __init__(self, modules: Sequence[str], sketch: int = 8, fingerprint: str = "") -> None:
        super().__init__()
        if not modules or sketch < 1:
            raise ConditionError("BaseWeightsEncoder needs at least one module and sketch >= 1")
        self.modules_read, self.sketch = tuple(modules), sketch
        self._fingerprint = fingerprint
        # Part of the state: a loaded generator reads them from its own file.
        self.register_buffer("tokens", torch.zeros(len(self.modules_read), self.dim))
        self.tokens: Tensor

    @classmethod
    def from_model(
        cls, model: nn.Module, modules: Sequence[str], sketch: int = 8
    ) -> BaseWeightsEncoder:
        """Reads the weights of a model.

        Args:
            model: The frozen network.
            modules: Paths of the modules to read, e.g. `LoRASpec.modules`.
            sketch: Number k of directions of each side.

        Raises:
            ConditionError: A module is missing, or its weight cannot be read; names it.
        """
        digest, tokens = hashlib.sha256(), []
        known = dict(model.named_modules())
        for path in modules:
            if path not in known:
                raise ConditionError(
                    f"the model has no module {path!r}.{did_you_mean(path, known)}"
                )
            weight = _matrix(path, known[path])
            # Rounded, so that a base in float32 and its copy in bfloat16 are one and the same.
            digest.update(f"{path}{tuple(weight.shape)}".encode())
            rounded = weight.to(torch.bfloat16).contiguous().view(torch.int16)
            digest.update(rounded.numpy().tobytes())
            tokens.append(_token(weight, sketch))
        encoder = cls(modules, sketch, digest.hexdigest())
        encoder.tokens.copy_(torch.stack(tokens))
        return encoder

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self.sketch * (self.sketch + 1) + 2 * len(_QUANTILES) + 3

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "modules": list(self.modules_read),
            "sketch": self.sketch,
            "fingerprint": self._fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights that were read."""
        return self._fingerprint

    def forward(self, inputs: Any) -> Condition:
        """The same tokens for each row.

        Args:
            inputs: The batch size, or any batch of that length.

        Returns:
            Tokens `[B, modules, dim]`.

        Raises:
            ConditionError: No weights were read, or the batch is empty.
        """
        size = len(inputs) if isinstance(inputs, Sized) else int(inputs)
        if size < 1:
            raise ConditionError("the batch of base weights is empty")
        if not bool(self.tokens.any()):
            raise ConditionError(
                "this BaseWeightsEncoder has read no weights: make it with from_model, or load it "
                "with its generator"
            )
        return Condition.from_tokens(self.tokens.expand(size, -1, -1))


class WithBaseWeights(ConditionEncoder):
    """Another encoder, and beside its condition the tokens of the frozen network's modules.

    The condition is the other encoder's, unchanged. Generators that know what to do with the
    tokens, such as `PromptToEffect`, find them by `base_weights`; all others ignore them.

    Args:
        encoder: What encodes the inputs.
        base: The frozen network's tokens.
    """

    def __init__(
        self,
        encoder: ConditionEncoder | dict[str, Any],
        base: BaseWeightsEncoder | dict[str, Any],
    ) -> None:
        super().__init__()
        self.encoder = (
            encoder
            if isinstance(encoder, ConditionEncoder)
            else ConditionEncoder.from_dict(encoder)
        )
        self.base = base if isinstance(base, ConditionEncoder) else ConditionEncoder.from_dict(base)
        # The same keyword of `Generator.generate`.
        self.input_name = self.encoder.input_name  # type: ignore[misc]

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self.encoder.dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments, with the parts' own."""
        return {"encoder": self.encoder.to_dict(), "base": self.base.to_dict()}

    @property
    def fingerprint(self) -> str:
        """The fingerprints of both parts."""
        return f"{self.encoder.fingerprint}+{self.base.fingerprint}"

    def forward(self, inputs: Any) -> Condition:
        """What the other encoder makes of the inputs."""
        condition: Condition = self.encoder(inputs)
        return condition


def base_weights(encoder: ConditionEncoder) -> BaseWeightsEncoder | None:
    """The `BaseWeightsEncoder` that an encoder holds anywhere inside, if there is one."""
    for part in encoder.modules():
        if isinstance(part, BaseWeightsEncoder):
            return part
    return None


def _matrix(path: str, module: nn.Module) -> Tensor:
    """The weight of a module as `[out, in]`, in float32 on the CPU."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() < 2:
        raise ConditionError(f"module {path!r} ({type(module).__name__}) has no weight matrix")
    if weight.device.type == "meta":
        raise ConditionError(f"the weight of module {path!r} is on the meta device: load the model")
    if not weight.is_floating_point():
        raise ConditionError(
            f"the weight of module {path!r} is quantised ({weight.dtype}): read it from the model "
            "before it is quantised"
        )
    matrix = weight.detach().float().cpu().flatten(1)
    if not bool(torch.isfinite(matrix).all()):
        raise ConditionError(f"the weight of module {path!r} holds NaN or infinity")
    # GPT-2's Conv1D stores [in, out].
    return matrix.T.contiguous() if type(module).__name__ == "Conv1D" else matrix


def _token(weight: Tensor, sketch: int) -> Tensor:
    """`[out, in]` → `[dim]`, see `BaseWeightsEncoder`."""
    outputs, inputs = weight.shape
    norm = weight.norm().clamp(min=1e-12)
    left = torch.randn(outputs, sketch, generator=seeded("base weights, rows", outputs))
    right = torch.randn(inputs, sketch, generator=seeded("base weights, columns", inputs))
    seen = weight @ right / norm
    spectrum = seen.new_zeros(sketch)
    values = torch.linalg.svdvals(seen)
    spectrum[: len(values)] = values
    at = torch.tensor(_QUANTILES)
    norms = [
        (weight.norm(dim=axis) * math.sqrt(weight.shape[1 - axis]) / norm).clamp(min=1e-3)
        for axis in (1, 0)
    ]
    sizes = [float(norm) / math.sqrt(weight.numel()), outputs / 256, inputs / 256]
    return torch.cat(
        [
            (left.T @ seen).flatten(),
            spectrum,
            *(torch.quantile(n.log(), at) for n in norms),
            torch.tensor(sizes).log() / 3,
        ]
    )
