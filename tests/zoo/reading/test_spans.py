from __future__ import annotations

import numpy as np
import pytest
import torch
from reading_zoo import plain_rows, write_rows

from hypergen.errors import UsageError


def test_spans_equal_slices_of_the_rows(tmp_path):
    zoo = write_rows(tmp_path / "zoo", plain_rows(), parts=3)
    flat, numel = zoo.flat(), zoo.spec.numel
    rows = [17, 0, 5, 5, 9]
    for length in (1, 4, numel):
        starts = np.array([0, numel - length, 1, 0, 2]).clip(max=numel - length)
        found = zoo.spans(rows, starts, length)
        expected = [flat[i, s : s + length] for i, s in zip(rows, starts, strict=True)]
        assert torch.equal(found, torch.stack(expected))
        first = zoo.spans(rows[1:3], starts[1:3], length)  # of one shard
        assert torch.equal(first, torch.stack(expected[1:3]))
    assert zoo.spans([], np.zeros(0, int), 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("starts", "length"), [([0], 3), ([0, -1], 3), ([0, 41], 3), ([0, 0], 0), ([0, 0], 44)]
)
def test_spans_outside_of_the_row_are_refused(tmp_path, starts, length):
    zoo = write_rows(tmp_path / "zoo", plain_rows())
    assert zoo.spec.numel == 43
    with pytest.raises(UsageError, match="spans"):
        zoo.spans([0, 1], np.array(starts), length)
