"""Brain extraction: a whole head in, a brain mask out."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import torch
from scipy import ndimage
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import resample, to_network_grid, voxel_spacing

#: Grey values between these percentiles of an image become 0 to 1.
PERCENTILES = (1.0, 99.0)

#: What is brighter than this, after :func:`scale_intensity`, is head rather than air.
HEAD = 0.15


#: From this probability on it is brain. Coarse voxels round off what bulges: one half would cut a
#: millimetre off the poles, and tumours with it.
THRESHOLD = 0.2

#: Less than this is no brain, nor a part of one to work on, ml.
SMALLEST_BRAIN = 100.0


def scale_intensity(data: np.ndarray) -> np.ndarray:
    """Bring the grey values of a head to [0, 1.5], air being about 0 (float32)."""
    low, high = np.percentile(data, PERCENTILES)
    if high <= low:
        low, high = float(data.min()), max(float(data.max()), float(data.min()) + 1e-6)
    return np.clip((data - low) / (high - low), 0, 1.5).astype(np.float32)


def extract_brain(
    network: nn.Module,
    image: nb.Nifti1Image,
    tumor: nb.Nifti1Image | None = None,
    *,
    spacing: float,
    device: str = 'cpu',
) -> tuple[np.ndarray, np.ndarray]:
    """Find the brain in the image of a head.

    The network sees a field of view of one size, as in its training: first about the middle of
    the head, then about the brain it found there.

    Parameters
    ----------
    network : maps volumes (N, 1, S, S, S), S its ``size``, to logits of the same shape.
    image : of a head, or of a part of it; any orientation, voxel size and intensity scale.
    tumor : mask on the same grid of what is known to be brain, however little it looks like it.
    spacing : voxel edge the network was trained at, mm.
    device : torch device.

    Returns
    -------
    probability : float32 array on the grid of the image, in [0, 1].
    mask : boolean array; where the probability is :data:`THRESHOLD` or more, and the tumour; of
        both the largest connected part, without holes.
    """
    grid = to_network_grid(image, spacing=spacing)
    values = scale_intensity(grid.get_fdata(dtype=np.float32))
    probability = np.zeros(grid.shape, np.float32)
    centre = _middle(values > HEAD)
    for _ in range(2):
        window, inside = _window(grid.shape, centre, network.size)
        seen = np.zeros([network.size] * 3, np.float32)
        seen[inside] = values[window]
        probability[:] = 0
        probability[window] = _run(network, seen, device)[inside]
        if (brain := largest_part(probability >= THRESHOLD)).any():
            centre = _middle(brain)
    native = resample(nb.Nifti1Image(probability, grid.affine), image, order=1)
    probability = np.clip(native.get_fdata(dtype=np.float32), 0, 1)
    found = probability >= THRESHOLD
    if tumor is not None:
        found |= np.asanyarray(tumor.dataobj) > 0
    return probability, ndimage.binary_fill_holes(largest_part(found))


def require_brain(mask: np.ndarray, image: nb.Nifti1Image) -> None:
    """Raise :class:`TumorregError` if hardly anything of an image was taken for brain."""
    volume = mask.sum() * float(np.prod(voxel_spacing(image))) / 1000
    if volume < SMALLEST_BRAIN:
        raise TumorregError(
            f'The network found no brain in the T1w (only {volume:.0f} ml). Check that it shows a '
            'head, and that its header says right where up and front are; or give a brain mask '
            '(sub-X_desc-brain_mask.nii.gz) with --derivatives.'
        )


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask; empty if the mask is."""
    labels, count = ndimage.label(mask)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax() if count else mask


def _middle(mask: np.ndarray) -> np.ndarray:
    """Middle of the box of a mask (3,), voxels; of the array where it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8)) if mask.any() else []
    box = found[0] if found else tuple(slice(0, length) for length in mask.shape)
    return np.array([(side.start + side.stop) / 2 for side in box])


def _window(
    shape: tuple[int, ...], centre: np.ndarray, size: int
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a cube about a centre lies in an array, and where the array lies in the cube."""
    start = np.rint(centre - size / 2).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + size, shape)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    return window, inside


@torch.inference_mode()
def _run(network: nn.Module, values: np.ndarray, device: str) -> np.ndarray:
    """Probability; the mean over both left-right orientations is surer than either."""
    x = torch.from_numpy(values)[None, None].to(device)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    logits = (network(x) + network(x.flip(2)).flip(2)) / 2
    return torch.sigmoid(logits)[0, 0].float().cpu().numpy()
