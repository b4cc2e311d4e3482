"""Grey values: brain masks of stripped images, histogram matching, z-scores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import numpy as np
from scipy import ndimage

from tumorreg_wf.errors import TumorregError

#: Quantiles (fractions) at which histograms are matched.
QUANTILES = np.array([0.01, 0.05, *np.arange(0.1, 0.91, 0.1), 0.95, 0.99])

#: No stripped brain is larger (ml); a head with skull and scalp is.
LARGEST_BRAIN = 2300.0

#: Below the scalp lies bone, which is darker; the rim of a stripped brain is no brighter than what
#: lies deeper. Depths of both, mm, and how many times brighter the scalp is at least (measured:
#: 1.38 and more in heads of any crop, 1.08 and less in stripped brains of patients).
SCALP, BONE = (1.5, 5.0), (7.0, 15.0)
SCALP_CONTRAST = 1.2

#: Images are looked at for a scalp with voxels of about this edge, mm.
COARSE = 2.0

#: Grey values that reach further below 0 than this part of their range are no undershoot.
BELOW = 0.05

#: What is so many times brighter than all but a thousandth of an image was not measured.
SPIKE = 10.0

#: Grey values go no further from their mean than this, in standard deviations; and what is beyond
#: the other counts no more for these.
FURTHEST, WILD = 6.0, 20.0

#: With fewer slices than this the programs of ANTs fail.
FEWEST_SLICES = 6


def stripped_brain_mask(data: np.ndarray) -> np.ndarray:
    """Brain mask of a skull-stripped image: its largest connected body, without holes.

    Parameters
    ----------
    data : array (X, Y, Z); the background is exactly 0.

    Returns
    -------
    mask : boolean array (X, Y, Z).
    """
    body = data != 0
    labels, count = ndimage.label(body)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        # several axial slabs are one brain: keep every large part, drop dust
        keep = sizes >= 0.02 * sizes[1:].max()
        keep[0] = False
        body = keep[labels]
    # where the image ends the brain goes on: what it surrounds on that face is inside
    padded = np.pad(body, 1)
    for axis in range(3):
        inner = np.moveaxis(padded, axis, 0)[:, 1:-1, 1:-1]
        for end in (0, -1):
            inner[end] = ndimage.binary_fill_holes(body.take(end, axis))
    return ndimage.binary_fill_holes(padded)[1:-1, 1:-1, 1:-1]


def is_stripped(data: np.ndarray, spacing: np.ndarray) -> bool:
    """Tell whether an image shows a brain without skull and scalp.

    An image is taken as stripped when a background of exact zeros surrounds a body no larger
    than a brain can be (:data:`LARGEST_BRAIN`), and nothing like a scalp lies around it: a part of
    a head, or a child's, is no larger.

    Parameters
    ----------
    data : array (X, Y, Z).
    spacing : voxel size, mm.
    """
    voxels = int(np.count_nonzero(data))
    volume = voxels * float(np.prod(spacing)) / 1000
    brain_sized = 0 < volume <= LARGEST_BRAIN and voxels < 0.75 * data.size
    return brain_sized and not _has_scalp(data, np.asarray(spacing, float))


def _has_scalp(data: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether the rim of what is not 0 is brighter than what lies deeper, as a scalp on bone."""
    steps = np.maximum(np.rint(COARSE / spacing), 1).astype(int)
    data = data[tuple(slice(None, None, step) for step in steps)]
    body = stripped_brain_mask(data)
    # where the image ends the head goes on
    depth = ndimage.distance_transform_edt(np.pad(body, 1, mode='edge'), sampling=spacing * steps)
    depth = depth[1:-1, 1:-1, 1:-1] * body
    scalp, bone = (data[(depth > low) & (depth <= high)] for low, high in (SCALP, BONE))
    if not (scalp.size and bone.size):
        return False
    return bool(np.median(scalp) > SCALP_CONTRAST * np.percentile(bone, 25))


def require_content(data: np.ndarray, path: str | Path) -> None:
    """Raise :class:`TumorregError` if an image has no contrast, or hardly a slice."""
    if min(data.shape) < FEWEST_SLICES:
        raise TumorregError(
            f'{path}: only {min(data.shape)} slices along one axis, {FEWEST_SLICES} are needed. '
            'Scouts and single slices cannot be registered.'
        )
    if not data.any():
        raise TumorregError(f'{path}: every voxel is 0. Check the conversion.')
    body = data[data != 0]
    if body.min() == body.max():
        raise TumorregError(
            f'{path}: all voxels that are not 0 are {body[0]:g}. This is a mask, and no image.'
        )


def require_stripped(data: np.ndarray, spacing: np.ndarray, path: str | Path) -> None:
    """Raise :class:`TumorregError` if an image shows a whole head."""
    if not is_stripped(data, spacing):
        raise TumorregError(
            f'{path}: this looks like a whole head, and a brain alone is needed here. Strip the '
            'skull first.'
        )


def raise_negative(data: np.ndarray) -> tuple[np.ndarray, float]:
    """Raise grey values below 0: N4 takes them for logarithms, and may correct nothing for one.

    Where they go well below, as z-scores do, all are raised; the undershoot of an interpolation
    is cut off.

    Parameters
    ----------
    data : array (X, Y, Z); background of exactly 0 stays 0.

    Returns
    -------
    data : the same, or float32 with all other voxels above 0.
    shift : what was added to them; 0 where at most undershoot was cut off.
    """
    if not (data < 0).any():
        return data, 0.0
    body = data != 0
    low, high = np.percentile(data[body], (0.1, 99.9))
    margin = BELOW * (high - low)
    shift = float(margin - low) if low < -margin else 0.0
    return np.where(body, np.maximum(data + shift, 0.01 * margin), 0).astype(np.float32), shift


def cut_spikes(data: np.ndarray) -> tuple[np.ndarray, int]:
    """Cut single wild voxels: one alone would leave no contrast to what goes by the range.

    Parameters
    ----------
    data : array (X, Y, Z), not below 0.

    Returns
    -------
    data : the same, or with nothing above :data:`SPIKE` times the 99.9th percentile of what is
        not 0.
    count : of voxels that were cut.
    """
    body = data[data > 0]
    highest = SPIKE * np.percentile(body, 99.9) if body.size else np.inf
    count = int(np.count_nonzero(data > highest))
    return (np.minimum(data, highest).astype(data.dtype) if count else data), count


def reference_quantiles(modality: str) -> np.ndarray:
    """Grey values at :data:`QUANTILES` of the reference histogram of ``'T1w'`` or ``'FLAIR'``."""
    source = files('tumorreg_wf') / 'data' / 'intensity_reference.json'
    return np.array(json.loads(source.read_text())[modality])


def fit_reference(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Make a reference histogram: the mean over images of their z-scored quantiles.

    ``data/intensity_reference.json`` was made so from the patients the packaged segmentation
    weights were trained on.

    Parameters
    ----------
    images : pairs of an image (X, Y, Z) and its brain mask.
    """
    quantiles = []
    for data, mask in images:
        values = data[mask]
        quantiles.append(np.quantile((values - values.mean()) / values.std(), QUANTILES))
    return np.mean(quantiles, axis=0)


def normalize(data: np.ndarray, mask: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Match a histogram to a reference, then z-score within the brain.

    The match is piecewise linear between quantiles (Nyul and Udupa 1999), so that it keeps
    the order of grey values; beyond the outer quantiles the end segments go on.

    Parameters
    ----------
    data : array (X, Y, Z).
    mask : boolean array (X, Y, Z), the brain.
    reference : grey values of the reference at :data:`QUANTILES`.

    Returns
    -------
    normalized : float32 array (X, Y, Z); mean 0 and standard deviation 1 in the mask, nothing
        beyond :data:`FURTHEST`; 0 outside.
    """
    out = np.zeros(data.shape, np.float32)
    values = data[mask].astype(np.float64)
    if values.size == 0 or np.ptp(values) == 0:
        return out
    matched = _piecewise_linear(values, np.quantile(values, QUANTILES), reference)
    matched = np.clip(matched, -WILD, WILD)  # few voxels must not set the scale of all
    out[mask] = (matched - matched.mean()) / matched.std()
    return np.clip(out, -FURTHEST, FURTHEST, out=out)


def normalize_modality(data: np.ndarray, brain: np.ndarray, modality: str) -> np.ndarray:
    """Match to the packaged reference of ``'T1w'`` or ``'FLAIR'``; see :func:`normalize`.

    Of a FLAIR that does not reach all of the brain, what is there counts; the rest stays 0.
    """
    inside = brain & (data != 0) if modality == 'FLAIR' else brain
    return normalize(data, inside, reference_quantiles(modality))


def _piecewise_linear(values: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    # images of few grey levels have equal quantiles; interpolation needs a growing axis
    source, first = np.unique(source, return_index=True)
    target = target[first]
    if len(source) < 2:
        return values
    matched = np.interp(values, source, target)
    for end, inner in ((0, 1), (-1, -2)):
        beyond = values < source[0] if end == 0 else values > source[-1]
        slope = (target[inner] - target[end]) / (source[inner] - source[end])
        matched[beyond] = target[end] + slope * (values[beyond] - source[end])
    return matched
