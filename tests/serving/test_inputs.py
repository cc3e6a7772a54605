"""Files that `hypergen generate` reads: errors name the line."""

from __future__ import annotations

import pytest

from hypergen.errors import UsageError
from hypergen.serving import read_demos


def test_bad_files_name_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": 1}\n{"input"\n')
    with pytest.raises(UsageError, match=r"a\.jsonl: line 2 is not valid JSON"):
        read_demos(path)
    path.write_text("[1]\n")
    with pytest.raises(UsageError, match=r"a\.jsonl: line 1 holds no JSON object"):
        read_demos(path)
    path.write_text("\n")
    with pytest.raises(UsageError, match=r"a\.jsonl is empty"):
        read_demos(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as text"):
        read_demos(path)
