"""Progress bars on standard error, so that standard output carries results alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Turns all progress bars of this process off, or back on."""
    global _quiet
    _quiet = quiet


def progress(
    iterable: Iterable[Any] | None = None,
    total: int | None = None,
    desc: str = "",
    unit: str = "it",
    force: bool = False,
) -> Any:
    """Returns a progress bar on standard error.

    The bar is drawn on a terminal only. Into a file or a pipe nothing is written, unless
    `force` or the environment variable HYPERGEN_PROGRESS=1 asks for it: then a line at the
    start, one at the end, and one every half minute between. `set_quiet(True)` or
    HYPERGEN_QUIET=1 silences every bar.

    Args:
        iterable: What to loop over; None for a bar that is moved by `update`.
        total: Number of steps, where the iterable has no length.
        desc: Words before the bar.
        unit: Name of one step.
        force: Whether to write even if standard error is not a terminal.

    Returns:
        The tqdm bar: an iterable and a context manager with `update`, `set_postfix`, `close`.
    """
    from tqdm.std import tqdm

    terminal = sys.stderr.isatty()
    silent = _quiet or _flag("HYPERGEN_QUIET")
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        file=sys.stderr,
        disable=silent or not (terminal or force or _flag("HYPERGEN_PROGRESS")),
        dynamic_ncols=terminal,
        mininterval=0.1 if terminal else 30.0,
        maxinterval=10.0 if terminal else 60.0,
    )


def _flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0", "false")
