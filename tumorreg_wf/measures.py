"""Measures of a tumour and of the regions around it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, dilate_mask
from tumorreg_wf.tissues import CSF, GM

#: A tumour crosses the midline when this much of it (mm^3) lies on either side.
CROSSING_VOLUME = 500.0

#: Segmentations are stored as int16.
LARGEST_LABEL = 32767

#: Whole brains have volumes between these, ml.
BRAIN_VOLUMES = (600.0, 2300.0)

#: A tumour is large from here on, ml.
LARGE_TUMOR = 200.0

#: CSF this far from the edge of the brain (mm) is that of a ventricle.
VENTRICLE_DEPTH = 20.0

#: Regions behind and below the tentorium, by their names.
POSTERIOR_FOSSA = r'(?i)cerebell|vermis|brain.?stem|pons|medulla'


def read_lut(path: str | Path) -> pd.DataFrame:
    """Read the look-up table of a segmentation.

    Parameters
    ----------
    path : TSV with a row per region, columns ``index`` and ``name`` at least.

    Raises
    ------
    TumorregError
        If it is no such table.
    """
    try:
        # names are names, also None, NA and those with quotes
        lut = pd.read_csv(
            path, sep='\t', dtype={'name': str}, keep_default_na=False, quoting=csv.QUOTE_NONE
        ).replace('', 'n/a')
        index = lut['index'].to_numpy()
        sound = index.dtype.kind in 'iu' and lut['index'].is_unique and 'name' in lut
        sound = bool(sound and len(index) and index.min() >= 0 and index.max() <= LARGEST_LABEL)
    except (OSError, ValueError, KeyError, OverflowError):  # pandas raises kinds of ValueError
        sound = False
    if not sound:
        raise TumorregError(
            f'{path}: this is no look-up table of BIDS. Columns index (whole numbers from 0 to '
            f'{LARGEST_LABEL}, each once) and name are needed, with tabs between them.'
        )
    return lut


def find_agreement(
    tissues: np.ndarray, atlas_tissues: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Find where the warped atlas says of the tissue what the image says.

    Parameters
    ----------
    tissues, atlas_tissues : integer (X, Y, Z), labels of the tissues as found and by the
        warped atlas alone.
    known : boolean (X, Y, Z), the brain that was not replaced; elsewhere nothing speaks for the
        atlas.

    Returns
    -------
    agreement : boolean (X, Y, Z).
    """
    return known & (tissues == atlas_tissues)


def measure_regions(
    labels: np.ndarray,
    tumor: np.ndarray,
    spacing: np.ndarray,
    lut: pd.DataFrame,
    agreement: np.ndarray,
) -> pd.DataFrame:
    """Measure each region of an atlas against the tumour.

    Parameters
    ----------
    labels : integer (X, Y, Z), atlas labels in patient space; below 0 is no region.
    tumor : boolean (X, Y, Z).
    spacing : voxel size, mm.
    lut : look-up table with columns ``index`` and ``name``, and ``hemisphere`` where known.
    agreement : boolean (X, Y, Z), of :func:`find_agreement`.

    Returns
    -------
    table : a row per region of the look-up table: index, name, hemisphere, volume_mm3,
        tumor_mm3, tumor_fraction, distance_mm (from the nearest voxel of the region to the
        nearest of the tumour, centre to centre; 0 where they overlap; NaN without either),
        reliability (part of the region where atlas and image agree; NaN without a region).
    """
    lut = lut[lut['index'] > 0].reset_index(drop=True)  # many tables name the background, too
    index = lut['index'].to_numpy()
    labels = np.maximum(labels, 0)
    voxel = float(np.prod(spacing))
    size = int(max(labels.max(), index.max(initial=0))) + 1
    volume = np.bincount(labels.ravel(), minlength=size)[index] * voxel
    overlap = np.bincount(labels[tumor], minlength=size)[index] * voxel
    agreeing = np.bincount(labels[agreement], minlength=size)[index] * voxel
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
            'reliability': np.divide(
                agreeing, volume, out=np.full(len(index), np.nan), where=volume > 0
            ),
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
        hemisphere L, R or B (both); midline_crossing, of one part; n_components (26-connected).
    """
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    left, right = _volumes_by_side(std_tumor, std_affine)
    both = min(left.sum(), right.sum()) > CROSSING_VOLUME
    side = 'L' if left.sum() > right.sum() else 'R'
    row = {'volume_mm3': tumor.sum() * voxel}
    row |= _centroid('centroid', tumor, affine)
    row |= _centroid(f'centroid_{template}', std_tumor, std_affine)
    both |= left.sum() == right.sum()
    row['hemisphere'] = ('B' if both else side) if std_tumor.any() else None
    row['midline_crossing'] = bool(np.any(np.minimum(left, right) > CROSSING_VOLUME))
    row['n_components'] = int(ndimage.label(tumor, np.ones((3, 3, 3)))[1])
    return row


def find_notes(
    tumor: np.ndarray,
    hole: np.ndarray,
    brain: np.ndarray,
    tissues: np.ndarray,
    t1w: np.ndarray,
    spacing: np.ndarray,
) -> list[str]:
    """Say what makes a tumour hard to recover, by the patient's own images.

    Parameters
    ----------
    tumor, brain : boolean (X, Y, Z).
    hole : boolean (X, Y, Z), what was to be replaced, the dilated tumour.
    tissues : (X, Y, Z), 1 GM, 2 WM, 3 CSF as if there were no tumour.
    t1w : (X, Y, Z), bias-corrected, the tumour still there.
    spacing : voxel size, mm.
    """
    inside = tumor & brain
    if not tumor.any():
        return [
            'No tumour was found: nothing was replaced, and the atlas was registered to the '
            'T1w as it is.'
        ]
    if not inside.any():
        return ['The tumour mask lies outside of the brain mask: nothing was replaced.']
    if not (brain & ~hole).any():
        return [
            'The tumour mask, grown by its margin, covers the whole brain: nothing was replaced.'
        ]
    notes = []
    voxel = float(np.prod(spacing)) / 1000
    volume, outside = tumor.sum() * voxel, (tumor & ~brain).sum() * voxel
    if volume > LARGE_TUMOR:
        notes.append(
            f'The tumour is large ({volume:.0f} ml, {inside.sum() / brain.sum():.0%} of the '
            'brain). What was filled in is a guess, and labels far around it are less sure.'
        )
    if outside > max(0.5, 0.05 * volume):
        notes.append(
            f'{outside:.1f} ml of the tumour lie outside of the brain mask, as those of a tumour '
            'of the meninges or of a cavity that was stripped away do. They were not replaced.'
        )
    if _share_at_border(inside, brain) > 0.1:
        notes.append(
            'The tumour reaches the border of the brain. Look whether the brain mask cuts off a '
            'part of it. What was filled in there continues tissue on one side only.'
        )
    reach = dilate_mask(tumor, spacing, max(3.0, float(spacing.max())))
    box = bounding_box(reach, margin=int(np.ceil(VENTRICLE_DEPTH / spacing.min())))
    surface = dilate_mask(~brain[box], spacing, VENTRICLE_DEPTH)
    if (reach[box] & ~surface & (tissues[box] == CSF)).any():
        notes.append(
            'The tumour lies next to a ventricle. Where it narrows or shifts it, look closely '
            'at the labels there.'
        )
    known = brain & ~tumor
    if (known & (tissues == CSF)).any() and (known & (tissues == GM)).any():
        fluid, grey = (np.median(t1w[known & (tissues == index)]) for index in (CSF, GM))
        if fluid < grey and np.mean(t1w[inside] < (fluid + grey) / 2) > 0.5:
            notes.append(
                'Most of the tumour mask is as dark as fluid in the T1w: a cyst, necrosis, or a '
                'cavity after surgery or stroke.'
            )
    return notes


def find_brain_notes(brain: np.ndarray, spacing: np.ndarray) -> list[str]:
    """Say if a brain mask (boolean) has a volume that no brain has; spacing in mm."""
    volume = brain.sum() * float(np.prod(spacing)) / 1000
    if BRAIN_VOLUMES[0] <= volume <= BRAIN_VOLUMES[1]:
        return []
    return [
        f'The brain mask has {volume:.0f} ml; a whole brain has {BRAIN_VOLUMES[0]:.0f} to '
        f'{BRAIN_VOLUMES[1]:.0f}. Look at it; a better one can be given with -d.'
    ]


def find_place_notes(
    std_tumor: np.ndarray, std_affine: np.ndarray, regions: pd.DataFrame
) -> list[str]:
    """Say what makes a tumour hard to recover, by where it is in the template.

    Parameters
    ----------
    std_tumor, std_affine : boolean (X, Y, Z) in template space, whose midline is x = 0.
    regions : from :func:`measure_regions`.
    """
    notes = []
    left, right = _volumes_by_side(std_tumor, std_affine)
    if np.any(np.minimum(left, right) > CROSSING_VOLUME):
        notes.append(
            'The tumour crosses the midline: the other hemisphere, after which it was filled in, '
            'is not healthy there.'
        )
    elif min(left.sum(), right.sum()) > CROSSING_VOLUME:
        notes.append('The tumour has parts in both hemispheres.')
    overlap = regions['tumor_mm3']
    behind = overlap[regions['name'].astype(str).str.contains(POSTERIOR_FOSSA)].sum()
    if behind > 0.5 * overlap.sum() > 0:
        notes.append(
            'The tumour lies in the posterior fossa. The networks saw hardly any tumour there.'
        )
    return notes


def _volumes_by_side(mask: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """Volumes (mm^3) of each connected part of a mask left and right of x = 0."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    where = np.argwhere(mask)
    x, part = nb.affines.apply_affine(affine, where)[:, 0], parts[tuple(where.T)]
    return [np.bincount(part[side], minlength=count + 1) * voxel for side in (x < 0, x > 0)]


def _share_at_border(inside: np.ndarray, brain: np.ndarray) -> float:
    """Part of a tumour's surface voxels that have a neighbour outside of the brain."""
    surface = inside & ~ndimage.binary_erosion(inside)
    # the edge of the image is an edge of the brain too
    border = brain & ~ndimage.binary_erosion(brain)
    return float((surface & border).sum() / max(surface.sum(), 1))


def _centroid(name: str, mask: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    centre = np.full(3, np.nan)
    if mask.any():
        centre = nb.affines.apply_affine(affine, np.argwhere(mask).mean(0))
    return {f'{name}_{axis}': value for axis, value in zip('xyz', centre, strict=True)}


def _hemisphere_of_name(name: str) -> str:
    """Read L or R off a region's name, as Schaefer's, Tian's and FreeSurfer's tables write it."""
    for part in re.split('[^a-z0-9]+', str(name).lower()):
        if part in ('l', 'lh', 'left'):
            return 'L'
        if part in ('r', 'rh', 'right'):
            return 'R'
    return 'n/a'


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the overlap of two masks over the sum of their volumes; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
