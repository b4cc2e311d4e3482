"""Volumes in colour: arrays in, uint8 arrays out, grey (X, Y, Z) or RGB (X, Y, Z, 3)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: Colours of the tissues, by BIDS index.
TISSUES = {
    1: ('GM', (230, 159, 0)),
    2: ('WM', (86, 180, 233)),
    3: ('CSF', (0, 158, 115)),
    7: ('Lesion', (213, 60, 120)),
}
SIGNED = ((118, 42, 131), (247, 247, 247), (27, 120, 55))
EDGES = (0, 230, 255)
SHARES = ((200, 30, 30), (255, 130, 0), (255, 240, 120))


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
    stops = (-limit, 0, limit)
    colour = np.stack([np.interp(values, stops, channel) for channel in np.array(SIGNED).T], -1)
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
    edges : boolean array (3, X, Y, Z): lines one voxel thick in the slices that cut each axis,
        also where the border runs along the slice.
    """
    sigma = 1 / np.asarray(spacing)
    bright = ndimage.gaussian_laplace(data, sigma) < 0
    cross = ndimage.generate_binary_structure(2, 1)
    crossing = np.stack(
        [
            bright & ~ndimage.binary_erosion(bright, np.expand_dims(cross, axis))
            for axis in range(3)
        ]
    )
    gradient = ndimage.gaussian_gradient_magnitude(data, sigma)
    strong = gradient > np.percentile(gradient[brain], 60) if brain.any() else False
    return crossing & strong & ndimage.binary_dilation(brain)
