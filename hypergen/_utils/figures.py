"""What the figures and pages of all reports have in common. Matplotlib is imported on use."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of pages that hold their pictures and load nothing from anywhere.
CSS = """
body{font:16px/1.55 system-ui,sans-serif;color:#1b1b1b;background:#fff;max-width:68rem;
margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.25rem;margin-top:2.2rem}h3{font-size:1.05rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}th,td{padding:.35rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #444}
td small{display:block;color:#666;white-space:nowrap}.own{background:#fdf1e8;font-weight:600}
.facts td{text-align:left}
figure{margin:1rem 0}figure img{max-width:100%;height:auto}figcaption{color:#444;font-size:.95rem}
.note{border-left:4px solid #d55e00;padding:.3rem .8rem;margin:.5rem 0;background:#fdf6f1}
code,pre{font-size:.85rem;background:#f5f5f5}pre{padding:.7rem;overflow-x:auto}
"""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of some inches."""
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window, no warning about open figures.
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axis: Any, title: str = "", x: str = "", y: str = "") -> None:
    """Titles, a light grid, and no frame above and to the right."""
    axis.set_title(title, fontsize=11, loc="left")
    axis.set_xlabel(x, fontsize=10)
    axis.set_ylabel(y, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.grid(True, color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def png(figure: Figure) -> bytes:
    """A figure as PNG; equal figures are equal bytes."""
    buffer = io.BytesIO()
    # Without the version of matplotlib in it.
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
