"""Smooth random fields and displacements on a voxel grid.

A displacement is an array (X, Y, Z, 3) in mm along the voxel axes, read backwards:
``warped(x) = image(x + displacement(x))``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import bounding_box

#: Voxel size in mm along the three axes.
Spacing = Sequence[float] | np.ndarray


def random_field(
    shape: Sequence[int], spacing: Spacing, scale: float, rng: np.random.Generator
) -> np.ndarray:
    """Smooth noise, float32, with zero mean, unit variance and details of ``scale`` mm."""
    spacing = np.asarray(spacing, float)
    step = coarse_steps(spacing, scale / 2)
    coarse_shape = [-(-n // s) + 1 for n, s in zip(shape, step, strict=True)]
    coarse = rng.standard_normal(coarse_shape, np.float32)
    coarse = ndimage.gaussian_filter(coarse, scale / (spacing * step), mode='wrap')
    return refine((coarse - coarse.mean()) / coarse.std(), step, shape)


def random_deformation(
    shape: Sequence[int], spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """Displacement, float32, that turns one healthy brain into another.

    A few per cent of scaling and degrees of rotation about the centre of the grid, a shift of a
    few mm, and a smooth random field of 2.5 mm.
    """
    x, y, z = np.deg2rad(rng.uniform(-5, 5, 3))
    turn = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = turn + np.diag(rng.uniform(-0.06, 0.06, 3))
    shift = rng.uniform(-4, 4, 3)
    axes = [(np.arange(n) - n / 2) * d for n, d in zip(shape, spacing, strict=True)]
    position = np.meshgrid(*axes, indexing='ij', sparse=True)
    components = [
        sum(m * p for m, p in zip(row, position, strict=True))
        + offset
        + 2.5 * random_field(shape, spacing, 25.0, rng)
        for row, offset in zip(matrix, shift, strict=True)
    ]
    return np.stack(components, axis=-1).astype(np.float32)


def warp(
    image: np.ndarray,
    displacement: np.ndarray,
    spacing: Spacing,
    mask: np.ndarray,
    *,
    order: int,
) -> np.ndarray:
    """Read a non-negative image at ``x + displacement(x)`` for every x in a mask; 0 elsewhere.

    Parameters
    ----------
    image
        Array (X, Y, Z).
    displacement
        (X, Y, Z, 3), mm along the voxel axes.
    spacing
        Voxel size in mm.
    mask
        Boolean (X, Y, Z).
    order
        Spline order; 0 keeps labels labels, and the dtype.

    Returns
    -------
    numpy.ndarray
        float32, or the dtype of ``image`` if ``order`` is 0.
    """
    points = np.stack(np.nonzero(mask)) + displacement[mask].T / np.reshape(spacing, (3, 1))
    image = image if order == 0 else image.astype(np.float32)
    warped = np.zeros_like(image)
    values = ndimage.map_coordinates(image, points, order=order, mode='nearest')
    warped[mask] = np.maximum(values, 0)
    return warped


def jacobian(displacement: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Jacobian determinant (X, Y, Z) of ``x + displacement(x)``; above 0 nothing folds."""
    gradients = [np.gradient(displacement[..., i], *spacing) for i in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = gradients
    a, e, i = a + 1, e + 1, i + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def coarse_steps(spacing: np.ndarray, size: float) -> np.ndarray:
    """How many voxels along each axis make up at most ``size`` mm, at least one."""
    return np.maximum(1, np.floor(size / spacing)).astype(int)


def coarsen(array: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Every ``step``-th voxel of an array."""
    return array[tuple(slice(None, None, s) for s in step)]


def refine(coarse: np.ndarray, step: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear interpolation, float32, of what holds every ``step``-th voxel of ``shape``."""
    fine = coarse.astype(np.float32)
    for axis in range(3):
        if step[axis] > 1:
            fine = interpolate(fine, np.arange(shape[axis]) / step[axis], axis)
    return fine[tuple(slice(n) for n in shape)]


def interpolate(image: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation of an image at positions (voxels, from 0 up) along one axis."""
    last = image.shape[axis] - 1
    low = np.minimum(positions.astype(int), last)
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = np.minimum(positions - low, 1).astype(np.float32).reshape(shape)
    fine = image.take(low, axis)
    fine += weight * (image.take(np.minimum(low + 1, last), axis) - fine)
    return fine


def depth_inside(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Distance (float32, mm) of what is in a mask to what is not; 0 there."""
    depth = np.zeros(mask.shape, np.float32)
    if mask.any():
        box = bounding_box(mask, margin=1)
        depth[box] = ndimage.distance_transform_edt(mask[box], spacing)
    return depth


def distance(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """About the distance (float32, mm) of what is in a mask to what is not, seen at 2 mm."""
    spacing = np.asarray(spacing, float)
    step = coarse_steps(spacing, 2.0)
    depth = ndimage.distance_transform_edt(coarsen(mask, step), spacing * step)
    return refine(depth, step, mask.shape)


def uncrop(array: np.ndarray, box: tuple[slice, ...], shape: Sequence[int]) -> np.ndarray:
    """Put an array (X, Y, Z, ...) back where a box was cut out of a grid; 0 around it."""
    whole = np.zeros((*shape, *array.shape[3:]), array.dtype)
    whole[box] = array
    return whole
