"""Architecture: a network as data, small, comparable, and from which a module is built."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen._utils.seeding import stable_seed

_FILLS = frozenset(
    [
        "uniform_",
        "normal_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "constant_",
        "ones_",
        "zeros_",
        "fill_",
        "zero_",
    ]
)
Kind = Literal["images", "tokens"]


@dataclass(frozen=True)
class Signature:
    """What a network reads and how many numbers it puts out.

    Attributes:
        kind: `images`, or `tokens` of a sequence.
        shape: Channels, height and width of an image; the length of a sequence.
        outputs: Classes; for tokens the size of the vocabulary, of which each token's successor
            is told.
    """

    kind: Kind
    shape: tuple[int, ...]
    outputs: int

    def example(self) -> Tensor:
        """Two inputs to trace a network with; without numbers where these are not whole."""
        if self.kind == "tokens":
            return torch.ones(2, *self.shape, dtype=torch.int64)
        return torch.empty(2, *self.shape, device="meta")


@dataclass(frozen=True)
class Architecture(ABC):
    """A network of an architecture space.

    Subclasses are frozen dataclasses of numbers, strings and tuples, known by their class name.
    Their modules hold parameters alone: batch norm takes the statistics of the batch, in training
    and after, as graph hypernetworks are evaluated (Knyazev et al., "Parameter Prediction for
    Unseen Deep Architectures", NeurIPS 2021, arXiv:2110.13100).

    Attributes:
        signature: What it reads and puts out.
    """

    _classes: ClassVar[dict[str, type[Architecture]]] = {}
    family: ClassVar[str]  # what its results are listed under
    group: ClassVar[str]  # convnets, transformers, …: what shares a learning rate

    signature: Signature

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Architecture._classes[cls.__name__] = cls

    @abstractmethod
    def module(self) -> nn.Module:
        """Builds a fresh module, started by torch's rules."""

    def meta(self) -> nn.Module:
        """Builds a module without memory for its parameters, to call with generated ones."""
        # Drawing numbers that nobody keeps takes half of the time, and, of normal ones on the meta
        # device, loads torch's compiler: seconds.
        with torch.device("meta"), _Unstarted():
            return self.module()

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form: class name and arguments."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "signature"}
        s = self.signature
        return {
            "class": type(self).__name__,
            "signature": {"kind": s.kind, "shape": list(s.shape), "outputs": s.outputs},
            "init_args": json.loads(json.dumps(values)),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Architecture:
        """Rebuilds any architecture from `to_dict`.

        Raises:
            UsageError: Unknown class or argument; names it.
        """
        try:
            name, given, arguments = data["class"], data["signature"], dict(data["init_args"])
            signature = Signature(given["kind"], tuple(given["shape"]), given["outputs"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"not an architecture: {error!r}") from error
        cls = Architecture._classes.get(str(name))
        if cls is None:
            hint = did_you_mean(str(name), Architecture._classes)
            raise UsageError(f"unknown architecture {name!r}.{hint}")
        known = [f.name for f in fields(cls)]
        for key in arguments:
            if key not in known:
                raise UsageError(f"{name} has no option {key!r}.{did_you_mean(str(key), known)}")
        return cls(signature, **{key: _tuples(value) for key, value in arguments.items()})

    @property
    def digest(self) -> int:
        """A number that depends on the architecture alone, equal in every process."""
        return stable_seed("architecture", json.dumps(self.to_dict(), sort_keys=True))

    def start(self, seed: int = 0) -> dict[str, Tensor]:
        """Parameters by name as torch starts them; global random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stable_seed("start", seed) % 2**63)
            module = self.module()
        return {name: p.detach() for name, p in module.named_parameters()}


class _Unstarted(TorchFunctionMode):
    """Leaves parameters as they were allocated."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns what was to be filled."""
        if getattr(func, "__name__", "") in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def count_parameters(module: nn.Module) -> int:
    """Numbers that a module holds; tied ones count once."""
    return sum(p.numel() for p in module.parameters())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
