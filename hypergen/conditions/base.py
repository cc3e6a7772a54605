"""Condition: what is known, as tokens; and the encoders that make it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, did_you_mean


@dataclass(frozen=True)
class Condition:
    """A batch of encoded conditions.

    Attributes:
        tokens: `[B, T, D]`; what stands under the mask is zero.
        mask: `[B, T]` bool, True for real tokens; every row has at least one.
        pooled: `[B, D]`, one vector for each condition.
        signals: `[B, F]`, numbers about the inputs that only the expected gain reads (see
            `ConditionEncoder.signal_names`); None where an encoder states none.
        weights: `[B, numel]`, flat weights that are part of the condition, as they were given; read
            by generators that change them. None where there are none.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    signals: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tokens.dim() != 3 or self.mask.shape != self.tokens.shape[:2]:
            raise ConditionError(
                f"a condition has tokens [B, T, D] and mask [B, T], not {list(self.tokens.shape)} "
                f"and {list(self.mask.shape)}"
            )
        if self.pooled.shape != (self.tokens.shape[0], self.tokens.shape[2]):
            raise ConditionError(
                f"pooled has shape {list(self.pooled.shape)}, expected "
                f"[{self.tokens.shape[0]}, {self.tokens.shape[2]}]"
            )
        if self.signals is not None and (
            self.signals.dim() != 2 or len(self.signals) != len(self.tokens)
        ):
            raise ConditionError(
                f"signals have shape {list(self.signals.shape)}, expected "
                f"[{self.tokens.shape[0]}, F]"
            )
        if self.weights is not None and (
            self.weights.dim() != 2 or len(self.weights) != len(self.tokens)
        ):
            raise ConditionError(
                f"weights of a condition have shape {list(self.weights.shape)}, expected "
                f"[{self.tokens.shape[0]}, numel]"
            )

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.tokens.shape[2]

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Condition:
        """Picks rows; the batch axis stays. See `trim` for tokens that no picked row uses."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(
                    f"the condition has {len(self)} rows, index {index} is out of range"
                )
            index = slice(index, index + 1 or None)
        elif not isinstance(index, slice):
            index = torch.atleast_1d(torch.as_tensor(index, device=self.tokens.device))
        signals = None if self.signals is None else self.signals[index]
        weights = None if self.weights is None else self.weights[index]
        return Condition(self.tokens[index], self.mask[index], self.pooled[index], signals, weights)

    def trim(self) -> Condition:
        """Cuts off token positions that no row uses."""
        used = self.mask.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else 1
        tokens, mask = self.tokens[:, :length], self.mask[:, :length]
        return Condition(tokens, mask, self.pooled, self.signals, self.weights)

    def to(self, *args: Any, **kwargs: Any) -> Condition:
        """Moves or casts the tensors; the mask keeps its dtype."""
        tokens, pooled = self.tokens.to(*args, **kwargs), self.pooled.to(*args, **kwargs)
        signals = None if self.signals is None else self.signals.to(*args, **kwargs)
        weights = None if self.weights is None else self.weights.to(*args, **kwargs)
        return Condition(tokens, self.mask.to(tokens.device), pooled, signals, weights)

    def detach(self) -> Condition:
        """Cuts the graph."""
        signals = None if self.signals is None else self.signals.detach()
        weights = None if self.weights is None else self.weights.detach()
        return Condition(self.tokens.detach(), self.mask, self.pooled.detach(), signals, weights)

    @staticmethod
    def from_tokens(tokens: Tensor, mask: Tensor | None = None) -> Condition:
        """Masks the tokens and pools them by their mean.

        Args:
            tokens: `[B, T, D]`.
            mask: `[B, T]` bool; all True when not given.
        """
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        tokens = tokens.masked_fill(~mask[..., None], 0)
        count = mask.sum(1, keepdim=True).clamp(min=1)
        return Condition(tokens, mask, tokens.sum(1) / count)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Joins batches of one width, padding to the longest.

        Raises:
            ConditionError: Nothing given, or different widths.
        """
        if not conditions:
            raise ConditionError("no conditions to join")
        if len({c.dim for c in conditions}) > 1:
            raise ConditionError(f"conditions of widths {[c.dim for c in conditions]} cannot join")
        signals = [c.signals for c in conditions if c.signals is not None]
        if len(signals) not in (0, len(conditions)):
            raise ConditionError("conditions with and without signals cannot join")
        weights = [c.weights for c in conditions if c.weights is not None]
        if len(weights) not in (0, len(conditions)):
            raise ConditionError("conditions with and without weights cannot join")
        length = max(c.tokens.shape[1] for c in conditions)

        def pad(tensor: Tensor) -> Tensor:
            shape = (tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:])
            return torch.cat([tensor, tensor.new_zeros(shape)], dim=1)

        return Condition(
            torch.cat([pad(c.tokens) for c in conditions]),
            torch.cat([pad(c.mask) for c in conditions]),
            torch.cat([c.pooled for c in conditions]),
            torch.cat(signals) if signals else None,
            torch.cat(weights) if weights else None,
        )


class ConditionEncoder(nn.Module, ABC):
    """Raw inputs → `Condition`.

    A subclass states which keyword of `Generator.generate` it takes (`input_name`: text, demos,
    document, task, …), and returns its constructor's arguments from `config`, so that a generator
    can be saved with it. Encoders register themselves by class name.
    """

    input_name: ClassVar[str] = "text"
    # Whether it encodes something fixed, and asks for nothing but the batch size.
    constant: ClassVar[bool] = False
    # Names of the numbers in `Condition.signals`.
    signal_names: tuple[str, ...] = ()
    _registry: ClassVar[dict[str, type[ConditionEncoder]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        ConditionEncoder._registry[cls.__name__] = cls

    @property
    def input_names(self) -> tuple[str, ...]:
        """Keywords of `Generator.generate` that it can take; several for a fused one."""
        return (self.input_name,)

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width D of the tokens."""

    @abstractmethod
    def forward(self, inputs: Any) -> Condition:
        """Encodes a batch of raw inputs.

        Raises:
            ConditionError: An input is empty, too long or of the wrong kind.
        """

    def embed(self, inputs: Any) -> Tensor:
        """The pooled vectors alone, `[B, D]`; encoders that keep tokens do not keep these."""
        return self(inputs).pooled

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-serialisable."""

    @property
    def fingerprint(self) -> str:
        """Identifies frozen weights that are not saved with a generator; empty without any."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Class, arguments and fingerprint, for `from_dict`."""
        return {
            "class": type(self).__name__,
            "init_args": self.config(),
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ConditionEncoder:
        """Rebuilds an encoder.

        Raises:
            ConditionError: Unknown class, or its frozen weights are not those of `to_dict`.
        """
        name = data.get("class", "")
        cls = ConditionEncoder._registry.get(name)
        if cls is None:
            raise ConditionError(
                f"unknown condition encoder {name!r}."
                f"{did_you_mean(name, ConditionEncoder._registry)}"
            )
        encoder = cls(**data["init_args"])
        wanted = data.get("fingerprint", "")
        if wanted and encoder.fingerprint != wanted:
            raise ConditionError(
                f"{name}({data['init_args']}) holds other weights than the generator was trained "
                f"with (fingerprint {encoder.fingerprint[:12]}, expected {wanted[:12]})"
            )
        return encoder


def check_texts(texts: Any) -> list[str]:
    """Checks that texts are a non-empty list of non-empty strings.

    Raises:
        ConditionError: Otherwise; names the position.
    """
    if isinstance(texts, str):
        texts = [texts]
    texts = list(texts)
    if not texts:
        raise ConditionError("no text given: pass at least one sentence")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConditionError(f"text {i} is a {type(text).__name__}, not a string")
        if not text.strip():
            raise ConditionError(f"text {i} is empty: describe the task in a sentence")
    return texts
