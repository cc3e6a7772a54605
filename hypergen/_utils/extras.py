"""Optional packages: imported on first use, and named by their extra when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from hypergen._utils.errors import MissingExtraError


def require(module: str, extra: str, feature: str = "") -> ModuleType:
    """Imports an optional module, or says which extra installs it.

    Args:
        module: Dotted name of the module.
        extra: Extra of this package that installs it.
        feature: What needs it, the subject of the message; the module's name when empty.

    Returns:
        The module.

    Raises:
        MissingExtraError: The module, or the package that holds it, is not installed. A module
            that is there but fails to import something else raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):
            raise  # present but broken: the extra would not help, the traceback does
        raise MissingExtraError(
            f"{feature or module} needs the '{extra}' extra: pip install 'hypergen[{extra}]'"
        ) from error
