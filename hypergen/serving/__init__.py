"""Generated weights as files that other programs load, checked."""

from hypergen.serving.export import check_export, load_adapter, portable_profile
from hypergen.serving.generate import generate_command, read_demos

__all__ = ["check_export", "generate_command", "load_adapter", "portable_profile", "read_demos"]
