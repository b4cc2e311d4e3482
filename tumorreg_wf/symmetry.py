"""A brain's own mid-sagittal plane: mirrored about it, or upright with it in the middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize

#: The plane is fitted on every n-th voxel.
STEP = 4

#: Largest tilt of the plane against the grid, radians.
LARGEST_TILT = 0.35


def fit_mirror(volume: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fit the plane about which a brain is most like its mirror image.

    Parameters
    ----------
    volume : (X, Y, Z), axis 0 from left to right, cubic voxels; 0 outside the brain.
    known : boolean (X, Y, Z), voxels of normal brain.

    Returns
    -------
    matrix : (4, 4), maps voxel coordinates to those of their mirror image; its own inverse.
    """
    smooth = ndimage.gaussian_filter(volume * known, STEP / 2)[::STEP, ::STEP, ::STEP]
    weight = ndimage.gaussian_filter(known.astype(np.float32), STEP / 2)[::STEP, ::STEP, ::STEP]
    centre = np.argwhere(known).mean(0) if known.any() else np.array(volume.shape) / 2
    points = np.argwhere(weight > 0.5) * STEP
    values = smooth[tuple((points // STEP).T)]

    def difference(parameters: np.ndarray) -> float:
        if np.abs(parameters[:2]).max() > LARGEST_TILT:
            return 1.0
        matrix = _reflection(parameters, centre)
        mirrored = (points @ matrix[:3, :3].T + matrix[:3, 3]) / STEP
        found = ndimage.map_coordinates(weight, mirrored.T, order=1) > 0.5
        if found.sum() < 0.3 * len(points):
            return 1.0
        other = ndimage.map_coordinates(smooth, mirrored[found].T, order=1)
        # tissue that falls outside its mirror image counts against the plane
        return 1 - float(np.corrcoef(values[found], other)[0, 1]) * found.mean()

    if len(points) < 10 or np.ptp(values) == 0:
        return _reflection(np.zeros(3), centre)
    fit = minimize(difference, np.zeros(3), method='Powell', options={'xtol': 1e-3, 'ftol': 1e-4})
    return _reflection(fit.x, centre)


def _reflection(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Reflect about the plane with two tilts (radians) and a shift (in tens of voxels)."""
    yaw, roll, shift = parameters
    normal = np.array([np.cos(yaw) * np.cos(roll), np.sin(yaw), np.cos(yaw) * np.sin(roll)])
    matrix = np.eye(4)
    matrix[:3, :3] -= 2 * np.outer(normal, normal)
    matrix[:3, 3] = 2 * (centre @ normal + 10 * shift) * normal
    return matrix


def upright(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Turn and shift a brain so that its mid-sagittal plane is upright and in the middle.

    Parameters
    ----------
    volume, brain : as ``volume`` and ``known`` of :func:`fit_mirror`, a tumour and all; not
        empty.

    Returns
    -------
    matrix : (4, 4), maps voxels counted from the brain's middle to voxels of the volume.
    """
    reflection = fit_mirror(volume, brain)
    values, axes = np.linalg.eigh(reflection[:3, :3])
    normal = axes[:, 0] * np.sign(axes[0, 0])  # of the eigenvalue -1
    along = np.cross([1.0, 0, 0], normal)  # the least turn that brings axis 0 to the normal
    cross = np.cross(np.eye(3), along)
    turn = np.eye(3) + cross + cross @ cross / (1 + normal[0])
    turned = np.argwhere(brain) @ turn
    middle = turn @ ((turned.min(0) + turned.max(0)) / 2)
    middle = (middle + reflection[:3, :3] @ middle + reflection[:3, 3]) / 2  # onto the plane
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, middle
    return matrix


def from_corner(size: Sequence[int]) -> np.ndarray:
    """Map (4, 4) from the voxels of a grid to voxels counted from its middle."""
    matrix = np.eye(4)
    matrix[:3, 3] = (1 - np.array(size)) / 2
    return matrix


def transform(volume: np.ndarray, matrix: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Read a volume (X, Y, Z), linearly, where a matrix maps the voxels of a grid of some size.

    Beyond the volume it is 0.
    """
    return ndimage.affine_transform(volume, matrix[:3, :3], matrix[:3, 3], tuple(size), order=1)


def mirror(volume: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Mirror a volume (X, Y, Z) by a matrix of :func:`fit_mirror`; 0 beyond the grid."""
    return transform(volume, matrix, volume.shape)
