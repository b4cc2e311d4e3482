"""Where a tumour grows in a brain, and how it pushes the brain away."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box
from tumorreg_wf.tissues import CSF, WM
from tumorreg_wf.training.appearance import CORE, EDEMA, RIM
from tumorreg_wf.training.fields import (
    Spacing,
    coarse_steps,
    coarsen,
    distance,
    jacobian,
    random_field,
    refine,
    uncrop,
)


def random_tumor(
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    volume_ml: float,
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
        About the volume of the whole tumour.

    Returns
    -------
    numpy.ndarray
        uint8: 1 oedema, 2 non-enhancing or necrotic core, 3 enhancing rim.
    """
    spacing = np.asarray(spacing, float)
    wanted = 1000 * volume_ml
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
    return uncrop(labels, box, whole)


def mass_effect(
    tumor: np.ndarray,
    brain: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    largest: tuple[float, float],
) -> np.ndarray:
    """Displacement (X, Y, Z, 3) in mm by which the core pushes tissue away.

    Its largest is drawn from the range ``largest``, mm, but is no larger than the radius of what
    pushes, and so small that nothing folds (Jacobian above 0.1). It falls to 0 towards the outline
    of the brain. A tumour without core (labels 2, 3) pushes as a whole.
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
    push *= (1 - np.exp(-((distance(brain, spacing) / 6) ** 2)))[..., None]

    radius = np.cbrt(pushing.sum() * spacing.prod() * 3 / (4 * np.pi))
    length = np.sqrt((push**2).sum(-1).max())
    push *= np.float32(min(rng.uniform(*largest), radius) / max(length, 1e-9))
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
    if not chance.any():
        raise TumorregError('A brain without white matter: a tumour has nowhere to begin.')
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
    if not (score > 0).any():
        return np.zeros(score.shape, bool)
    count = int(np.clip(round(count), 1, (score > 0).sum()))
    return score >= np.partition(score.ravel(), -count)[-count]


def _main_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, without its one-voxel bridges and hairs."""
    parts, count = ndimage.label(ndimage.binary_opening(mask))
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]) if count else mask
