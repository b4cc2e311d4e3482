"""Simulated glioma patients: a healthy brain, a tumour put into it, and the truth about both.

Arrays in, arrays out, all on one grid. Tissue labels follow BIDS (1 GM, 2 WM, 3 CSF, 0 outside the
brain); tumour labels follow the Medical Segmentation Decathlon (1 oedema, 2 non-enhancing or
necrotic core, 3 enhancing rim).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import bounding_box
from tumorreg_wf.training.fields import (
    Spacing,
    coarse_steps,
    coarsen,
    jacobian,
    random_field,
    refine,
    warp,
)

GM, WM, CSF = 1, 2, 3
EDEMA, CORE, RIM = 1, 2, 3

# Intensity of oedema, core and rim relative to healthy white matter: the range to draw from.
T1W_CONTRAST = ((0.62, 0.85), (0.35, 0.75), (0.75, 1.05))
FLAIR_CONTRAST = ((1.6, 2.3), (0.8, 2.0), (1.3, 1.9))
# FLAIR of healthy GM, WM and CSF relative to white matter.
FLAIR_TISSUES = ((1.1, 1.25), (1.0, 1.0), (0.2, 0.4))


@dataclass(frozen=True)
class SimulatedPatient:
    """A simulated patient; every array has the shape of the healthy T1w it was made from.

    Outside ``tumor_mask`` each image equals its tumour-free twin; outside the brain all are 0.

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
) -> SimulatedPatient:
    """Put a tumour into a healthy brain.

    Parameters
    ----------
    t1w
        Healthy T1w, (X, Y, Z), any intensity unit.
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

    Returns
    -------
    SimulatedPatient
        Images in the unit of ``t1w``.
    """
    shape, box = t1w.shape, bounding_box(tissues > 0, margin=2)
    t1w, tissues, tumor = t1w[box], tissues[box].astype(np.uint8), tumor[box]
    brain = tissues > 0
    tumor = np.where(brain, tumor, 0).astype(np.uint8)
    flair = synthesize_flair(t1w, tissues, spacing, rng) if flair is None else flair[box]

    displacement = mass_effect(tumor, brain, spacing, rng)
    t1w = warp(t1w, displacement, spacing, brain, order=3)
    flair = warp(flair, displacement, spacing, brain, order=3)
    tissues = warp(tissues, displacement, spacing, brain, order=0)

    csf = ndimage.gaussian_filter((tissues == CSF).astype(np.float32), 0.7 / np.asarray(spacing))
    labels = np.where((tumor == EDEMA) & (csf > 0.5), 0, tumor).astype(np.uint8)
    opacity, shares = _tumor_mixture(labels, tissues, spacing, rng)
    images = []
    for healthy, contrast in ((t1w, T1W_CONTRAST), (flair, FLAIR_CONTRAST)):
        white = np.median(healthy[tissues == WM])
        texture = 1 + 0.05 * random_field(brain.shape, spacing, 3.0, rng)
        texture += 0.1 * random_field(brain.shape, spacing, 12.0, rng)
        level = sum(
            share * rng.uniform(*limits) for share, limits in zip(shares, contrast, strict=True)
        )
        diseased = np.where(
            labels > 0, (1 - opacity) * healthy + opacity * white * texture * level, healthy
        )
        images += _scanner(diseased, healthy, brain, white, spacing, rng)

    t1w, tumor_free_t1w, flair, tumor_free_flair = (_uncrop(i, box, shape) for i in images)
    labels = _uncrop(labels, box, shape)
    return SimulatedPatient(
        t1w=t1w,
        flair=flair,
        tumor_mask=labels > 0,
        tumor_labels=labels,
        tumor_free_t1w=tumor_free_t1w,
        tumor_free_flair=tumor_free_flair,
        tissues=_uncrop(tissues, box, shape),
        displacement=_uncrop(displacement, box, shape),
    )


def random_tumor(
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    volume_ml: float | None = None,
) -> np.ndarray:
    """Grow a glioma-shaped label map that prefers white matter and stops at CSF.

    Parameters
    ----------
    tissues
        1 GM, 2 WM, 3 CSF, 0 outside the brain.
    spacing
        Voxel size in mm.
    rng
        Decides place and shape.
    volume_ml
        About the volume of the whole tumour; drawn from 20 to 120 ml if not given.

    Returns
    -------
    numpy.ndarray
        uint8: 1 oedema, 2 non-enhancing or necrotic core, 3 enhancing rim.
    """
    spacing = np.asarray(spacing, float)
    wanted = 1000 * (rng.uniform(20, 120) if volume_ml is None else volume_ml)
    whole, box = tissues.shape, bounding_box(tissues > 0, margin=2)
    tissues = tissues[box]
    shape = tissues.shape

    age = _grow(tissues, spacing, 1.5 * wanted, rng)
    age *= np.exp(0.06 * random_field(shape, spacing, 4.0, rng))
    age[(tissues == 0) | (tissues == CSF)] = 0
    tumor = _main_part(_highest(age, wanted / spacing.prod()))

    age *= tumor * np.exp(0.2 * random_field(shape, spacing, 8.0, rng))
    core = _main_part(_highest(age, rng.uniform(0.2, 0.55) * tumor.sum()))
    core = ndimage.binary_fill_holes(core) & tumor
    thickness = rng.uniform(2, 4) * np.exp(0.5 * random_field(shape, spacing, 6.0, rng))
    rim = core & (ndimage.distance_transform_edt(core, spacing) <= thickness)
    labels = np.select([rim, core, tumor], [RIM, CORE, EDEMA]).astype(np.uint8)
    return _uncrop(labels, box, whole)


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


def synthesize_flair(
    t1w: np.ndarray, tissues: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """Make a healthy FLAIR (float32, unit of the T1w): CSF dark, GM a little above WM."""
    brain = tissues > 0
    sigma = rng.uniform(0.6, 1.0) / np.asarray(spacing)
    inside = np.maximum(ndimage.gaussian_filter(brain.astype(np.float32), sigma), 1e-3)
    white = np.median(t1w[tissues == WM])
    flair = np.zeros(t1w.shape, np.float32)
    expected = np.zeros(t1w.shape, np.float32)
    for label, limits in zip((GM, WM, CSF), FLAIR_TISSUES, strict=True):
        members = tissues == label
        probability = ndimage.gaussian_filter(members.astype(np.float32), sigma) / inside
        flair += probability * white * rng.uniform(*limits)
        expected += probability * (np.median(t1w[members]) if members.any() else 0)
    texture = np.clip(t1w - expected, -0.15 * white, 0.15 * white)
    return np.where(brain, np.maximum(0.6 * (flair - 0.5 * texture), 0), 0).astype(np.float32)


def mass_effect(
    tumor: np.ndarray, brain: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """Displacement (X, Y, Z, 3) in mm by which the core pushes tissue away, 2-6 mm at most.

    It folds nothing (Jacobian above 0.1) and is 0 at the outline of the brain. A tumour without
    core (labels 2, 3) pushes as a whole.
    """
    spacing = np.asarray(spacing, float)
    pushing = tumor >= CORE if (tumor >= CORE).any() else tumor > 0
    step = coarse_steps(spacing, 4.0)
    potential = ndimage.gaussian_filter(pushing.astype(np.float32), 0.5 * step)
    potential = coarsen(potential, step)
    potential = ndimage.gaussian_filter(potential, 18 / (spacing * step), mode='constant')
    # Upwards in the potential is towards the core: the tissue now here used to lie nearer to it.
    slopes = np.gradient(potential, *(spacing * step))
    push = np.stack([refine(slope, step, brain.shape) for slope in slopes], axis=-1)
    depth = ndimage.distance_transform_edt(brain, spacing).astype(np.float32)
    push *= (1 - np.exp(-((depth / 6) ** 2)))[..., None]

    radius = np.cbrt(pushing.sum() * spacing.prod() * 3 / (4 * np.pi))
    largest = np.sqrt((push**2).sum(-1).max())
    push *= np.float32(min(rng.uniform(2, 6), radius) / max(largest, 1e-9))
    while jacobian(push, spacing).min() <= 0.1:
        push *= np.float32(0.8)
    return push


def _grow(
    tissues: np.ndarray, spacing: np.ndarray, volume: float, rng: np.random.Generator
) -> np.ndarray:
    """For how many steps tumour cells have been where, once they fill ``volume`` mm3."""
    step = coarse_steps(spacing, 2.0)
    size = spacing * step
    coarse = coarsen(tissues, step)
    deep = ndimage.gaussian_filter((coarse == WM).astype(float), 8 / size)
    chance = np.where(coarse == WM, deep**2, 0).ravel()
    start = np.unravel_index(rng.choice(chance.size, p=chance / chance.sum()), coarse.shape)
    grid = np.ogrid[tuple(slice(n) for n in coarse.shape)]
    squared = sum(((i - s) * d) ** 2 for i, s, d in zip(grid, start, size, strict=True))

    # The density grows and spreads; where the gain is below 1 (CSF, outside) it dies out.
    gain = np.array((0, 1.08, 1.5, 0.5), np.float32)[coarse]
    gain *= np.exp(0.15 * random_field(coarse.shape, size, 12.0, rng))
    density = np.where(coarse > 0, np.exp(-squared / 36), 0).astype(np.float32)
    age = density.copy()
    for _ in range(100):
        if (density > 0.5).sum() * size.prod() > volume:
            break
        density = np.minimum(1, gain * ndimage.gaussian_filter(density, 2 / size))
        age += density
    return refine(ndimage.gaussian_filter(age, 1.5 / size), step, tissues.shape)


def _highest(score: np.ndarray, count: float) -> np.ndarray:
    """Mask of the ``count`` highest positive scores."""
    count = int(np.clip(round(count), 1, (score > 0).sum()))
    return score >= np.partition(score.ravel(), -count)[-count]


def _main_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, without its one-voxel bridges and hairs."""
    parts, count = ndimage.label(ndimage.binary_opening(mask))
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask


def _tumor_mixture(
    labels: np.ndarray, tissues: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """How much of each voxel is tumour (0-1), and which share of that is oedema, core, rim."""
    blur = rng.uniform(0.8, 1.6) / np.asarray(spacing)
    shares = [
        ndimage.gaussian_filter((labels == label).astype(np.float32), blur)
        for label in (EDEMA, CORE, RIM)
    ]
    total = np.maximum(sum(shares), 1e-6)
    shares = [share / total for share in shares]
    # Oedema starts faintly and spares the cortex; the core replaces whatever was there.
    depth = ndimage.distance_transform_edt(labels > 0, spacing).astype(np.float32)
    width = rng.uniform(1.5, 3.5) * np.exp(0.3 * random_field(labels.shape, spacing, 8.0, rng))
    susceptible = np.array((0, rng.uniform(0.35, 0.7), rng.uniform(0.75, 0.95), 0.2), np.float32)
    edema = (1 - np.exp(-depth / width)) * ndimage.gaussian_filter(susceptible[tissues], blur)
    return shares[0] * edema + 0.95 * (shares[1] + shares[2]), shares


def _scanner(
    diseased: np.ndarray,
    healthy: np.ndarray,
    brain: np.ndarray,
    white: float,
    spacing: Spacing,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Both images under the same bias field and Rician noise, float32; 0 outside the brain."""
    bias = np.exp(rng.uniform(0.02, 0.08) * random_field(brain.shape, spacing, 50.0, rng))
    sd = np.float32(white * rng.uniform(0.01, 0.025))
    real, imaginary = sd * rng.standard_normal((2, *brain.shape), np.float32)
    return [
        np.where(brain, np.hypot(image * bias + real, imaginary), 0).astype(np.float32)
        for image in (diseased, healthy)
    ]


def _uncrop(array: np.ndarray, box: tuple[slice, ...], shape: Sequence[int]) -> np.ndarray:
    whole = np.zeros((*shape, *array.shape[3:]), array.dtype)
    whole[box] = array
    return whole
