"""Running the networks: images in, images out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
import torch
from safetensors.torch import load_file, save
from scipy import ndimage
from scipy.special import expit
from skimage.filters import apply_hysteresis_threshold
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import write_aside
from tumorreg_wf.images import (
    bounding_box,
    remove_small_components,
    resample,
    to_network_grid,
    voxel_spacing,
)
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D
from tumorreg_wf.models.seam import close_seam
from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble
from tumorreg_wf.models.unet3d import BrainUNet, MirrorUNet, TwoStageBrainUNet
from tumorreg_wf.symmetry import fit_mirror, from_corner, mirror, transform, upright
from tumorreg_wf.weights import Weights

ARCHITECTURES: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (
        UNet,
        SlabUNet,
        MirrorUNet,
        UNetEnsemble,
        PConvNet,
        PConvUNet3D,
        BrainUNet,
        TwoStageBrainUNet,
    )
}

#: How networks over slices and over volumes are fastest.
MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}

#: Slices and volumes are padded to a multiple of this, which every architecture can halve down.
SIZE_MULTIPLE = 32

#: Slices in one forward pass; bounds memory.
BATCH = 8

#: How slices are shown to a network: in-plane zoom, and whether left and right are exchanged. The
#: mean over all is surer than any one.
VIEWS = ((1.0, False), (1.0, True), (0.87, False), (1.15, True))

#: Logit of tumour beyond what a network sees.
NOWHERE = -10.0

#: Pieces of tumour smaller than this are taken for noise, mm^3.
SMALLEST_TUMOR = 500.0

#: A tumour reaches as far as its probability is this; chosen by cross-validation.
EDGE = 0.3

#: A tumour has this probability somewhere. In 21 patients the networks had not seen, anything from
#: 0.5 to 0.8 gave the same; in healthy brains parts are found that do not reach it.
PEAK = 0.6

#: A part of mean probability below this is taken for something else that is bright.
LEAST_CONFIDENCE = 0.75


def load_network(weights: Weights, device: str = 'cpu') -> nn.Module:
    """Build a network from its weights file, ready for inference."""
    try:
        network = ARCHITECTURES[weights.architecture](**weights.config)
        network.load_state_dict(load_file(weights.path))
    except (KeyError, TypeError, RuntimeError) as error:
        if 'allocate' in str(error):  # too little memory, which is no fault of the weights
            raise
        raise TumorregError(
            f'{weights.path}: these weights do not fit the network {weights.architecture} of this '
            'version. Train them again, or use the version they were trained with.'
        ) from None
    for part in getattr(network, 'members', [network]):
        part.to(device, memory_format=MEMORY_FORMATS[part.dimensions])
    return network.eval()


def save_network(network: nn.Module, path: str | Path, *, name: str, task: str, **facts) -> None:
    """Write a network as safetensors with the metadata :func:`load_network` needs.

    ``facts`` are ``config`` (keyword arguments of the architecture) and ``spacing`` (mm).
    Windows of convolutions, nearly all there is, are stored as float16.
    """
    metadata = {
        'name': name,
        'task': task,
        'architecture': type(network).__name__,
        'config': json.dumps(facts['config']),
        'spacing': str(facts['spacing']),
    }
    state = {
        key: (value.half() if value.ndim > 2 else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    with write_aside(path) as part:  # safetensors' own files are for their owner alone
        part.write_bytes(save(state, metadata))


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
    asked = [network]
    if isinstance(network, UNetEnsemble):
        asked = network.asked(with_flair=bool(volume[1].any()))
    finders = {2: _find_in_slices, 3: _find_in_volume}
    logits = np.mean(
        [finders[one.dimensions](one, volume, spacing, device) for one in asked], axis=0
    )
    probability = np.zeros(grid_t1w.shape, np.float32)
    found = expit(logits)
    # tumours are smooth from slice to slice
    padded = np.concatenate([found[..., :1], found, found[..., -1:]], axis=-1)
    probability[box] = 0.25 * padded[..., :-2] + 0.5 * found + 0.25 * padded[..., 2:]

    native = resample(nb.Nifti1Image(probability, grid_t1w.affine), t1w, order=1)
    inside = np.asanyarray(brain.dataobj) > 0
    probability = np.clip(native.get_fdata(dtype=np.float32), 0, 1) * inside
    return probability, tumor_parts(probability, voxel_spacing(t1w))


def _find_in_slices(
    network: nn.Module, volume: np.ndarray, spacing: float, device: str
) -> np.ndarray:
    """Logits (X, Y, Z) of images (2, X, Y, Z): every axial slice in :data:`VIEWS`."""
    offsets = np.rint(np.array(network.offsets) / spacing).astype(int)
    slabs = np.stack([neighbours(volume, k, offsets) for k in range(volume.shape[-1])])
    stacked = torch.from_numpy(slabs.reshape(len(slabs), -1, *volume.shape[1:3]))
    views = torch.stack([_run_view(network, stacked, *view, device) for view in VIEWS])
    return np.moveaxis(views.mean(0)[:, 0].numpy(), 0, -1)


def _find_in_volume(
    network: nn.Module, volume: np.ndarray, spacing: float, device: str
) -> np.ndarray:
    """Logits (X, Y, Z) of images (2, X, Y, Z): the brain upright, as it is and mirrored."""
    brain = volume[0] != 0
    if not brain.any():
        return np.full(brain.shape, NOWHERE, np.float32)
    matrix = upright(volume[0], brain)
    places = np.argwhere(brain) @ np.linalg.inv(matrix[:3, :3]).T
    places += np.linalg.inv(matrix)[:3, 3]
    size = network.size(spacing, 2 * np.abs(places).max(0) + 1)
    matrix = matrix @ from_corner(size)
    seen = np.stack([transform(channel, matrix, size) for channel in volume])
    batch = torch.from_numpy(seen)[None].to(device).contiguous(memory_format=MEMORY_FORMATS[3])
    with torch.inference_mode():
        logits = (network(batch) + network(batch.flip(2)).flip(2))[0, 0] / 2
    found = transform(logits.cpu().numpy() - NOWHERE, np.linalg.inv(matrix), brain.shape)
    return found + NOWHERE


def neighbours(volume: np.ndarray, k: int, offsets: np.ndarray) -> np.ndarray:
    """Slices (..., K, X, Y) at some offsets from the k-th of a volume (..., X, Y, Z).

    Beyond the volume they are 0.
    """
    wanted = k + np.asarray(offsets)
    count = volume.shape[-1]
    slab = np.moveaxis(volume[..., np.clip(wanted, 0, count - 1)], -1, -3).copy()
    slab[..., (wanted < 0) | (wanted >= count), :, :] = 0
    return slab


def tumor_parts(probability: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Keep the connected parts that are likely tumour.

    Each part has a probability of :data:`PEAK` somewhere, and reaches as far as it is
    :data:`EDGE`: networks find too little rather than too much. Specks go, and so do parts in
    which the network is not sure on average where it says tumour: bright tissue that only looks
    like one. Every confident part stays, so that multifocal tumours do; the largest stays in any
    case.

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
    if count < 2:
        return mask
    parts = np.arange(1, count + 1)
    keep = np.zeros(count + 1, bool)
    sure = np.where(probability >= 0.5, labels, 0)
    keep[1:] = ndimage.mean(probability, sure, parts) >= LEAST_CONFIDENCE
    keep[1 + np.bincount(labels.ravel())[1:].argmax()] = True
    return keep[labels]


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
    inputs = [torch.from_numpy(np.ascontiguousarray(array[holed])) for array in (x, mask)]
    filled[holed] = _run_slices(network, inputs, device)[:, 0].numpy()
    return np.moveaxis(filled, 0, axis)


@torch.inference_mode()
def _run_volume(network: nn.Module, inputs: list[np.ndarray], device: str) -> np.ndarray:
    """Run a network over volumes (C, X, Y, Z), and over them flipped left to right; average."""
    size = inputs[0].shape[1:]
    padding = [side for length in size[::-1] for side in (0, -length % SIZE_MULTIPLE)]
    batch = [
        nn.functional.pad(torch.from_numpy(array)[None], padding, value=float(position > 0))
        .to(device)
        .contiguous(memory_format=torch.channels_last_3d)
        for position, array in enumerate(inputs)  # beyond the image: 0, and known
    ]
    flipped = network(*(array.flip(2) for array in batch)).flip(2)
    result = ((network(*batch) + flipped) / 2)[0, 0].cpu().numpy()
    return result[tuple(slice(length) for length in size)]


def _run_view(
    network: nn.Module, slices: torch.Tensor, zoom: float, mirrored: bool, device: str
) -> torch.Tensor:
    """Run a network over a view of slices (N, C, H, W); logits (N, 1, H, W) of the slices."""
    size = slices.shape[-2:]
    seen = _resize(slices, [max(1, round(zoom * length)) for length in size])
    found = _resize(_run_slices(network, [seen.flip(2) if mirrored else seen], device), size)
    return found.flip(2) if mirrored else found


def _resize(slices: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(slices.shape[-2:]) == tuple(size):
        return slices
    return nn.functional.interpolate(slices, tuple(size), mode='bilinear', align_corners=False)


@torch.inference_mode()
def _run_slices(network: nn.Module, inputs: list[torch.Tensor], device: str) -> torch.Tensor:
    """Run a network over padded batches of slices (N, C, H, W)."""
    height, width = inputs[0].shape[-2:]
    padding = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
    results = []
    for start in range(0, len(inputs[0]), BATCH):
        batch = [
            nn.functional.pad(array[start : start + BATCH], padding, value=float(position > 0))
            .to(device)
            .contiguous(memory_format=torch.channels_last)
            for position, array in enumerate(inputs)  # beyond the image: 0, and known
        ]
        results.append(network(*batch)[..., :height, :width].cpu())
    return torch.cat(results)
