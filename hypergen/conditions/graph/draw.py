"""Pictures of graphs: in layers by depth, data flowing down."""

from __future__ import annotations

from collections.abc import Iterable

from hypergen._utils.figures import new_figure, png
from hypergen.conditions.graph.graph import ModuleGraph

MOST = 150  # nodes that a picture can label
_COLOURS = {
    "input": "#56B4E9",
    "parameter": "#E8E8E8",
    "operation": "#E69F00",
    "output": "#009E73",
}
_ARROW = {"arrowstyle": "->", "color": "#8A8A8A", "lw": 0.7, "shrinkA": 7, "shrinkB": 7}
_SWEEPS = 4


def draw(graph: ModuleGraph, most: int = MOST) -> tuple[bytes, int]:
    """Draws a graph as a PNG.

    Of a repeated block only the first repetitions are drawn, as many as fit.

    Args:
        graph: The graph.
        most: Most nodes to draw.

    Returns:
        The picture, and how many nodes it leaves out.
    """
    shown = _shown(graph, most)
    place = {number: i for i, number in enumerate(shown)}
    edges = [
        (place[e.source], place[e.target])
        for e in graph.edges
        if {e.source, e.target} <= set(place)
    ]
    return _picture(graph, shown, edges), len(graph) - len(shown)


def _shown(graph: ModuleGraph, most: int) -> list[int]:
    """Nodes to draw: all, or fewer and fewer repetitions of every block, then the first ones."""
    if len(graph) <= most:
        return list(range(len(graph)))
    repetitions = max((n.copy for n in graph.nodes), default=-1)
    for limit in range(repetitions, 0, -1):
        kept = [i for i, n in enumerate(graph.nodes) if n.copy < limit]
        if len(kept) <= most:
            return kept
    kept = [i for i, n in enumerate(graph.nodes) if n.copy < 1]
    return kept[:most]


def layers(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Depth of each node; one that nothing leads to stands right above its first reader.

    Args:
        count: Number of nodes, in an order in which data flows.
        edges: (from, to).
    """
    depth = [0] * count
    readers: dict[int, list[int]] = {}
    sources: dict[int, list[int]] = {}
    for source, target in sorted(edges):
        readers.setdefault(source, []).append(target)
        sources.setdefault(target, []).append(source)
    for node in range(count):
        above = [depth[s] + 1 for s in sources.get(node, ())]
        depth[node] = max(above, default=0)
    for node in range(count):
        if node not in sources and node in readers:
            depth[node] = max(0, min(depth[r] for r in readers[node]) - 1)
    return depth


def columns(depth: list[int], edges: Iterable[tuple[int, int]]) -> list[float]:
    """Places side by side within each layer: each near the mean of its neighbours."""
    near: dict[int, list[int]] = {}
    for source, target in edges:
        near.setdefault(source, []).append(target)
        near.setdefault(target, []).append(source)
    rows: dict[int, list[int]] = {}
    for node, level in enumerate(depth):
        rows.setdefault(level, []).append(node)
    x = [0.0] * len(depth)

    def spread(row: list[int]) -> None:
        for i, node in enumerate(row):
            x[node] = i - (len(row) - 1) / 2

    for row in rows.values():
        spread(row)
    for sweep in range(_SWEEPS):
        for level in sorted(rows, reverse=bool(sweep % 2)):
            mean = {
                n: sum(x[m] for m in near[n]) / len(near[n]) if n in near else 0.0
                for n in rows[level]
            }
            rows[level].sort(key=lambda n: (mean[n], n))
            spread(rows[level])
    return x


def _picture(graph: ModuleGraph, shown: list[int], edges: list[tuple[int, int]]) -> bytes:
    depth = layers(len(shown), edges)
    x = columns(depth, edges)
    width = max(x, default=0) - min(x, default=0) + 1
    height = max(depth, default=0) + 1
    figure = new_figure(min(24, max(5, 2.1 * width)), min(60, max(3, 0.55 * height)))
    axis = figure.subplots()
    axis.set_title(f"{graph.name}: {len(shown)} of {len(graph)} nodes", fontsize=11, loc="left")
    for source, target in edges:
        axis.annotate(
            "",
            (x[target], -depth[target]),
            (x[source], -depth[source]),
            arrowprops={
                "arrowstyle": "->",
                "color": "#8A8A8A",
                "lw": 0.7,
                "shrinkA": 7,
                "shrinkB": 7,
            },
        )
    for i, number in enumerate(shown):
        node = graph.nodes[number]
        label = node.op.partition(".")[2] if node.kind == "parameter" else node.op
        if node.kind == "parameter":
            label = f"{label} {'×'.join(map(str, node.shape))}"
        elif node.kind == "input":
            label = node.name if not node.name.isdigit() else "input"
        colour = _COLOURS[node.kind]
        axis.text(
            x[i],
            -depth[i],
            label,
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.25", "fc": colour, "ec": "#555555", "lw": 0.5},
        )
    axis.set_xlim(min(x, default=0) - 0.6, max(x, default=0) + 0.6)
    axis.set_ylim(-height, 1)
    axis.set_axis_off()
    return png(figure)
