from __future__ import annotations

import pytest
import torch

from hypergen._utils.memory import is_out_of_memory, memory_advice
from hypergen.errors import RunError, WeightsError

CPU = "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(CPU),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_memory_that_ran_out_says_what_to_lower(error):
    assert is_out_of_memory(error)
    told = pytest.raises(RunError, match="training ran out of memory: lower x")
    with told as caught, memory_advice("training", "lower x"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes"), WeightsError(CPU), KeyError("not enough memory")],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, memory_advice("training", "lower x"):
        raise error
    assert caught.value is error
