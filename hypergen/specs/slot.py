"""The unit of emission: one named tensor that a generator fills."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from hypergen._utils.errors import SpecError

Role = Literal[
    "weight",
    "bias",
    "norm",
    "embedding",
    "lora_A",
    "lora_B",
    "prefix",
    "adapter_down",
    "adapter_up",
    "other",
]

_DTYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Slot:
    """One tensor to emit, described without any model at hand.

    Attributes:
        name: Key of the tensor in files and in `Weights`, unique within a spec.
        shape: Shape of the tensor for one network, without a batch axis.
        role: What the tensor does; slots of one role, shape, dtype and kind of start form a group.
        dtype: Name of the stored dtype (`float16`, `bfloat16`, `float32` or `float64`).
        parameter: Name that the target replaces by this tensor; `name` when empty.
        module: Path of the module that owns the tensor.
        layer: Depth index of that module, if its path contains one.
        fan_in: Number of inputs that one output sums over.
        fan_out: Number of outputs that one input reaches.
        ties: Other parameter names that share this tensor.
        mean: Mean of the tensor at the start of training.
        std: Standard deviation of the tensor at the start; 0 is an exact constant start.
        scale: Size of a typical entry (> 0): heads emit unit-scale numbers times this.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    dtype: str = "float32"
    parameter: str = ""
    module: str = ""
    layer: int | None = None
    fan_in: int | None = None
    fan_out: int | None = None
    ties: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise SpecError("a slot needs a non-empty name")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "ties", tuple(self.ties))
        if not self.parameter:
            object.__setattr__(self, "parameter", self.name)
        if any(n <= 0 for n in self.shape):
            raise SpecError(f"slot {self.name!r} has an empty shape {self.shape}")
        if self.role not in get_args(Role):
            raise SpecError(f"slot {self.name!r} has an unknown role {self.role!r}")
        if self.dtype not in _DTYPES:
            raise SpecError(
                f"slot {self.name!r} has dtype {self.dtype!r}; only {', '.join(_DTYPES)} can be "
                "emitted"
            )
        if not (self.std >= 0 and self.scale > 0 and math.isfinite(self.mean)):
            raise SpecError(
                f"slot {self.name!r} needs std >= 0, scale > 0 and a finite mean, "
                f"not {self.std}, {self.scale}, {self.mean}"
            )

    @property
    def numel(self) -> int:
        """Number of entries in the tensor."""
        return math.prod(self.shape)

    @property
    def group_key(self) -> tuple[str, tuple[int, ...], str, bool]:
        """Slots with equal keys are stacked into one tensor.

        Slots that start constant stay apart from those that start at random: one head serves a
        group, and it either starts silent or does not.
        """
        return self.role, self.shape, self.dtype, self.std == 0

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-serialisable dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Slot:
        """Rebuilds a slot from `to_dict`.

        Raises:
            SpecError: A field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        missing = sorted({"name", "shape", "role"} - set(data))
        if unknown or missing:
            raise SpecError(
                f"slot {data.get('name', '?')!r} is malformed: "
                + (f"unknown field {unknown[0]!r}" if unknown else f"no field {missing[0]!r}")
            )
        return cls(**{**data, "shape": tuple(data["shape"]), "ties": tuple(data.get("ties", ()))})


@dataclass(frozen=True)
class Group:
    """Consecutive slots of one `Slot.group_key`, stacked into `[B, len, *shape]`.

    Attributes:
        role: Role of every slot of the group.
        shape: Shape of every slot of the group.
        dtype: Stored dtype of every slot of the group.
        start: Index of the first slot in the spec.
        stop: Index after the last slot in the spec.
        offset: Position of the group's first entry in the flat vector.
    """

    role: str
    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int
    offset: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def slot_numel(self) -> int:
        """Number of entries in one slot."""
        return math.prod(self.shape)

    @property
    def numel(self) -> int:
        """Number of entries in the whole group."""
        return len(self) * self.slot_numel
