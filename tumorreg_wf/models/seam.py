"""Joining a filled hole to what surrounds it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

#: How far the error at the edge of a hole tells about the error inside, mm.
REACH = 8.0

#: Width of the smoothing, before and after the error is carried inwards, voxels.
SMOOTHING = (0.5, 1.0)


def close_seam(
    output: np.ndarray, image: np.ndarray, known: np.ndarray, *, spacing: float
) -> np.ndarray:
    """Correct a network's output in a hole by its error at the hole's edge.

    The network speaks about known voxels too, and there its error can be seen. The error at the
    nearest known voxel is taken off, less and less with the distance from it.

    Parameters
    ----------
    output : (X, Y, Z), what the network says, defined everywhere.
    image : (X, Y, Z), what is there where it is known.
    known : boolean (X, Y, Z), not empty.
    spacing : voxel edge, mm.

    Returns
    -------
    output : float32 (X, Y, Z), corrected where not known.
    """
    first, second = SMOOTHING
    weight = ndimage.gaussian_filter(known.astype(np.float32), first)
    error = np.where(known, image - output, 0).astype(np.float32)
    error = ndimage.gaussian_filter(error, first) / np.maximum(weight, 1e-3)
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    carried = ndimage.gaussian_filter(error[tuple(nearest)], second)
    carried *= np.exp(-distance * spacing / REACH)
    return np.where(known, output, output + carried).astype(np.float32)
