"""Slices of the brain in three planes, drawn as small SVG files: arrays in, text out.

All arrays lie on one grid with axes R, A, S. The patient's left is at the viewer's left.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import contourpy
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from PIL import Image

WIDTH = 1560  # of a figure, px
HEADER = 48  # px, holds the legend
LINE = 22  # px, size of letters: readable where a phone shows a figure at half its width

#: Planes from top to bottom: the axis cut, its name, what lies at the viewer's left and right.
PLANES = ((2, 'z', 'LR'), (1, 'y', 'LR'), (0, 'x', 'PA'))

#: Distance between the lines of a warped grid, mm.
GRID_STEP = 8

TUMOR, DILATED, GRID, BRAIN = '#ff4d4d', '#ffe14d', '#2f6bff', '#4dd2ff'


def choose_slices(focus: np.ndarray, axis: int, n_slices: int) -> list[int]:
    """Pick slices that cut through a mask, spread evenly over its volume.

    Parameters
    ----------
    focus : boolean array (X, Y, Z), not empty.
    axis : the axis cut.
    n_slices : number of slices; where the mask has fewer, its neighbours fill up.

    Returns
    -------
    slices : ``n_slices`` ascending indices (fewer only where the image has fewer).
    """
    mass = np.cumsum(focus.sum(axis=tuple({0, 1, 2} - {axis})))
    parts = np.linspace(0.05, 0.95, n_slices) if n_slices > 1 else np.array([0.5])
    wanted = np.searchsorted(mass, parts * mass[-1])
    nearest = sorted(range(len(mass)), key=lambda index: np.abs(wanted - index).min())
    return sorted(nearest[:n_slices])


class Panel(NamedTuple):
    """One slice, and where it is drawn (px)."""

    axis: int
    number: int
    left: int
    top: int
    width: int
    height: int
    position: str
    sides: str

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut the slice out of a volume, rows from top to bottom."""
        return np.rot90(volume.take(self.number, self.axis))


class Mosaic:
    """A layout of slices: a row of axial, one of coronal, one of sagittal slices.

    Parameters
    ----------
    focus : boolean array (X, Y, Z); slices cut through it.
    affine : affine of the grid, axes R, A, S, mm.
    n_slices : slices per plane; where it is 1, the three lie side by side.
    """

    def __init__(self, focus: np.ndarray, affine: np.ndarray, n_slices: int) -> None:
        extent = np.array(focus.shape) * voxel_sizes(affine)
        columns = n_slices if n_slices > 1 else len(PLANES)
        cell = WIDTH // columns
        px_per_mm = (cell - 8) / max(extent[:2])
        size = np.maximum(np.round(extent * px_per_mm), 1).astype(int)
        middle = (np.array(focus.shape) - 1) / 2
        slices = [
            [(plane, index) for index in choose_slices(focus, plane[0], n_slices)]
            for plane in PLANES
        ]
        rows = slices if n_slices > 1 else [[row[0] for row in slices]]
        self.panels: list[Panel] = []
        self.height = HEADER
        for row in rows:
            top = self.height
            for column, ((axis, name, sides), index) in enumerate(row):
                across, up = (other for other in range(3) if other != axis)
                place = apply_affine(affine, np.where(np.arange(3) == axis, index, middle))[axis]
                left = column * cell + (cell - size[across]) // 2
                position = f'{name} = {place:.0f} mm'
                self.panels.append(
                    Panel(axis, index, left, top, size[across], size[up], position, sides)
                )
                self.height = max(self.height, top + size[up] + LINE + 18)

    def raster(self, *volumes: np.ndarray) -> str:
        """Draw a volume (uint8, grey or RGB), or one per axis cut, as an SVG image element."""
        mode = 'L' if volumes[0].ndim == 3 else 'RGB'
        sheet = Image.new(mode, (WIDTH, self.height - HEADER))
        for panel in self.panels:
            volume = volumes[panel.axis % len(volumes)]
            slice_ = Image.fromarray(np.ascontiguousarray(panel.cut(volume)))
            slice_ = slice_.resize((panel.width, panel.height), Image.Resampling.BICUBIC)
            sheet.paste(slice_, (panel.left, panel.top - HEADER))
        buffer = io.BytesIO()
        sheet.save(buffer, 'JPEG', quality=85, subsampling=0)
        data = base64.b64encode(buffer.getvalue()).decode()
        return (
            f'<image y="{HEADER}" width="{sheet.width}" height="{sheet.height}" '
            f'href="data:image/jpeg;base64,{data}"/>'
        )

    def contour(self, mask: np.ndarray, colour: str) -> str:
        """Draw the outline of a mask as an SVG path."""
        steps = []
        for panel in self.panels:
            outside = np.pad(panel.cut(mask), 1).astype(np.float32)
            steps += [f'{line}Z' for line in _trace(panel, outside, [0.5], padding=1)]
        return _path(steps, colour, 2)

    def grid(self, places: np.ndarray, brain: np.ndarray) -> str:
        """Draw the grid of another space, as it comes to lie here, as an SVG path.

        Parameters
        ----------
        places : array (X, Y, Z, 3), coordinates in the other space, mm.
        brain : boolean array (X, Y, Z); lines are drawn here.
        """
        steps = []
        for panel in self.panels:
            hidden = ~panel.cut(brain)
            for axis in {0, 1, 2} - {panel.axis}:
                values = panel.cut(places[..., axis])
                first, last = np.floor(np.array([values.min(), values.max()]) / GRID_STEP)
                levels = np.arange(first, last + 1) * GRID_STEP
                steps += _trace(panel, np.ma.array(values, mask=hidden), levels)
        return _path(steps, GRID, 1.5)

    def captions(self) -> str:
        """Write sides and positions below the slices."""
        text = []
        for panel in self.panels:
            bottom, right = panel.top + panel.height + LINE, panel.left + panel.width
            middle = (panel.left + right) / 2
            for x, anchor, words in (
                (panel.left, 'start', panel.sides[0]),
                (middle, 'middle', panel.position),
                (right, 'end', panel.sides[1]),
            ):
                text.append(f'<text x="{x}" y="{bottom}" text-anchor="{anchor}">{words}</text>')
        return '\n'.join(text)


def _trace(
    panel: Panel, values: np.ndarray, levels: Sequence[float] | np.ndarray, padding: int = 0
) -> list[str]:
    """Draw lines of equal value in a slice, padded on all sides, as steps of an SVG path."""
    inner = np.subtract(values.shape[::-1], 2 * padding)
    scale = np.divide((panel.width, panel.height), inner)
    generator = contourpy.contour_generator(z=values)
    lines = []
    for level in levels:
        for line in generator.lines(level):
            points = (np.asarray(line) - padding + 0.5) * scale + (panel.left, panel.top)
            lines.append('M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in points))
    return lines


def _path(steps: Sequence[str], colour: str, width: float) -> str:
    d = ''.join(steps)
    return f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


#: What a colour means: one CSS colour, or the colours (RGB) of a scale; and words for it.
Key = tuple[str | Sequence[tuple[int, int, int]], str]


class Layer(NamedTuple):
    """A picture that is shown by itself, or in turns with others."""

    name: str
    drawing: str
    keys: Sequence[Key] = ()


def legend(entries: Sequence[Key], left: float = 12) -> tuple[str, float]:
    """Write what colours mean; give also where the next entry would stand (px)."""
    parts = []
    for colour, text in entries:
        if isinstance(colour, str):
            steps, step = [colour], LINE
        else:
            places = np.linspace(0, len(colour) - 1, 21)
            channels = [np.interp(places, range(len(colour)), c) for c in np.array(colour).T]
            steps = [f'rgb({r:.0f},{g:.0f},{b:.0f})' for r, g, b in zip(*channels, strict=True)]
            step = 7
        for number, fill in enumerate(steps):
            place = f'x="{left + number * step:g}" y="14" width="{step}" height="16"'
            parts.append(f'<rect {place} fill="{fill}"/>')
        left += len(steps) * step + 8
        parts.append(f'<text x="{left:g}" y="29">{escape(text)}</text>')
        left += 24 + 0.5 * LINE * len(text)
    return '\n'.join(parts), left


def compose(
    mosaic: Mosaic,
    title: str,
    layers: Sequence[Layer],
    outlines: Sequence[str] = (),
    keys: Sequence[Key] = (),
) -> str:
    """Compose a figure of one layer, or of several of which a page shows one at a time.

    Parameters
    ----------
    mosaic : the layout all parts were drawn with.
    title : said by screen readers.
    layers : from the lowest to the highest, which is seen where no page chooses.
    outlines : SVG elements drawn above every layer.
    keys : what the colours of the outlines mean.

    Returns
    -------
    svg : text of a file that needs no other file; it has no ids, so that a page may hold many.
    """
    words, left = legend(keys)
    groups = '\n'.join(
        f'<g class="layer{number}" data-name="{escape(layer.name)}">{layer.drawing}'
        f'<rect x="{left}" width="{WIDTH - left}" height="{HEADER}" fill="black"/>'
        f'{legend(layer.keys, left)[0]}'
        f'<text x="{WIDTH - 12}" y="29" text-anchor="end">{escape(layer.name)}</text></g>'
        for number, layer in enumerate(layers)
    )
    places = ', '.join(panel.position for panel in mosaic.panels)
    label = escape(f'{title}. Slices at {places}.')
    attributes = (
        f'viewBox="0 0 {WIDTH} {mosaic.height}" role="img" aria-label="{label}" '
        f'fill="#ddd" font-size="{LINE}" font-family="sans-serif"'
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {attributes}>
<rect width="100%" height="100%" fill="black"/>
{words}
{groups}
{mosaic.captions()}
<g class="outlines">{''.join(outlines)}</g>
</svg>
"""
