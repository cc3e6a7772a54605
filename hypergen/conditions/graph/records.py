"""What a trace writes down before it is made a graph: values, and the calls that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SourceKind = Literal["input", "parameter"]


@dataclass
class Call:
    """One operation that ran.

    Attributes:
        op: Its name.
        inputs: (argument, value) of each value that it read; constants are left out.
        outputs: The values that it made.
        shape: Shape of its first output; None where it is not known.
        module: Path of the module whose forward called it.
        scope: Number of that module's call; 0 is the outermost.
        contracted: Length of the axis that a product sums over; None for other operations.
        whole: Whether a write replaced the whole tensor.
    """

    op: str
    inputs: list[tuple[str, int]]
    outputs: list[int]
    shape: tuple[int, ...] | None = None
    module: str = ""
    scope: int = 0
    contracted: int | None = None
    whole: bool = False


@dataclass
class Source:
    """A value that no call made: an input of the network, or a parameter.

    Attributes:
        kind: Which of the two.
        name: The parameter's first name, or the input's.
        shape: Its shape.
    """

    kind: SourceKind
    name: str
    shape: tuple[int, ...]


@dataclass
class Record:
    """Everything that one run of a forward did.

    Attributes:
        calls: In the order in which they ran.
        sources: Value → where it is from.
        outputs: Values that the forward returned.
        scopes: Number of a module call → number of the call around it.
        method: How the trace was made.
    """

    calls: list[Call] = field(default_factory=list)
    sources: dict[int, Source] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    scopes: dict[int, int] = field(default_factory=dict)
    method: str = "dispatch"
    _next: int = 0

    def value(self) -> int:
        """A new value."""
        self._next += 1
        return self._next - 1
