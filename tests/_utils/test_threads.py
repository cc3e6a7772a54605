from __future__ import annotations

import pytest
import torch

from hypergen._utils.threads import flush_denormals, one_thread


def test_the_number_of_threads_comes_back_even_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), one_thread():
            1 / (torch.get_num_threads() - 1)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_denormals_are_flushed_inside_and_come_back():
    tiny = torch.tensor(1e-39)
    supported = torch.set_flush_denormal(False)
    with flush_denormals():
        assert float(tiny * 1.0) == (0.0 if supported else 1e-39)
        with flush_denormals():
            pass
        assert float(tiny * 1.0) == (0.0 if supported else 1e-39)
    assert float(tiny * 1.0) > 0
