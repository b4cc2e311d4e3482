"""Shapes of tumours, to lay over other brains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, load_image, to_network_grid


def find_shapes(folder: Path, only: slice = slice(None)) -> list[Path]:
    """Label volumes in a folder, by name."""
    found = sorted(Path(folder).glob('*.nii.gz'))[only]
    if not found:
        raise TumorregError(f'{folder}: no label volumes (*.nii.gz) here, or none in this range.')
    return found


def name_of(path: Path) -> str:
    """Name of a label volume: that of its file without the extension."""
    return path.name.removesuffix('.nii.gz')


def read_shape(path: Path, *, spacing: float) -> np.ndarray:
    """Read a tumour label volume (uint8, cropped to the tumour) that lends its shape."""
    labels = to_network_grid(load_image(path), spacing=spacing, order=0).get_fdata()
    if not labels.any():
        raise TumorregError(f'{path}: no tumour in this label volume.')
    return labels[bounding_box(labels > 0)].astype(np.uint8)


def place_shape(
    shape: np.ndarray, brain: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lay a label volume over a brain, flipped at random, on one of some centres (N, 3)."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            shape = np.flip(shape, axis)
    placed = np.zeros(brain.shape, shape.dtype)
    start = centres[rng.integers(len(centres))] - np.array(shape.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + shape.shape, brain.shape)
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    source = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    placed[target] = shape[source]
    placed[~brain] = 0
    return placed


def deep_voxels(brain: np.ndarray) -> np.ndarray:
    """Voxels (N, 3) away from the edge of a brain, where little of a shape would be inside."""
    depth = ndimage.distance_transform_edt(brain)
    return np.argwhere(depth > 0.35 * depth.max())
