"""Progress bars: on standard error, on a terminal, and never when they are not wanted."""

import io
import sys

import pytest

from hypergen._utils.progress import progress, set_quiet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _loud(monkeypatch):
    monkeypatch.delenv("HYPERGEN_QUIET", raising=False)
    monkeypatch.delenv("HYPERGEN_PROGRESS", raising=False)


def drawn(monkeypatch, stream, **options) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress([1, 2, 3], desc="zoo", **options)) == [1, 2, 3]
    return stream.getvalue()


def test_a_terminal_sees_the_bar_on_standard_error_alone(monkeypatch, capsys):
    text = drawn(monkeypatch, Terminal())
    assert "zoo" in text
    assert "3/3" in text
    assert capsys.readouterr().out == ""


def test_a_file_gets_nothing_unless_forced(monkeypatch):
    assert drawn(monkeypatch, io.StringIO()) == ""
    assert "3/3" in drawn(monkeypatch, io.StringIO(), force=True)
    monkeypatch.setenv("HYPERGEN_PROGRESS", "1")
    assert "3/3" in drawn(monkeypatch, io.StringIO())


def test_quiet_wins_over_everything(monkeypatch):
    set_quiet(True)
    try:
        assert drawn(monkeypatch, Terminal(), force=True) == ""
    finally:
        set_quiet(False)
    monkeypatch.setenv("HYPERGEN_QUIET", "1")
    assert drawn(monkeypatch, Terminal(), force=True) == ""


def test_a_bar_moved_by_hand_works_when_it_is_silent():
    with progress(total=2) as bar:
        bar.update()
        bar.set_postfix(loss=0.5)
