"""Holes of the shapes of tumours in healthy brains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np

from tumorreg_wf.defaults import DILATION
from tumorreg_wf.images import bounding_box, dilate_mask, to_network_grid
from tumorreg_wf.intensity import stripped_brain_mask
from tumorreg_wf.shapes import deep_voxels, place_shape, read_shape

#: The grid of BraTS images: voxels of 1 mm.
GRID = (240, 240, 155)


def on_brats_grid(image: nb.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Bring a stripped T1w to 240x240x155 voxels of 1 mm, the brain in the middle.

    Of a taller brain the bottom is cut.

    Returns
    -------
    t1w : float32 (240, 240, 155), axes R, A, S; 0 outside the brain.
    brain : boolean, the same shape.
    """
    native = stripped_brain_mask(np.asanyarray(image.dataobj))
    mask = to_network_grid(nb.Nifti1Image(native.astype(np.float32), image.affine))
    brain = mask.get_fdata(dtype=np.float32) >= 0.5
    data = to_network_grid(image).get_fdata(dtype=np.float32) * brain
    box = bounding_box(brain)
    start = [(axis.start + axis.stop - size) // 2 for axis, size in zip(box, GRID, strict=True)]
    start[2] = max(start[2], box[2].stop - GRID[2])
    out = [np.zeros(GRID, data.dtype), np.zeros(GRID, bool)]
    source = tuple(
        slice(max(low, 0), min(low + size, length))
        for low, size, length in zip(start, GRID, brain.shape, strict=True)
    )
    target = tuple(
        slice(axis.start - low, axis.stop - low) for axis, low in zip(source, start, strict=True)
    )
    for array, full in zip((data, brain), out, strict=True):
        full[target] = array[source]
    return out[0], out[1]


class Hole(NamedTuple):
    """A hole (boolean, X, Y, Z), where its shape is from, and its volume, ml."""

    number: int
    shape: str
    scale: float
    mask: np.ndarray

    @property
    def volume(self) -> float:
        """Volume on the BraTS grid, ml."""
        return float(self.mask.sum() / 1000)


def make_holes(
    brain: np.ndarray, shapes: Sequence[Path], scales: Sequence[float], rng: np.random.Generator
) -> Iterator[Hole]:
    """Lay shapes over a brain (voxels of 1 mm), one for each scale, and dilate them by 3 mm."""
    centres = deep_voxels(brain)
    for number, scale in enumerate(scales, 1):
        path = shapes[int(rng.integers(len(shapes)))]
        # read in larger voxels and taken for voxels of 1 mm, a shape is smaller
        shape = read_shape(path, spacing=1 / scale)
        placed = np.zeros(brain.shape, bool)
        while not placed.any():  # a hollow shape may fall around the brain
            placed = place_shape(shape, brain, centres, rng) > 0
        mask = dilate_mask(placed, np.ones(3), DILATION) & brain
        yield Hole(number, path.name.removesuffix('.nii.gz'), scale, mask)
