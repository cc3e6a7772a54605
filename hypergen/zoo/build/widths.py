"""Which runs train together: networks of similar widths share a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.zoo.ensemble.widths import check_narrower
from hypergen.zoo.networks import Network

_WIDTHS = ("hidden", "channels")  # the option of a network that holds them
_WASTE = 2.0  # a network is padded to at most so many times its own size


@dataclass(frozen=True)
class Stack:
    """Runs that train as one stacked network.

    Attributes:
        network: The widest architecture among them.
        runs: Their numbers.
    """

    network: Network
    runs: tuple[int, ...]


def width_of(network: Network) -> tuple[int, ...]:
    """Hidden units or channels of each layer; empty for a network without such an option."""
    option = _option(network)
    return tuple(getattr(network, option)) if option else ()


def with_width(network: Network, width: Sequence[int]) -> Network:
    """The network with other widths.

    Raises:
        UsageError: It has no such option, or they do not fit.
    """
    option = _option(network)
    if option is None:
        raise UsageError(f"widths: {type(network).__name__} has no option {' or '.join(_WIDTHS)}")
    changes: dict[str, Any] = {option: tuple(width)}
    return replace(network, **changes)  # type: ignore[type-var]


def _option(network: Network) -> str | None:
    names = [field.name for field in fields(network)]  # type: ignore[arg-type]
    return next((name for name in names if name in _WIDTHS), None)


def stacks(networks: Sequence[Network], size: int) -> list[Stack]:
    """Distributes runs over stacks.

    Args:
        networks: Architecture of each run.
        size: Most runs of a stack.

    Returns:
        The stacks; runs are in order within each bucket of widths.
    """
    bucket_of: dict[Network, Network] = {}
    widest: list[Network] = []
    # Widest first, and by name where they are equal: the order of the runs must not matter.
    for network in sorted(set(networks), key=lambda n: (-n.spec().numel, repr(n))):
        fitting = (stack for stack in widest if _fits(network, stack))
        bucket = bucket_of[network] = next(fitting, network)
        if bucket is network:
            widest.append(network)
    out = []
    for bucket in widest:
        runs = [run for run, network in enumerate(networks) if bucket_of[network] == bucket]
        chunks = (runs[first : first + size] for first in range(0, len(runs), size))
        out += [Stack(bucket, tuple(chunk)) for chunk in chunks]
    return out


def _fits(network: Network, stack: Network) -> bool:
    if network.spec().numel * _WASTE < stack.spec().numel:
        return False
    try:
        check_narrower(network, stack)
    except UsageError:
        return False
    return True
