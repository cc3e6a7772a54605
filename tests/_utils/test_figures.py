from __future__ import annotations

from hypergen._utils.figures import new_figure, png, tidy


def test_equal_figures_are_equal_bytes():
    def draw(title):
        figure = new_figure(2, 1)
        axis = figure.subplots()
        axis.plot([0, 1], [1, 0])
        tidy(axis, title, "x", "y")
        return png(figure)

    assert draw("a") == draw("a") != draw("b")
    assert draw("a").startswith(b"\x89PNG")
