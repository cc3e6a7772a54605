"""The errors that hypergen raises on purpose, and the words that help to mend them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HypergenError(Exception):
    """Base of every error that bad input causes; the command line shows it as one line."""


class SpecError(HypergenError, ValueError):
    """A weight spec is wrong: unknown slot, shape or role, or no module matches."""


class ConditionError(HypergenError, ValueError):
    """A condition cannot be encoded: empty or too long text, or mismatched shapes."""


class WeightsError(HypergenError, ValueError):
    """Weights do not fit their spec or their target, or hold NaN or infinity."""


class RunError(HypergenError, ValueError):
    """A run folder, or a file in it, is corrupt, incomplete or of another version."""


class RunNotFoundError(RunError, FileNotFoundError):
    """A run folder, or a file in it, does not exist."""


class UsageError(HypergenError, ValueError):
    """An option, recipe or combination of arguments does not exist or makes no sense."""


class MissingExtraError(HypergenError, ImportError):
    """A feature needs a package that only an optional extra installs."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns the sentence that points from a wrong word to the right one.

    Args:
        word: What was written.
        choices: What could have been written.

    Returns:
        " Did you mean 'x'?" for a near miss, else " Choose from: a, b, c.", with a leading
        space so that it can follow any sentence; "" without choices.
    """
    names = sorted(set(choices))
    if not names:
        return ""
    folded = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{folded[near[0]]}'?"
    return f" Choose from: {', '.join(names)}."
