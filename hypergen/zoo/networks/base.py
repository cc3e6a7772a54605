"""Network: an architecture as data, from which module, spec and symmetry are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import nn

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.specs import FullSpec, Slot, WeightSpec
from hypergen.zoo.canonical.scaling import ScalingGroup
from hypergen.zoo.canonical.symmetry import Symmetry


class Network(ABC):
    """An architecture that zoos are made of.

    Subclasses are frozen dataclasses of numbers, strings and tuples, and are known by their class
    name. Their modules have no state but parameters and floating-point buffers, and run under
    `torch.func.vmap` of `functional_call`, so that many of them train as one stacked network.
    """

    _classes: ClassVar[dict[str, type[Network]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Network._classes[cls.__name__] = cls

    @abstractmethod
    def module(self) -> nn.Module:
        """Builds a fresh module; its values mean nothing, `spec().initial(seed)` starts it."""

    @abstractmethod
    def symmetry(self) -> Symmetry:
        """Permutations of hidden units that leave the function unchanged."""

    def scaling(self) -> tuple[ScalingGroup, ...]:
        """Hidden units that can be rescaled without changing the function; none by default."""
        return ()

    def start(self, slot: Slot) -> Slot:
        """Sets the initial distribution of a slot where it is not that of `FullSpec`."""
        return slot

    def spec(self) -> FullSpec:
        """Parameters and buffers as slots, whose mean and std are the initial distribution."""
        return _spec(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form: class name and arguments."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return {"class": type(self).__name__, "init_args": plain}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Network:
        """Rebuilds any network from `to_dict`.

        Raises:
            UsageError: Unknown class or argument, or a value that makes no network; names it.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"a network is written as {{class: NAME, …}}, not {data!r}")
        unknown = sorted(map(str, set(data) - {"class", "init_args"}))
        if unknown or "class" not in data:
            raise UsageError(
                "a network is written as {class: NAME, init_args: {…}}"
                + (f", without {unknown[0]!r}" if unknown else "; here the class is missing")
            )
        name, arguments = data["class"], data.get("init_args") or {}
        cls = Network._classes.get(str(name))
        if cls is None:
            raise UsageError(
                f"unknown network {name!r}.{did_you_mean(str(name), Network._classes)}"
            )
        if not isinstance(arguments, Mapping):
            raise UsageError(f"the init_args of {name} must be a mapping, not {arguments!r}")
        known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        for key in arguments:
            if key not in known:
                raise UsageError(f"{name} has no option {key!r}.{did_you_mean(str(key), known)}")
        return cls(**arguments)


@lru_cache(maxsize=1024)
def _spec(network: Network) -> FullSpec:
    with torch.device("meta"):
        read = FullSpec(network.module(), buffers=True)
    spec = FullSpec.__new__(FullSpec)
    WeightSpec.__init__(spec, map(network.start, read.slots), read.config)
    return spec


def size(owner: object, name: str, value: Any, least: int = 1) -> int:
    """Checks a whole number of at least `least`.

    Raises:
        UsageError: It is not; names the option.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(
            f"{name} of {type(owner).__name__} must be a whole number of at least {least}, "
            f"not {value!r}"
        )
    return value


def sizes(owner: object, name: str, value: Any, length: int | None = None) -> tuple[int, ...]:
    """Checks a list of whole numbers of at least 1, and returns it as a tuple.

    Raises:
        UsageError: It is not, or has another length; names the option.
    """
    if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
        count = "" if length is None else f"{length} "
        raise UsageError(
            f"{name} of {type(owner).__name__} must be a list of {count}whole numbers, "
            f"not {value!r}"
        )
    return tuple(size(owner, name, n) for n in value)


def choice(owner: object, name: str, value: Any, choices: Mapping[Any, Any]) -> None:
    """Checks that an option is one of the known ones.

    Raises:
        UsageError: It is not; names the option.
    """
    if value not in list(choices):  # by equality: a list from a file has no hash
        raise UsageError(
            f"{name} of {type(owner).__name__} cannot be {value!r}."
            + did_you_mean(str(value), map(str, choices))
        )
