"""Narrower networks inside a wider one: hidden units that are, and stay, exactly zero."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen.specs import WeightSpec
from hypergen.zoo.networks import CNN, MLP, SIREN, Network

# The option that holds the widths. A unit whose weights and bias are zero puts out zero and gets no
# gradient in these architectures, unless one of the exceptions below lets units see each other.
_WIDTHS = {MLP: "hidden", CNN: "channels", SIREN: "hidden"}


def check_narrower(member: Network, stack: Network) -> None:
    """Checks that a network is the stack's with fewer hidden units.

    Raises:
        UsageError: It differs in more than widths, is wider, or its zero units would not stay zero.
    """
    if member == stack:
        return
    option = _WIDTHS.get(type(stack))
    if option is None or type(member) is not type(stack):
        raise UsageError(
            f"{member} cannot be trained in a stack of {stack}: only the hidden units of one MLP, "
            "CNN or SIREN may be fewer"
        )
    mine, most = getattr(member, option), getattr(stack, option)
    if replace(member, **{option: most}) != stack:  # type: ignore[type-var]
        raise UsageError(f"{member} and {stack} of one stack may differ in {option!r} alone")
    if len(mine) != len(most) or any(a > b for a, b in zip(mine, most, strict=True)):
        raise UsageError(f"{option} {mine} do not fit into the stack's {most}")
    if getattr(stack, "norm", None) == "layer":
        raise UsageError(f"layer norm mixes units, so {member} cannot be padded to {most}")
    if getattr(stack, "activation", None) == "sigmoid":
        raise UsageError(f"the sigmoid of 0 is not 0, so {member} cannot be padded to {most}")


def entries_of(narrow: WeightSpec, wide: WeightSpec) -> Tensor:
    """Where the entries of a narrower network are in the wider one.

    Returns:
        `[narrow.numel]` positions in the flat vector of `wide`: the first rows and columns of each
        slot.
    """
    parts = torch.arange(wide.numel).split([slot.numel for slot in wide])
    positions = {slot.name: p.view(slot.shape) for slot, p in zip(wide, parts, strict=True)}
    corners = [positions[slot.name][tuple(map(slice, slot.shape))] for slot in narrow]
    return torch.cat([corner.flatten() for corner in corners])
