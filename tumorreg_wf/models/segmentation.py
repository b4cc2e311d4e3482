"""Finding tumours: images in, probability and mask out."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nb
import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit
from skimage.filters import apply_hysteresis_threshold
from torch import nn

from tumorreg_wf.images import (
    bounding_box,
    remove_small_components,
    resample,
    to_network_grid,
    voxel_spacing,
)
from tumorreg_wf.models.networks import MEMORY_FORMATS, run_slices
from tumorreg_wf.models.unet import UNetEnsemble
from tumorreg_wf.symmetry import from_corner, transform, upright

#: How slices are shown to a network: in-plane zoom, and whether left and right are exchanged. The
#: mean over all is surer than any one.
VIEWS = ((1.0, False), (1.0, True), (0.87, False), (1.15, True))

#: The same of whole brains, each as it is and mirrored.
ZOOMS = (1.0, 0.89, 1.12)

#: Logit of tumour beyond what a network sees.
NOWHERE = -10.0

#: Pieces of tumour smaller than this are taken for noise, mm^3.
SMALLEST_TUMOR = 500.0

#: A tumour reaches as far as its probability is this; chosen by cross-validation.
EDGE = 0.4

#: A tumour has this probability somewhere. In 21 patients the networks had not seen, anything from
#: 0.5 to 0.8 gave the same; in healthy brains parts are found that do not reach it.
PEAK = 0.6

#: A part of lower median probability is taken for something else that is bright: of the largest
#: parts in 32 patients with a FLAIR none was below 0.95, of what was found in two with multiple
#: sclerosis none above 0.88. The mean would be the lower, the smaller a part is.
LEAST_CONFIDENCE = 0.9

#: From this volume on the largest part is a tumour however unsure the network is, mm^3.
SURE_VOLUME = 15_000.0


def segment(
    network: nn.Module,
    t1w: nb.Nifti1Image,
    flair: nb.Nifti1Image | None,
    brain: nb.Nifti1Image,
    *,
    spacing: float = 1.0,
    device: str = 'cpu',
) -> tuple[np.ndarray, np.ndarray]:
    """Find the tumour.

    Parameters
    ----------
    network : maps slices and their neighbours at its ``offsets`` (mm), (N, 2 K, H, W), to
        logits (N, 1, H, W); or, of 3 ``dimensions``, upright brains (N, 2, X, Y, Z) to logits
        (N, 1, X, Y, Z); or a :class:`~tumorreg_wf.models.unet.UNetEnsemble` of such.
    t1w, flair : normalised images (:func:`tumorreg_wf.intensity.normalize`) on one grid of any
        orientation and voxel size; ``flair`` may be None.
    brain : brain mask on the same grid.
    spacing : voxel edge the network was trained at, mm.
    device : torch device.

    Returns
    -------
    probability : float32 array on the grid of ``t1w``, in [0, 1], 0 outside the brain.
    mask : boolean array, by :func:`tumor_parts`.
    """
    grid_t1w = to_network_grid(t1w, spacing=spacing)
    channels = [grid_t1w.get_fdata(dtype=np.float32)]
    channels.append(
        np.zeros_like(channels[0])
        if flair is None
        else to_network_grid(flair, spacing=spacing).get_fdata(dtype=np.float32)
    )
    # resampled T1w is 0 outside the brain, and only there all over
    box = bounding_box(channels[0] != 0)
    volume = np.stack([channel[box] for channel in channels])
    logits = _find(network, volume, spacing, device)
    probability = np.zeros(grid_t1w.shape, np.float32)
    found = expit(logits)
    # tumours are smooth from slice to slice
    padded = np.concatenate([found[..., :1], found, found[..., -1:]], axis=-1)
    probability[box] = 0.25 * padded[..., :-2] + 0.5 * found + 0.25 * padded[..., 2:]

    native = resample(nb.Nifti1Image(probability, grid_t1w.affine), t1w, order=1)
    inside = np.asanyarray(brain.dataobj) > 0
    probability = np.clip(native.get_fdata(dtype=np.float32), 0, 1) * inside
    return probability, tumor_parts(probability, voxel_spacing(t1w))


def _find(network: nn.Module, volume: np.ndarray, spacing: float, device: str) -> np.ndarray:
    """Logits (X, Y, Z) of images (2, X, Y, Z), by one network or the mean of several."""
    if isinstance(network, UNetEnsemble):
        with_flair = volume[1].any(axis=(0, 1))  # it may show some slices alone
        total = np.zeros(volume.shape[1:], np.float32)
        count = np.zeros(len(with_flair))
        for member, needs_flair in zip(network.members, network.needs_flair, strict=True):
            asked = with_flair if needs_flair else np.ones_like(with_flair)
            if asked.any():
                total += asked * _find(member, volume, spacing, device)
                count += asked
        return total / count
    find = {2: _find_in_slices, 3: _find_in_volume}[network.dimensions]
    return find(network, volume, spacing, device)


def _find_in_slices(
    network: nn.Module, volume: np.ndarray, spacing: float, device: str
) -> np.ndarray:
    """Logits (X, Y, Z) of images (2, X, Y, Z): every axial slice in :data:`VIEWS`."""
    offsets = np.rint(np.array(network.offsets) / spacing).astype(int)
    source = torch.from_numpy(volume)
    slabs = torch.stack([neighbours(source, k, offsets) for k in range(volume.shape[-1])])
    stacked = slabs.flatten(1, 2)
    views = torch.stack([_run_view(network, stacked, *view, device) for view in VIEWS])
    return np.moveaxis(views.mean(0)[:, 0].numpy(), 0, -1)


def _find_in_volume(
    network: nn.Module, volume: np.ndarray, spacing: float, device: str
) -> np.ndarray:
    """Logits (X, Y, Z) of images (2, X, Y, Z): the brain upright, in :data:`ZOOMS`."""
    brain = volume[0] != 0
    if not brain.any():
        return np.full(brain.shape, NOWHERE, np.float32)
    matrix, total = upright(volume[0], brain), np.zeros(brain.shape, np.float32)
    for zoom in ZOOMS:
        view = matrix @ np.diag([1 / zoom] * 3 + [1])
        places = nb.affines.apply_affine(np.linalg.inv(view), np.argwhere(brain))
        size = network.size(spacing, 2 * np.abs(places).max(0) + 1)
        view = view @ from_corner(size)
        seen = np.stack([transform(channel, view, size) for channel in volume])
        batch = torch.from_numpy(seen)[None].to(device).contiguous(memory_format=MEMORY_FORMATS[3])
        with torch.inference_mode():
            logits = (network(batch) + network(batch.flip(2)).flip(2))[0, 0] / 2
        total += transform(logits.cpu().numpy() - NOWHERE, np.linalg.inv(view), brain.shape)
    return total / len(ZOOMS) + NOWHERE


def neighbours(volume: torch.Tensor, k: int, offsets: np.ndarray) -> torch.Tensor:
    """Slices (..., K, X, Y) at some offsets from the k-th of a volume (..., X, Y, Z).

    Beyond the volume they are 0.
    """
    wanted = k + np.asarray(offsets)
    count = volume.shape[-1]
    slab = volume[..., np.clip(wanted, 0, count - 1).tolist()].movedim(-1, -3)
    slab[..., ((wanted < 0) | (wanted >= count)).nonzero()[0].tolist(), :, :] = 0
    return slab


def tumor_parts(probability: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Keep the connected parts that are likely tumour.

    Each part has a probability of :data:`PEAK` somewhere, and reaches as far as it is
    :data:`EDGE`. Specks go, and so do parts in which the network is not sure on average where it
    says tumour: bright tissue that only looks like one. Every confident part stays, so that
    multifocal tumours do, and so does the largest if it is large.

    Parameters
    ----------
    probability : (X, Y, Z) in [0, 1].
    spacing : voxel size, mm.

    Returns
    -------
    mask : boolean (X, Y, Z).
    """
    mask = apply_hysteresis_threshold(probability, EDGE, PEAK)
    mask = remove_small_components(mask, spacing, SMALLEST_TUMOR)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return mask
    parts = np.arange(1, count + 1)
    keep = np.zeros(count + 1, bool)
    sure = np.where(probability >= 0.5, labels, 0)
    keep[1:] = ndimage.median(probability, sure, parts) >= LEAST_CONFIDENCE
    volumes = np.bincount(labels.ravel())[1:] * np.prod(spacing)
    keep[1 + volumes.argmax()] |= volumes.max() >= SURE_VOLUME
    return keep[labels]


def _run_view(
    network: nn.Module, slices: torch.Tensor, zoom: float, mirrored: bool, device: str
) -> torch.Tensor:
    """Run a network over a view of slices (N, C, H, W); logits (N, 1, H, W) of the slices."""
    size = slices.shape[-2:]
    seen = _resize(slices, [max(1, round(zoom * length)) for length in size])
    found = _resize(run_slices(network, [seen.flip(2) if mirrored else seen], device), size)
    return found.flip(2) if mirrored else found


def _resize(slices: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(slices.shape[-2:]) == tuple(size):
        return slices
    return nn.functional.interpolate(slices, tuple(size), mode='bilinear', align_corners=False)
