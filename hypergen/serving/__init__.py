"""Generated weights as files that other programs load, checked."""

from hypergen.serving.export import check_export, load_adapter
from hypergen.serving.generate import generate_command, read_demos
from hypergen.serving.portable import portable_profile

__all__ = ["check_export", "generate_command", "load_adapter", "portable_profile", "read_demos"]
