"""The errors of hypergen: catch `HypergenError` for all of them."""

from hypergen._utils.errors import (
    ConditionError,
    HypergenError,
    MissingExtraError,
    RunError,
    RunNotFoundError,
    SpecError,
    UsageError,
    WeightsError,
)

__all__ = [
    "ConditionError",
    "HypergenError",
    "MissingExtraError",
    "RunError",
    "RunNotFoundError",
    "SpecError",
    "UsageError",
    "WeightsError",
]
