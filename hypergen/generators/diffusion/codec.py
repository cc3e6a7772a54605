"""WeightCodec: weights ⇄ latents, the outer half of a diffusion over weights."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError, WeightsError, did_you_mean
from hypergen.specs import WeightSpec


class WeightCodec(nn.Module, ABC):
    """Flat weights `[B, numel]` ⇄ latents `[B, T, D]`, deterministic both ways.

    A subclass passes its own constructor arguments (all but the spec) to `super().__init__`, so
    that it can be saved and rebuilt, and registers itself by class name. Statistics of the
    training checkpoints, and all else that is learned, are buffers and parameters: they are saved
    with the generator.

    `encode` and `decode` mean the same whether the module trains or not (batch norm uses its
    running statistics, nothing is dropped or drawn); only `loss` may differ.

    Attributes:
        trained: Whether it has a training stage of its own, which minimises `loss`.

    Args:
        spec: The weights.
        options: The subclass's own constructor arguments, JSON-serialisable.
    """

    trained: ClassVar[bool] = False
    _registry: ClassVar[dict[str, type[WeightCodec]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        WeightCodec._registry[cls.__name__] = cls

    def __init__(self, spec: WeightSpec, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.spec = spec
        self.options: dict[str, Any] = json.loads(json.dumps(dict(options)))
        self.register_buffer("fitted", torch.tensor(False))
        self.fitted: Tensor

    # -- shape of the latents ------------------------------------------------------------------

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Number T of latent tokens."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width D of a latent token."""

    @property
    def sized(self) -> bool:
        """Whether `tokens` and `dim` are known, without `fit`."""
        return True

    @property
    def mask(self) -> Tensor:
        """`[T, D]` bool, False where a latent is padding; padding is zero."""
        return torch.ones(self.tokens, self.dim, dtype=torch.bool)

    @property
    def positions(self) -> Tensor:
        """`[T, 3]` long: layer (0 without one, else 1 + layer), slot, number of the token in it."""
        number = torch.arange(self.tokens)
        return torch.stack([torch.zeros_like(number), torch.zeros_like(number), number], dim=1)

    def describe(self, token: int) -> str:
        """What a token stands for, in messages."""
        return f"token {token}"

    # -- what a codec does ---------------------------------------------------------------------

    def fit(self, flat: Tensor) -> None:
        """Takes what it needs of `[N, numel]` training checkpoints: called once, before training.

        What is fitted stays: a second call, or one after loading, changes nothing. Subclasses
        implement `fit_statistics`.

        Raises:
            WeightsError: The checkpoints are of another spec, none, or not finite.
        """
        if bool(self.fitted):
            return
        self.check(flat)
        if not len(flat):
            raise WeightsError("there is no checkpoint to fit the codec to")
        if not bool(torch.isfinite(flat).all()):
            row = int((~torch.isfinite(flat)).any(1).nonzero()[0])
            raise WeightsError(f"training checkpoint {row} contains NaN or infinity")
        with torch.no_grad():
            self.fit_statistics(flat)
        self.fitted.fill_(True)

    @abstractmethod
    def fit_statistics(self, flat: Tensor) -> None:
        """Sets the buffers from `[N, numel]` checkpoints, all finite, N ≥ 1."""

    @abstractmethod
    def encode(self, flat: Tensor) -> Tensor:
        """Flat `[B, numel]` → latents `[B, T, D]`, zero under the mask."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, T, D]` → flat `[B, numel]`; what stands under the mask is ignored."""

    def loss(self, flat: Tensor) -> Tensor:
        """Scalar training loss of `[B, numel]`; noise comes from torch's global generator.

        Raises:
            SpecError: The codec is not trained.
        """
        raise SpecError(f"{type(self).__name__} has nothing to train")

    def steady_loss(self, flat: Tensor) -> Tensor:
        """`loss` with the same noise at every call, which leaves torch's global generator alone."""
        device = flat.device
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices=devices, device_type=device.type):
            torch.manual_seed(0)
            return self.loss(flat)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """What is computed inside has no gradient for the codec, but for what goes through it."""
        own = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for parameter in own:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in own:
                parameter.requires_grad_(True)

    def check(self, flat: Tensor) -> None:
        """Checks the shape `[B, numel]`.

        Raises:
            WeightsError: Another shape.
        """
        if flat.dim() != 2 or flat.shape[1] != self.spec.numel:
            raise WeightsError(f"expected [B, {self.spec.numel}], got {list(flat.shape)}")

    def check_latents(self, latents: Tensor) -> None:
        """Checks the shape `[B, T, D]`.

        Raises:
            WeightsError: Another shape.
        """
        if tuple(latents.shape[1:]) != (self.tokens, self.dim):
            raise WeightsError(
                f"expected latents [B, {self.tokens}, {self.dim}], got {list(latents.shape)}"
            )

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Name and constructor arguments, JSON-serialisable; tensors travel in the state dict."""
        return {"name": type(self).__name__, **self.options}

    @staticmethod
    def from_dict(spec: WeightSpec, data: str | Mapping[str, Any]) -> WeightCodec:
        """Builds a codec from `to_dict`, or from its name alone.

        Raises:
            SpecError: Unknown name, or arguments that it does not take.
        """
        found = build(WeightCodec._registry, data, "codec", (spec,))
        assert isinstance(found, WeightCodec)
        return found


def build(
    registry: Mapping[str, Any],
    data: str | Mapping[str, Any],
    what: str,
    arguments: tuple[Any, ...],
) -> nn.Module:
    """Makes what a name, or a mapping with `name` and options, asks for.

    Args:
        registry: Name → class.
        data: `"Name"` or `{"name": "Name", **options}`.
        what: What is made, for messages.
        arguments: Positional arguments of the constructor.

    Raises:
        SpecError: Unknown name, or options that the class does not take.
    """
    options = {"name": data} if isinstance(data, str) else dict(data)
    name = str(options.pop("name", ""))
    cls = registry.get(name)
    if cls is None:
        raise SpecError(f"there is no {what} {name!r}.{did_you_mean(name, registry)}")
    try:
        made: nn.Module = cls(*arguments, **options)
    except TypeError as error:
        raise SpecError(f"{what} {name}: {error}") from error
    return made
