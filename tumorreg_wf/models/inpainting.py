"""Recovering normal tissue: an image with a hole in, the same image filled out."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import torch
from torch import nn

from tumorreg_wf.images import bounding_box, resample, to_network_grid
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.models.networks import MEMORY_FORMATS, SIZE_MULTIPLE, run_slices
from tumorreg_wf.models.seam import close_seam
from tumorreg_wf.symmetry import fit_mirror, mirror


def inpaint(
    network: nn.Module,
    t1w: nb.Nifti1Image,
    hole: nb.Nifti1Image,
    brain: nb.Nifti1Image,
    *,
    spacing: float = 1.0,
    device: str = 'cpu',
) -> np.ndarray:
    """Replace what is in a hole by plausible normal tissue.

    A network over slices runs over axial, coronal and sagittal ones and the three results are
    averaged, which removes steps between slices.

    Parameters
    ----------
    network : maps slices and masks (N, 1, H, W) to slices (N, 1, H, W); or, of 3 ``dimensions``,
        volumes and masks (N, 2, X, Y, Z) of the brain and of its mirror image about its midline
        to volumes (N, 1, X, Y, Z).
    t1w : image of any orientation, voxel size and intensity scale.
    hole : mask of what to replace, on the same grid.
    brain : brain mask, on the same grid; only brain is filled.
    spacing : voxel edge the network was trained at, mm.
    device : torch device.

    Returns
    -------
    recovered : float32 array on the grid of ``t1w``; equal to it outside the hole, bit for bit.
    """
    data = np.asanyarray(t1w.dataobj, dtype=np.float32)
    inside = np.asanyarray(brain.dataobj) > 0
    missing = (np.asanyarray(hole.dataobj) > 0) & inside
    known = inside & ~missing
    recovered = data.copy()
    if not missing.any() or not known.any():
        return recovered

    values = normalize(data, known, reference_quantiles('T1w'))
    grid_values = to_network_grid(nb.Nifti1Image(values, t1w.affine), spacing=spacing)
    grid_hole = to_network_grid(
        nb.Nifti1Image(missing.astype(np.float32), t1w.affine), spacing=spacing
    )
    x = grid_values.get_fdata(dtype=np.float32)
    mask = (grid_hole.get_fdata(dtype=np.float32) <= 0.01).astype(np.float32)
    box = bounding_box((x != 0) | (mask == 0))
    x, mask = x[box][None], mask[box][None]
    filled = np.zeros(grid_values.shape, np.float32)
    if network.dimensions == 3:
        matrix = fit_mirror(x[0], (x[0] != 0) & (mask[0] > 0))
        hidden = mirror(1 - mask[0], matrix) > 0.01
        x = np.concatenate([x, mirror(x[0] * mask[0], matrix)[None]])
        mask = np.concatenate([mask, 1.0 - hidden[None]]).astype(np.float32)
        filled[box] = _run_volume(network, [x, mask], device)
    else:
        filled[box] = np.mean(
            [_inpaint_along(network, x, mask, axis, device) for axis in range(3)], axis=0
        )
    seen = (x[0] != 0) & (mask[0] > 0)
    filled[box] = close_seam(filled[box], x[0], seen, spacing=spacing)

    native = resample(nb.Nifti1Image(filled, grid_values.affine), t1w, order=1)
    # back to the image's own grey values: the normalisation is monotone, so its inverse is
    # read off the known voxels
    fractions = np.linspace(0.001, 0.999, 999)
    recovered[missing] = np.interp(
        np.asanyarray(native.dataobj)[missing],
        np.quantile(values[known], fractions),
        np.quantile(data[known], fractions),
    )
    return recovered


def _inpaint_along(
    network: nn.Module, x: np.ndarray, mask: np.ndarray, axis: int, device: str
) -> np.ndarray:
    """Run the network over the slices of (C, X, Y, Z) across one axis that hold some hole."""
    x, mask = np.moveaxis(x, axis + 1, 0), np.moveaxis(mask, axis + 1, 0)
    filled = x[:, 0].copy()
    holed = np.flatnonzero((mask[:, 0] == 0).any(axis=(1, 2)))
    if not len(holed):  # smaller than a voxel
        return np.moveaxis(filled, 0, axis)
    inputs = [torch.from_numpy(np.ascontiguousarray(array[holed])) for array in (x, mask)]
    filled[holed] = run_slices(network, inputs, device)[:, 0].numpy()
    return np.moveaxis(filled, 0, axis)


@torch.inference_mode()
def _run_volume(network: nn.Module, inputs: list[np.ndarray], device: str) -> np.ndarray:
    """Run a network over volumes (C, X, Y, Z), and over them flipped left to right; average."""
    size = inputs[0].shape[1:]
    padding = [side for length in size[::-1] for side in (0, -length % SIZE_MULTIPLE)]
    batch = [
        nn.functional.pad(torch.from_numpy(array)[None], padding, value=float(position > 0))
        .to(device)
        .contiguous(memory_format=MEMORY_FORMATS[3])
        for position, array in enumerate(inputs)  # beyond the image: 0, and known
    ]
    flipped = network(*(array.flip(2) for array in batch)).flip(2)
    result = ((network(*batch) + flipped) / 2)[0, 0].cpu().numpy()
    return result[tuple(slice(length) for length in size)]
