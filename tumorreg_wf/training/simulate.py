"""Simulated glioma patients: a healthy brain, a tumour put into it, and the truth about both.

Arrays in, arrays out, all on one grid. Tissue labels follow BIDS (1 GM, 2 WM, 3 CSF, 0 outside the
brain); tumour labels follow the Medical Segmentation Decathlon (1 oedema, 2 non-enhancing or
necrotic core, 3 enhancing rim).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import bounding_box
from tumorreg_wf.tissues import CSF, GM, WM
from tumorreg_wf.training import appearance
from tumorreg_wf.training.anatomy import (
    images_from_labels,
    synthesize_flair,
    tissues_from_labels,
    vary_contrast,
)
from tumorreg_wf.training.fields import Spacing, depth_inside, uncrop, warp
from tumorreg_wf.training.growth import mass_effect
from tumorreg_wf.training.lookalikes import add_lookalikes
from tumorreg_wf.training.scanner import random_scanner, resolve_labels, scan


@dataclass(frozen=True)
class SimulatedPatient:
    """A simulated patient; every array has the shape of the healthy brain it was made from.

    Outside ``tumor_mask`` each image equals its tumour-free twin. What the skull stripping took
    away is 0 in all images: all outside the brain, unless it was stripped badly.

    Attributes
    ----------
    t1w, flair : float32, with the tumour.
    tumor_mask : bool.
    tumor_labels : uint8, 1 oedema, 2 core, 3 rim.
    tumor_free_t1w, tumor_free_flair : float32, the same displaced brain without the tumour.
    tissues : uint8, 1 GM, 2 WM, 3 CSF of the displaced brain, also under the tumour.
    displacement : float32 (X, Y, Z, 3), mm: ``displaced(x) = healthy(x + displacement(x))``.
    """

    t1w: np.ndarray
    flair: np.ndarray
    tumor_mask: np.ndarray
    tumor_labels: np.ndarray
    tumor_free_t1w: np.ndarray
    tumor_free_flair: np.ndarray
    tissues: np.ndarray
    displacement: np.ndarray


def simulate_patient(
    t1w: np.ndarray,
    tissues: np.ndarray,
    tumor: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    flair: np.ndarray | None = None,
    *,
    wild: bool = False,
) -> SimulatedPatient:
    """Put a tumour into a healthy brain.

    Parameters
    ----------
    t1w
        Healthy T1w, (X, Y, Z), any intensity unit in which nothing is 0.
    tissues
        Its tissue labels: 1 GM, 2 WM, 3 CSF, 0 outside the brain.
    tumor
        Tumour labels on the same grid, where the tumour shall be: 1 oedema, 2 core, 3 rim.
        What lies outside the brain, and oedema that lies in CSF, is dropped.
    spacing
        Voxel size in mm along the three axes.
    rng
        Source of every random choice: contrasts, mass effect, noise, bias field.
    flair
        Healthy FLAIR; made up from the tissues and the texture of the T1w if not given.
    wild
        False for a clean scan of a typical tumour. True for the variety of patients and
        scanners: other tissue contrast, tumours of every look, what only looks like a tumour,
        bad skull stripping, blur, thick slices. Tumour labels are then what the FLAIR resolves.

    Returns
    -------
    SimulatedPatient
        Images in the unit of ``t1w``.
    """
    shape = t1w.shape
    box = bounding_box(tissues > 0, margin=int(np.ceil(8 / min(spacing))) if wild else 2)
    t1w, tissues, tumor = t1w[box], tissues[box].astype(np.uint8), tumor[box]
    brain = tissues > 0
    tumor = np.where(brain, tumor, 0).astype(np.uint8)
    if wild:
        t1w = vary_contrast(t1w, tissues, rng)
    if flair is None:
        flair = synthesize_flair(t1w, tissues, spacing, rng, wild=wild)
    else:
        flair = flair[box]

    displacement = mass_effect(tumor, brain, spacing, rng, (1, 10) if wild else (2, 6))
    t1w = warp(t1w, displacement, spacing, brain, order=3)
    flair = warp(flair, displacement, spacing, brain, order=3)
    tissues = warp(tissues, displacement, spacing, brain, order=0)

    csf = ndimage.gaussian_filter((tissues == CSF).astype(np.float32), 0.7 / np.asarray(spacing))
    labels = np.where((tumor == appearance.EDEMA) & (csf > 0.5), 0, tumor).astype(np.uint8)
    visible, look, roughness, patches = brain, appearance.TYPICAL, 1.0, []
    if wild:
        t1w, flair, visible = add_lookalikes(t1w, flair, tissues, spacing, rng)
        look, roughness = appearance.random_look(rng), rng.uniform(0.5, 2.5)
        if not look.has_rim:
            labels[labels == appearance.RIM] = appearance.CORE
        labels = appearance.follow_white_matter(labels, tissues, spacing, rng)
        patches = appearance.random_patches(labels, spacing, rng)

    opacity, shares = appearance.mix(labels, tissues, spacing, rng, wild=wild)
    images = []
    for number, (healthy, contrast) in enumerate(((t1w, look.t1w), (flair, look.flair))):
        white = np.median(healthy[tissues == WM])
        # a lesion is brighter on FLAIR than grey matter too
        level = max(white, np.median(healthy[tissues == GM])) if wild else white
        diseased = appearance.paint(
            healthy, level, opacity, shares, contrast, roughness, spacing, rng
        )
        for alpha, *levels in patches:
            diseased += alpha * (white * levels[number] - diseased)
        scanner = random_scanner(rng, wild=wild)
        images.append(scan((diseased, healthy), visible, white, spacing, scanner, rng))

    labels = resolve_labels(labels, spacing, scanner) * visible
    # Blur carries the tumour out of its mask: let it fade at the edge instead.
    fade = np.minimum(depth_inside(labels > 0, spacing) / 1.5, 1)
    (t1w, tumor_free_t1w), (flair, tumor_free_flair) = (
        (healthy + fade * (diseased - healthy), healthy) for diseased, healthy in images
    )
    return SimulatedPatient(
        t1w=uncrop(t1w, box, shape),
        flair=uncrop(flair, box, shape),
        tumor_mask=uncrop(labels > 0, box, shape),
        tumor_labels=uncrop(labels, box, shape),
        tumor_free_t1w=uncrop(tumor_free_t1w, box, shape),
        tumor_free_flair=uncrop(tumor_free_flair, box, shape),
        tissues=uncrop(tissues, box, shape),
        displacement=uncrop(displacement, box, shape),
    )


def patient_from_labels(
    labels: np.ndarray,
    tumor: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    wild: bool = True,
) -> SimulatedPatient:
    """Make up the T1w and FLAIR of an anatomy and put a tumour into it.

    Parameters
    ----------
    labels
        FreeSurfer indices (X, Y, Z), 0 outside the brain; see
        :func:`tumorreg_wf.training.anatomy.strip_labels`.
    tumor, spacing, rng, wild
        As of :func:`simulate_patient`.
    """
    t1w, flair = images_from_labels(labels, spacing, rng)
    return simulate_patient(
        t1w, tissues_from_labels(labels), tumor, spacing, rng, flair, wild=wild
    )


def tissues_from_t1w(t1w: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """Split a healthy, skull-stripped T1w into CSF < GM < WM by its intensities (k-means).

    Parameters
    ----------
    t1w
        Healthy T1w, (X, Y, Z), without strong bias field.
    brain_mask
        Non-zero inside the brain.

    Returns
    -------
    numpy.ndarray
        uint8: 1 GM, 2 WM, 3 CSF, 0 outside the brain.
    """
    brain = np.asarray(brain_mask) > 0
    values = np.asarray(t1w, np.float32)[brain]
    centers = np.percentile(values, (3, 40, 85))
    for _ in range(30):
        nearest = np.searchsorted((centers[1:] + centers[:-1]) / 2, values)
        sizes = np.maximum(np.bincount(nearest, minlength=3), 1)
        centers = np.bincount(nearest, values, 3) / sizes
    tissues = np.zeros(brain.shape, np.uint8)
    tissues[brain] = np.array((CSF, GM, WM), np.uint8)[nearest]
    return tissues
