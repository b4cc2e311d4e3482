"""Healthy brains to simulate patients from: a template, T1w images, anatomical label maps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from tumorreg_wf.bids import check_dataset
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, load_image, to_network_grid, voxel_spacing
from tumorreg_wf.intensity import require_stripped, stripped_brain_mask
from tumorreg_wf.shapes import deep_voxels, place_shape, read_shape
from tumorreg_wf.template import packaged_images
from tumorreg_wf.tissues import WM
from tumorreg_wf.training.anatomy import WHITE, strip_labels, tissues_from_labels
from tumorreg_wf.training.fields import Spacing, random_deformation, warp
from tumorreg_wf.training.growth import random_tumor
from tumorreg_wf.training.simulate import (
    SimulatedPatient,
    patient_from_labels,
    simulate_patient,
    tissues_from_t1w,
)

#: FreeSurfer indices that no label map of a brain lacks: white matter of either side.
WHITE_MATTER = (2, 41)

#: Voxel size of patients made from T1w images and label maps, mm.
SPACING = (1.0, 1.0, 1.0)
#: Black around their brains, mm.
MARGIN = 12
#: Deformations drawn before a brain is given up as too large for its grid.
TRIES = 50
#: T1w intensity of the template's brightest white matter.
BRIGHTEST = 800


def find_healthy(dataset: Path) -> list[Path]:
    """T1w images of a BIDS dataset without contrast agent, by name."""
    check_dataset(dataset)
    images = sorted(Path(dataset).glob('sub-*/anat/*_T1w.nii.gz'))
    found = [path for path in images if '_ce-' not in path.name]
    if not found:
        raise TumorregError(f'{dataset}: no sub-X/anat/*_T1w.nii.gz here.')
    return found


def patient_from_template(
    rng: np.random.Generator, shapes: Sequence[Path] = ()
) -> tuple[SimulatedPatient, np.ndarray]:
    """Deform nilearn's MNI152 template and put a typical tumour into it.

    Parameters
    ----------
    rng
        Decides all.
    shapes
        Label volumes of tumours; one is grown if there are none.

    Returns
    -------
    patient, affine
    """
    images = packaged_images()
    affine = images[0].affine
    t1w, gm, wm, mask = (image.get_fdata(dtype=np.float32) for image in images)
    mask = mask > 0
    spacing = nb.affines.voxel_sizes(affine)
    deformation, brain = _bend(mask, spacing, rng, order=1)
    # An average of many brains is blurred: give back the edges a single brain has.
    t1w = t1w * mask / t1w.max()
    t1w = t1w + 0.6 * (t1w - ndimage.gaussian_filter(t1w, 1 / spacing))
    t1w = BRIGHTEST * warp(np.clip(t1w, 0, 1.1), deformation, spacing, brain, order=3)
    gm, wm = (warp(p, deformation, spacing, brain, order=1) for p in (gm, wm))
    tissues = np.where(brain, 1 + np.argmax([gm, wm, 1 - gm - wm], axis=0), 0).astype(np.uint8)
    tumor = _tumor(tissues, spacing, rng, shapes, (30, 80))
    return simulate_patient(t1w, tissues, tumor, spacing, rng), affine


def patient_from_t1w(
    path: Path, rng: np.random.Generator, shapes: Sequence[Path] = ()
) -> tuple[SimulatedPatient, np.ndarray]:
    """Deform a skull-stripped healthy T1w and put any tumour into it, at 1 mm.

    Parameters and results are those of :func:`patient_from_template`.
    """
    image = load_image(path)
    data = image.get_fdata(dtype=np.float32)
    require_stripped(data, voxel_spacing(image), path)
    brain_image = nb.Nifti1Image(stripped_brain_mask(data).astype(np.float32), image.affine)
    image, brain_image = (to_network_grid(i, spacing=SPACING[0]) for i in (image, brain_image))
    brain = brain_image.get_fdata() >= 0.5
    box, affine = _around(brain, image.affine)
    t1w, brain = (np.pad(array[box], MARGIN) for array in (image.get_fdata() * brain, brain))
    deformation, brain = _bend(brain, SPACING, rng, order=0)
    t1w = warp(t1w, deformation, SPACING, brain, order=3)
    tissues = tissues_from_t1w(t1w, brain)
    t1w *= WHITE / np.median(t1w[tissues == WM])
    tumor = _tumor(tissues, SPACING, rng, shapes, (5, 120))
    return simulate_patient(t1w, tissues, tumor, SPACING, rng, wild=True), affine


def patient_from_anatomy(
    path: Path, rng: np.random.Generator, shapes: Sequence[Path] = ()
) -> tuple[SimulatedPatient, np.ndarray]:
    """Deform an anatomical label map, make up its images and put any tumour in, at 1 mm.

    Parameters and results are those of :func:`patient_from_template`.
    """
    image = to_network_grid(load_image(path), spacing=SPACING[0], order=0)
    labels = strip_labels(image.get_fdata(dtype=np.float32).astype(np.int32), SPACING)
    if not np.isin(WHITE_MATTER, labels).all():
        raise TumorregError(
            f'{path}: no FreeSurfer labels of a brain (2, 3, 41, 42 ...). Label volumes of '
            'tumours are for --shapes.'
        )
    box, affine = _around(labels > 0, image.affine)
    labels = np.pad(labels[box], MARGIN)
    deformation, brain = _bend(labels > 0, SPACING, rng, order=0)
    labels = warp(labels, deformation, SPACING, brain, order=0)
    tumor = _tumor(tissues_from_labels(labels), SPACING, rng, shapes, (5, 120))
    return patient_from_labels(labels, tumor, SPACING, rng), affine


def _bend(
    brain: np.ndarray, spacing: Spacing, rng: np.random.Generator, *, order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a deformation that leaves a brain within its grid; and the brain deformed (bool)."""
    before = _faces(brain)  # the brain stem may be cut
    for _ in range(TRIES):
        deformation = random_deformation(brain.shape, spacing, rng)
        bent = warp(brain, deformation, spacing, np.ones(brain.shape, bool), order=order) > 0.5
        if _faces(bent) <= before:
            return deformation, bent
    raise TumorregError('The brain is too large for its image to be deformed in it.')


def _faces(mask: np.ndarray) -> set[tuple[int, int]]:
    """Faces of its grid, as axis and end, that a mask reaches."""
    ends = itertools.product(range(mask.ndim), (0, -1))
    return {(axis, end) for axis, end in ends if mask.take(end, axis).any()}


def _tumor(
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    shapes: Sequence[Path],
    volumes: tuple[float, float],
) -> np.ndarray:
    """A given shape somewhere in a brain, or one grown there to a volume (ml) of a range."""
    if not shapes:
        return random_tumor(tissues, spacing, rng, volume_ml=rng.uniform(*volumes))
    shape = read_shape(shapes[int(rng.integers(len(shapes)))], spacing=float(spacing[0]))
    brain = tissues > 0
    return place_shape(shape, brain, 2 * deep_voxels(brain[::2, ::2, ::2]), rng)


def _around(mask: np.ndarray, affine: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box of a mask, and the affine of what is cut there and padded by the margin."""
    box = bounding_box(mask)
    affine = affine.copy()
    affine[:3, 3] = nb.affines.apply_affine(affine, [side.start - MARGIN for side in box])
    return box, affine
