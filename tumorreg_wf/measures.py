"""Measures of a tumour and of the regions around it."""

from __future__ import annotations

import nibabel as nb
import numpy as np
import pandas as pd
from scipy import ndimage

#: A tumour crosses the midline when this much of it (mm^3) lies on either side.
CROSSING_VOLUME = 500.0


def measure_regions(
    labels: np.ndarray, tumor: np.ndarray, spacing: np.ndarray, lut: pd.DataFrame
) -> pd.DataFrame:
    """Measure each region of an atlas against the tumour.

    Parameters
    ----------
    labels : integer (X, Y, Z), atlas labels in patient space.
    tumor : boolean (X, Y, Z).
    spacing : voxel size, mm.
    lut : look-up table with columns ``index`` and ``name``, and ``hemisphere`` where known.

    Returns
    -------
    table : a row per region of the look-up table: index, name, hemisphere, volume_mm3,
        tumor_mm3, tumor_fraction, distance_mm (from the nearest voxel of the region to the
        nearest of the tumour, centre to centre; 0 where they overlap; NaN without either).
    """
    index = lut['index'].to_numpy()
    voxel = float(np.prod(spacing))
    size = int(max(labels.max(), index.max())) + 1
    volume = np.bincount(labels.ravel(), minlength=size)[index] * voxel
    overlap = np.bincount(labels[tumor], minlength=size)[index] * voxel
    distance = np.full(len(index), np.nan)
    if tumor.any():
        away = ndimage.distance_transform_edt(~tumor, sampling=spacing)
        distance = np.asarray(ndimage.minimum(away, labels, index), float)
        distance[volume == 0] = np.nan
    if 'hemisphere' in lut:
        hemisphere = lut['hemisphere']
    else:
        hemisphere = lut['name'].map(_hemisphere_of_name)
    return pd.DataFrame(
        {
            'index': index,
            'name': lut['name'],
            'hemisphere': hemisphere,
            'volume_mm3': volume,
            'tumor_mm3': overlap,
            'tumor_fraction': np.divide(
                overlap, volume, out=np.full(len(index), np.nan), where=volume > 0
            ),
            'distance_mm': distance,
        }
    )


def measure_tumor(
    tumor: np.ndarray,
    affine: np.ndarray,
    std_tumor: np.ndarray,
    std_affine: np.ndarray,
    template: str,
) -> dict:
    """Measure a tumour as a whole.

    Parameters
    ----------
    tumor, affine : boolean (X, Y, Z) in patient space, with its affine.
    std_tumor, std_affine : the same in template space, whose midline is x = 0.
    template : name of the template, part of column names.

    Returns
    -------
    row : volume_mm3; centroid_{x,y,z} and centroid_<template>_{x,y,z} (mm, RAS+);
        hemisphere L, R or B (both); midline_crossing; n_components (26-connected).
    """
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    std_voxel = float(abs(np.linalg.det(std_affine[:3, :3])))
    x = nb.affines.apply_affine(std_affine, np.argwhere(std_tumor))[:, 0]
    left, right = (x < 0).sum() * std_voxel, (x > 0).sum() * std_voxel
    crossing = bool(min(left, right) > CROSSING_VOLUME)
    side = 'B' if crossing else 'L' if left > right else 'R'
    row = {'volume_mm3': tumor.sum() * voxel}
    row |= _centroid('centroid', tumor, affine)
    row |= _centroid(f'centroid_{template}', std_tumor, std_affine)
    row['hemisphere'] = side if len(x) else None
    row['midline_crossing'] = crossing
    row['n_components'] = int(ndimage.label(tumor, np.ones((3, 3, 3)))[1])
    return row


def _centroid(name: str, mask: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    centre = np.full(3, np.nan)
    if mask.any():
        centre = nb.affines.apply_affine(affine, np.argwhere(mask).mean(0))
    return {f'{name}_{axis}': value for axis, value in zip('xyz', centre, strict=True)}


def _hemisphere_of_name(name: str) -> str:
    """Read L or R off a region's name, as Schaefer's, Tian's and FreeSurfer's tables write it."""
    parts = str(name).replace('-', '_').lower().split('_')
    for part in parts:
        if part in ('l', 'lh', 'left'):
            return 'L'
        if part in ('r', 'rh', 'right'):
            return 'R'
    return 'n/a'


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the overlap of two masks over the sum of their volumes; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
