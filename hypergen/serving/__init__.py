"""Generated weights as files that other programs load, checked."""

from hypergen.serving.export import check_export, load_adapter
from hypergen.serving.generate import generate_command
from hypergen.serving.inputs import read_demos
from hypergen.serving.merge import merge_into_base, save_merged
from hypergen.serving.portable import portable_profile

__all__ = [
    "check_export",
    "generate_command",
    "load_adapter",
    "merge_into_base",
    "portable_profile",
    "read_demos",
    "save_merged",
]
