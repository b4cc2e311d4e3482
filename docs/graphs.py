"""Draw workflows as SVG, with nothing but Python: no program has to be installed for it.

Nodes lie in rows, each below all that it needs; the order in a row keeps lines short.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import networkx as nx
from nipype.pipeline import engine as pe

ROW, GAP, BOX, LETTER, MARGIN = 72, 26, 30, 8.2, 12  # px
ENDS = ('inputnode', 'outputnode')


def draw_workflow(workflow: pe.Workflow, leave_out: Iterable[str] = ()) -> str:
    """Draw the nodes and workflows directly inside a workflow.

    Parameters
    ----------
    workflow : what to draw.
    leave_out : names of nodes not to draw.

    Returns
    -------
    svg : text of an SVG file.
    """
    inner = {node: node.name for node in workflow._graph if node.name not in set(leave_out)}
    graph = nx.DiGraph()
    graph.add_nodes_from(inner.values())
    graph.add_edges_from(
        (inner[source], inner[target])
        for source, target in workflow._graph.edges
        if source in inner and target in inner
    )
    return draw_graph(graph)


def draw_graph(graph: nx.DiGraph) -> str:
    """Draw a directed graph without cycles whose nodes are names."""
    rows = _rows(graph)
    paths = _add_bends(graph, rows)
    _reorder(rows, paths)
    places, width = _place(rows)

    def point(name, dy: int = 0) -> str:
        x, y = places[name]
        return f'{x:.0f},{y + dy:.0f}'

    lines = []
    for path in paths:
        step = f'M{point(path[0], BOX // 2)}'
        for above, below in zip(path, path[1:]):
            (x0, y0), (x1, y1) = places[above], places[below]
            start, end = y0 + BOX // 2, y1 - BOX // 2
            middle = (start + end) / 2
            step += f' C{x0:.0f},{middle:.0f} {x1:.0f},{middle:.0f} {x1:.0f},{end:.0f}'
            step += f' L{x1:.0f},{y1 + BOX // 2:.0f}' if below != path[-1] else ''
        lines.append(f'<path d="{step}"/>')
    boxes = []
    for name in graph:
        x, y = places[name]
        half = _width(name) / 2
        kind = ' class="end"' if name in ENDS else ''
        boxes.append(
            f'<rect{kind} x="{x - half:.0f}" y="{y - BOX // 2:.0f}" width="{2 * half:.0f}" '
            f'height="{BOX}" rx="5"/><text x="{x:.0f}" y="{y + 5:.0f}">{escape(name)}</text>'
        )
    height = len(rows) * ROW - ROW + BOX + 2 * MARGIN
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}"
 viewBox="0 0 {width:.0f} {height}">
<style>
rect {{ fill: #e8f0f7; stroke: #3b6ea5; }} rect.end {{ fill: #fff; stroke: #999; }}
text {{ font: 13px sans-serif; text-anchor: middle; fill: #222; }}
path {{ fill: none; stroke: #888; stroke-width: 1.3; marker-end: url(#arrow); }}
</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0,0 L8,4 L0,8 z" style="fill: #888; stroke: none; marker-end: none"/>
</marker></defs>
<rect width="100%" height="100%" style="fill: #fff; stroke: none"/>
{chr(10).join(lines)}
{chr(10).join(boxes)}
</svg>
"""


def _width(name) -> float:
    """Width of a box; a bend of a line, which is a tuple, is narrow."""
    return 10 if isinstance(name, tuple) else len(name) * LETTER + 20


def _rows(graph: nx.DiGraph) -> list[list]:
    """Sort nodes into rows; outputnode is the last, inputnode the first."""
    depth = {
        name: row for row, names in enumerate(nx.topological_generations(graph)) for name in names
    }
    if 'outputnode' in depth:
        depth['outputnode'] = max(depth.values())
    return [sorted(n for n in depth if depth[n] == row) for row in range(max(depth.values()) + 1)]


def _add_bends(graph: nx.DiGraph, rows: list[list]) -> list[list]:
    """Give a line that passes rows a place in each of them; every line as a path of places."""
    depth = {name: row for row, names in enumerate(rows) for name in names}
    paths = []
    for source, target in sorted(graph.edges):
        bends = [(source, target, row) for row in range(depth[source] + 1, depth[target])]
        for bend in bends:
            rows[bend[2]].append(bend)
        paths.append([source, *bends, target])
    return paths


def _reorder(rows: list[list], paths: list[list]) -> None:
    """Sort each row by the mean place of its neighbours in the row above, then below."""
    above: dict = {}
    below: dict = {}
    for path in paths:
        for upper, lower in zip(path, path[1:]):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    for _ in range(4):
        for neighbours, order in ((above, rows[1:]), (below, rows[-2::-1])):
            position = {name: _share(row, name) for row in rows for name in row}
            for row in order:
                row.sort(key=lambda name: _mean(neighbours.get(name, [name]), position))
                position.update({name: _share(row, name) for name in row})


def _share(row: list, name) -> float:
    """Where a node lies in its row, 0 to 1."""
    return (row.index(name) + 0.5) / len(row)


def _mean(names: list, position: dict) -> float:
    return sum(position[name] for name in names) / len(names)


def _place(rows: list[list]) -> tuple[dict, float]:
    """Centre every row; returns the middle of each box, and the width of the whole."""
    widths = [sum(map(_width, row)) + GAP * (len(row) - 1) for row in rows]
    total = max(widths) + 2 * MARGIN
    places = {}
    for number, (row, width) in enumerate(zip(rows, widths)):
        x = (total - width) / 2
        for name in row:
            places[name] = x + _width(name) / 2, MARGIN + BOX // 2 + number * ROW
            x += _width(name) + GAP
    return places, total
