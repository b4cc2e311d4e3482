"""Tissues of a brain: a T1w in, maps of grey matter, white matter and CSF out."""

from __future__ import annotations

from itertools import product

import nibabel as nb
import numpy as np
import torch
from torch import nn

from tumorreg_wf.images import bounding_box, resample, to_network_grid
from tumorreg_wf.models.unet3d import look_both_ways
from tumorreg_wf.tissues import fit_grey_values

#: The grey value of the brain at this percentile, about that of white matter, becomes 1 ...
WHITE = 95.0

#: ... and none becomes larger than this.
BRIGHTEST = 3.0

#: Cubes overlap by this at least, voxels.
OVERLAP = 16


def scale_intensity(data: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Bring grey values to those of a brain whose white matter is about 1 (float32, from 0).

    Parameters
    ----------
    data : (X, Y, Z).
    brain : boolean (X, Y, Z), what decides; not empty.
    """
    white = max(float(np.percentile(data[brain], WHITE)), 1e-6)
    return np.clip(data / white, 0, BRIGHTEST).astype(np.float32)


def find_tissues(
    network: nn.Module,
    t1w: nb.Nifti1Image,
    brain: nb.Nifti1Image,
    hole: nb.Nifti1Image | None = None,
    *,
    spacing: float = 1.0,
    device: str = 'cpu',
) -> np.ndarray:
    """Tell the tissues of a brain apart.

    The network sees overlapping cubes of the size of its training, each as it is and mirrored;
    where several see a voxel, the one in whose middle it lies counts most. What it finds, and the
    grey values of the brain, a network that can, a
    :class:`tumorreg_wf.models.unet3d.RefinedTissueUNet`, weighs against each other; of another it
    is the mean.

    Parameters
    ----------
    network : maps images (N, 1, S, S, S), S its ``size``, to logits (N, 3, S, S, S) of GM, WM and
        CSF.
    t1w : image without bias field, of any orientation, voxel size and intensity scale; the tumour
        replaced, or left in where its tissue does not matter.
    brain : brain mask on the same grid; what is outside is not looked at.
    hole : mask of the dilated tumour on the same grid, whose grey values say nothing of tissues.
    spacing : voxel edge the network was trained at, mm.
    device : torch device.

    Returns
    -------
    maps : float32 (3, X, Y, Z) on the grid of ``t1w``; sum to 1 in the brain, 0 elsewhere.
    """
    inside = np.asanyarray(brain.dataobj) > 0
    maps = np.zeros((3, *inside.shape), np.float32)
    if not inside.any():
        return maps
    data = np.where(inside, t1w.get_fdata(dtype=np.float32), 0)
    values = nb.Nifti1Image(scale_intensity(data, inside), t1w.affine)
    grid = to_network_grid(values, spacing=spacing)
    seen = grid.get_fdata(dtype=np.float32)
    x, y, z = bounding_box(seen > 0, margin=2) if seen.any() else (slice(None),) * 3
    known = seen > 0
    if hole is not None:
        known &= to_network_grid(hole, spacing=spacing).get_fdata(dtype=np.float32) < 0.01
    found = np.zeros((3, *seen.shape), np.float32)
    found[:, x, y, z] = _look(network, seen[x, y, z], known[x, y, z], device)
    for one, total in zip(found, maps, strict=True):
        native = resample(nb.Nifti1Image(one, grid.affine), t1w, order=1)
        total[:] = np.clip(native.get_fdata(dtype=np.float32), 0, 1) * inside
    maps[:, inside & (maps.sum(0) < 0.05)] = 1  # a rim that resampling lost: any tissue
    return maps / np.where(inside, maps.sum(0), 1)


@torch.inference_mode()
def _look(network: nn.Module, volume: np.ndarray, known: np.ndarray, device: str) -> np.ndarray:
    """Probabilities (3, X, Y, Z) by the network, and by grey values where those are known."""
    maps = _run(getattr(network, 'unet', network), volume, device)
    found = fit_grey_values(volume, known, maps)
    if found is None:
        return maps
    if hasattr(network, 'refine'):
        logits = network.refine(volume, maps, found)
        both = torch.softmax(logits, 0).cpu().numpy()
    else:
        both = (maps + found.maps) / 2
    return np.where(known, both, maps)


def _run(network: nn.Module, volume: np.ndarray, device: str) -> np.ndarray:
    """Probabilities (3, X, Y, Z) in a volume (X, Y, Z)."""
    size = network.size
    padded = np.pad(volume, [(0, max(size - length, 0)) for length in volume.shape])
    ramp = np.bartlett(size + 2)[1:-1].astype(np.float32)
    weight = ramp[:, None, None] * ramp[:, None] * ramp
    total = np.zeros((3, *padded.shape), np.float32)
    weights = np.zeros(padded.shape, np.float32)
    for corner in product(*(_starts(length, size) for length in padded.shape)):
        x, y, z = (slice(start, start + size) for start in corner)
        cube = torch.from_numpy(padded[x, y, z].copy())[None, None].to(device)
        if cube.any():
            found = look_both_ways(network, cube)[0].cpu().numpy()
            total[:, x, y, z] += weight * found
            weights[x, y, z] += weight
    total /= np.where(weights > 0, weights, 1)
    x, y, z = (slice(length) for length in volume.shape)
    return total[:, x, y, z]


def _starts(length: int, size: int) -> list[int]:
    """Where cubes begin along an axis: evenly, from end to end."""
    count = 1 + max(0, -(-(length - size) // (size - OVERLAP)))
    return np.linspace(0, length - size, count).round().astype(int).tolist()
