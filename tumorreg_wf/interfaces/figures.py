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
from nibabel.affines import apply_affine
from PIL import Image
from scipy import ndimage

WIDTH = 1560  # of a figure, px
HEADER = 40  # px, holds the legend

#: Planes from top to bottom: the axis cut, its name, what lies at the viewer's left and right.
PLANES = ((2, 'z', 'LR'), (1, 'y', 'LR'), (0, 'x', 'PA'))

#: Colours of the tissues, by BIDS index.
TISSUES = {
    1: ('GM', (230, 159, 0)),
    2: ('WM', (86, 180, 233)),
    3: ('CSF', (0, 158, 115)),
    7: ('Lesion', (213, 60, 120)),
}
TUMOR, DILATED = '#ff4d4d', '#ffe14d'
NEGATIVE, ZERO, POSITIVE = (118, 42, 131), (247, 247, 247), (27, 120, 55)
EDGES = (0, 230, 255)
SHARES = ((200, 30, 30), (255, 130, 0), (255, 240, 120))


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
    wanted = np.searchsorted(mass, np.linspace(0.05, 0.95, n_slices) * mass[-1])
    nearest = sorted(range(len(mass)), key=lambda index: np.abs(wanted - index).min())
    return sorted(nearest[:n_slices])


def find_range(data: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Find the intensities shown: 1st to 99.5th percentile within the mask, all if it is empty."""
    low, high = np.percentile(data[mask] if mask.any() else data, (1, 99.5))
    return float(low), float(high)


def to_grey(data: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Scale intensities to uint8, black at the lower limit and white at the upper."""
    low, high = limits
    return (np.clip((data - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def blend(grey: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay colours (X, Y, Z, 3) over a grey image with an opacity (X, Y, Z); uint8 RGB."""
    alpha = alpha[..., None]
    return (grey[..., None] * (1 - alpha) + colour * alpha).astype(np.uint8)


def colour_tissues(grey: np.ndarray, dseg: np.ndarray) -> np.ndarray:
    """Lay the colours of a tissue segmentation (BIDS indices) over a grey image."""
    palette = np.zeros((max(TISSUES) + 1, 3), np.float32)
    for index, (_, colour) in TISSUES.items():
        palette[index] = colour
    known = np.isin(dseg, list(TISSUES))
    return blend(grey, palette[np.where(known, dseg, 0).astype(int)], 0.5 * known)


def colour_signed(grey: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """Lay signed values over a grey image: purple at ``-limit``, green at ``limit``, none at 0."""
    stops = np.array([NEGATIVE, ZERO, POSITIVE], np.float32)
    colour = np.stack([np.interp(values, (-limit, 0, limit), channel) for channel in stops.T], -1)
    return blend(grey, colour, 0.75 * np.clip(np.abs(values) / limit, 0, 1))


def colour_shares(grey: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """Lay positive values over a grey image: red near 0, yellow at ``limit``, none at 0."""
    stops = np.linspace(0, limit, len(SHARES))
    colour = np.stack([np.interp(values, stops, channel) for channel in np.array(SHARES).T], -1)
    return blend(grey, colour, 0.75 * (values > 0))


def find_edges(data: np.ndarray, brain: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Find the borders of tissues: zero crossings of the Laplacian where the gradient is strong.

    Parameters
    ----------
    data : array (X, Y, Z), any intensities.
    brain : boolean array; edges are sought here.
    spacing : voxel size, mm.

    Returns
    -------
    edges : boolean array, one voxel thick.
    """
    sigma = 1 / np.asarray(spacing)
    bright = ndimage.gaussian_laplace(data, sigma) < 0
    crossing = bright & ~ndimage.binary_erosion(bright)
    gradient = ndimage.gaussian_gradient_magnitude(data, sigma)
    strong = gradient > np.percentile(gradient[brain], 60) if brain.any() else False
    return crossing & strong & ndimage.binary_dilation(brain)


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
    n_slices : slices per plane.
    """

    def __init__(self, focus: np.ndarray, affine: np.ndarray, n_slices: int = 6) -> None:
        extent = np.array(focus.shape) * np.sqrt((affine[:3, :3] ** 2).sum(0))
        cell = WIDTH // n_slices
        px_per_mm = (cell - 8) / max(extent[:2])
        size = np.maximum(np.round(extent * px_per_mm), 1).astype(int)
        self.panels = []
        top = HEADER
        for axis, name, sides in PLANES:
            across, up = (other for other in range(3) if other != axis)
            for column, index in enumerate(choose_slices(focus, axis, n_slices)):
                middle = (np.array(focus.shape) - 1) / 2
                middle[axis] = index
                place = apply_affine(affine, middle)[axis]
                left = column * cell + (cell - size[across]) // 2
                position = f'{name} = {place:.0f} mm'
                self.panels.append(
                    Panel(axis, index, left, top, size[across], size[up], position, sides)
                )
            top += size[up] + 36
        self.height = top

    def raster(self, volume: np.ndarray) -> str:
        """Draw a volume (uint8, grey or RGB) as an SVG image element."""
        sheet = Image.new('L' if volume.ndim == 3 else 'RGB', (WIDTH, self.height - HEADER))
        for panel in self.panels:
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
            scale = np.divide((panel.width, panel.height), np.subtract(outside.shape[::-1], 2))
            for line in contourpy.contour_generator(z=outside).lines(0.5):
                points = (np.asarray(line) - 0.5) * scale + (panel.left, panel.top)
                steps.append('M' + ' '.join(f'{x:.1f},{y:.1f}' for x, y in points) + 'Z')
        return f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'

    def captions(self) -> str:
        """Write sides and positions below the slices."""
        text = []
        for panel in self.panels:
            bottom, right = panel.top + panel.height + 20, panel.left + panel.width
            middle = (panel.left + right) / 2
            for x, anchor, words in (
                (panel.left, 'start', panel.sides[0]),
                (middle, 'middle', panel.position),
                (right, 'end', panel.sides[1]),
            ):
                text.append(f'<text x="{x}" y="{bottom}" text-anchor="{anchor}">{words}</text>')
        return '\n'.join(text)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Write what colours mean: a row of (colour or ``url(#...)``, text) pairs."""
    parts, left = [], 12
    for colour, text in entries:
        width = 160 if colour.startswith('url') else 22
        parts.append(f'<rect x="{left}" y="13" width="{width}" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 8}" y="25">{escape(text)}</text>')
        left += width + 40 + 9 * len(text)
    return '\n'.join(parts)


def compose(mosaic: Mosaic, title: str, layers: Sequence[tuple[str, str]], *above: str) -> str:
    """Compose a figure of one layer, or of two that alternate under the pointer.

    Parameters
    ----------
    mosaic : the layout all parts were drawn with.
    title : said by screen readers.
    layers : (name, SVG element) of the lower and, where there are two, the upper layer.
    above : SVG elements drawn on top: contours, legend.

    Returns
    -------
    svg : text of a file that needs no other file.
    """
    groups = '\n'.join(
        f'<g class="layer{number}">{element}'
        f'<rect x="{WIDTH - 300}" width="300" height="{HEADER}" fill="black"/>'
        f'<text x="{WIDTH - 12}" y="25" text-anchor="end">{escape(name)}</text></g>'
        for number, (name, element) in enumerate(layers)
    )
    title = escape(title)
    box = f'viewBox="0 0 {WIDTH} {mosaic.height}"'
    # the root element has a line of its own: nireports edits that line
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{title}">
<title>{title}</title>
<style>
text {{ fill: #ddd; font: 17px sans-serif; }}
@keyframes blink {{ 0%, 30% {{ opacity: 1; }} 60%, 100% {{ opacity: 0; }} }}
svg:hover .layer1 {{ animation: blink 1s ease-in-out infinite alternate; }}
</style>
<defs><linearGradient id="signed">
<stop offset="0" stop-color="rgb{NEGATIVE}"/><stop offset="0.5" stop-color="rgb{ZERO}"/>
<stop offset="1" stop-color="rgb{POSITIVE}"/></linearGradient></defs>
<rect width="100%" height="100%" fill="black"/>
{groups}
{mosaic.captions()}
{chr(10).join(above)}
</svg>
"""
