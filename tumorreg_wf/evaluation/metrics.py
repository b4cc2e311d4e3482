"""Measures of masks and of filled images: arrays in, numbers out."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from tumorreg_wf.images import bounding_box, remove_small_components
from tumorreg_wf.measures import dice

#: Lesions, and pieces found, are counted from this volume on, mm^3.
SMALLEST_LESION = 100.0

#: Grey values are clipped to these percentiles of the image with its hole.
PERCENTILES = (0.5, 99.5)

#: Windows of the structural similarity: Gaussian, as in Wang et al. 2004.
SSIM = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}

#: Voxels a window reaches at most.
WINDOW = 11

EVERY_NEIGHBOUR = np.ones((3, 3, 3))


def hausdorff95(one: np.ndarray, other: np.ndarray, spacing: np.ndarray) -> float:
    """95 % Hausdorff distance of two masks.

    The larger of the two directed 95th percentiles of the distances from the surface voxels of
    one mask (those with a face outside it) to the nearest surface voxel of the other, centre to
    centre.

    Parameters
    ----------
    one, other : boolean (X, Y, Z).
    spacing : voxel size, mm.

    Returns
    -------
    distance : mm; 0 where both masks are empty, the diagonal of the grid where one is.
    """
    if not one.any() or not other.any():
        apart = one.any() != other.any()
        return float(np.linalg.norm(np.array(one.shape) * spacing)) if apart else 0.0
    box = bounding_box(one | other)
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (one, other)]
    return max(
        float(np.percentile(ndimage.distance_transform_edt(~there, sampling=spacing)[here], 95))
        for here, there in (surfaces, surfaces[::-1])
    )


def compare_masks(found: np.ndarray, reference: np.ndarray, spacing: np.ndarray) -> dict:
    """Measure a mask against a reference.

    Parameters
    ----------
    found, reference : boolean (X, Y, Z).
    spacing : voxel size, mm.

    Returns
    -------
    row : reference_ml, found_ml, dice, hd95_mm, volume_error_ml (found minus reference),
        volume_error_relative (of the reference's volume), lesions (26-connected components of
        the reference, of at least :data:`SMALLEST_LESION`), lesion_recall (part of them with a
        voxel found; NaN without lesions), false_positives (components found, as large, without
        a voxel of the reference), false_positive_ml (found outside the reference).
    """
    ml = float(np.prod(spacing)) / 1000
    reference_ml, found_ml = reference.sum() * ml, found.sum() * ml
    lesions, hit = _count_components(reference, found, spacing)
    pieces, true = _count_components(found, reference, spacing)
    error = found_ml - reference_ml
    return {
        'reference_ml': reference_ml,
        'found_ml': found_ml,
        'dice': dice(found, reference),
        'hd95_mm': hausdorff95(found, reference, spacing),
        'volume_error_ml': error,
        'volume_error_relative': error / reference_ml if reference_ml else np.nan,
        'lesions': lesions,
        'lesion_recall': hit / lesions if lesions else np.nan,
        'false_positives': pieces - true,
        'false_positive_ml': (found & ~reference).sum() * ml,
    }


def _count_components(mask: np.ndarray, other: np.ndarray, spacing: np.ndarray) -> tuple[int, int]:
    """Count the components of a mask, and those that the other mask touches."""
    large = remove_small_components(mask, spacing, SMALLEST_LESION)
    labels, count = ndimage.label(large, EVERY_NEIGHBOUR)
    return count, len(np.unique(labels[large & other]))


def grey_range(voided: np.ndarray) -> tuple[float, float]:
    """Range of grey values by which fills are measured: :data:`PERCENTILES` of a voided image.

    As in the BraTS inpainting challenge: of all voxels, background and hole (0) among them, and
    the lower is at least 0.
    """
    low, high = np.maximum(np.percentile(voided, PERCENTILES), 0)
    return float(low), float(high)


def scale_grey(data: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Clip grey values to a range, and scale them to [0, 1]; float32."""
    low, high = limits
    return ((np.clip(data, low, high) - low) / max(high - low, 1e-6)).astype(np.float32)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of grey values in [0, 1], dB; infinite where they are equal."""
    error = float(np.mean(np.square(one - other, dtype=np.float64)))
    return -10 * np.log10(error) if error else np.inf


def compare_fill(filled: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict:
    """Measure a filled hole against what was there.

    Parameters
    ----------
    filled, truth : images (X, Y, Z), equal outside the hole; axis 2 runs from slice to slice.
    hole : boolean (X, Y, Z), not empty.

    Returns
    -------
    row : of grey values scaled from :func:`grey_range` to [0, 1]: in the hole mse, psnr (dB, peak
        1) and ssim (mean over the hole of the 3-D map of the whole image); over the slices that
        hold some hole, the mean of slice_psnr (dB; of the slices that differ at all) and
        slice_ssim of whole slices; continuity:
        mean absolute difference of neighbours in the hole from slice to slice, over that
        within slices, over this ratio in the truth (1 is as in the truth, more is stripes, NaN a
        flat fill or truth).
    """
    limits = grey_range(np.where(hole, 0, truth))
    filled, truth = scale_grey(filled, limits), scale_grey(truth, limits)
    # what is further away than a window reaches has no part in the hole's map
    box = bounding_box(hole, margin=WINDOW)
    _, ssim_map = structural_similarity(truth[box], filled[box], data_range=1, full=True, **SSIM)
    slices = [(truth[..., k], filled[..., k]) for k in np.flatnonzero(hole.any(axis=(0, 1)))]
    return {
        'mse': float(np.mean(np.square(filled - truth, dtype=np.float64)[hole])),
        'psnr': psnr(filled[hole], truth[hole]),
        'ssim': float(ssim_map[hole[box]].mean()),
        'slice_psnr': _mean_of_finite([psnr(*pair) for pair in slices]),
        'slice_ssim': float(
            np.mean([structural_similarity(*pair, data_range=1, **SSIM) for pair in slices])
        ),
        'continuity': _ratio(
            _through_to_in_plane(filled[box], hole[box]),
            _through_to_in_plane(truth[box], hole[box]),
        ),
    }


def _mean_of_finite(values: list[float]) -> float:
    """Mean without the infinite values; infinite where there are no others."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.inf


def _through_to_in_plane(image: np.ndarray, inside: np.ndarray) -> float:
    """Mean absolute difference of neighbours along axis 2 over that along axes 0 and 1."""
    steps = []
    for axis in range(3):
        pairs = [np.moveaxis(array, axis, 0) for array in (image, inside)]
        both = pairs[1][1:] & pairs[1][:-1]
        steps.append(np.abs(np.diff(pairs[0], axis=0))[both])
    in_plane = np.concatenate(steps[:2])
    if not len(steps[2]):
        return float('nan')
    return _ratio(float(steps[2].mean()), float(in_plane.mean()) if len(in_plane) else 0.0)


def _ratio(one: float, other: float) -> float:
    return one / other if other else float('nan')
