"""What is no tumour and looks like one: lesions, caps, plexus, vessels, bad skull stripping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tumorreg_wf.tissues import CSF, WM
from tumorreg_wf.training.fields import Spacing, distance, random_field


@dataclass(frozen=True)
class Surroundings:
    """Where things are in a brain; every array (X, Y, Z).

    Attributes
    ----------
    white, fluid : share of white matter and of CSF, 0-1.
    ventricles : bool.
    from_ventricles : mm.
    depth : mm below the surface of the brain.
    """

    white: np.ndarray
    fluid: np.ndarray
    ventricles: np.ndarray
    from_ventricles: np.ndarray
    depth: np.ndarray


def find_surroundings(tissues: np.ndarray, spacing: Spacing) -> Surroundings:
    """Find ventricles and depths in a tissue segmentation (1 GM, 2 WM, 3 CSF)."""
    blur = 0.8 / np.asarray(spacing, float)
    white, fluid = (
        ndimage.gaussian_filter((tissues == label).astype(np.float32), blur) for label in (WM, CSF)
    )
    depth = distance(tissues > 0, spacing)
    inner, count = ndimage.label((fluid > 0.6) & (depth > 20))
    ventricles = np.zeros(tissues.shape, bool)
    if count:
        sizes = np.bincount(inner.ravel()) * np.prod(spacing)
        sizes[0] = 0
        ventricles = (sizes > max(500, 0.2 * sizes.max()))[inner]
    far = np.full(tissues.shape, 99, np.float32)
    away = distance(~ventricles, spacing) if ventricles.any() else far
    return Surroundings(white, fluid, ventricles, away, depth)


def white_matter_lesions(
    around: Surroundings, spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """A few to many spots of 2-10 mm, near the ventricles and below the cortex."""
    spacing = np.asarray(spacing, float)
    alpha = np.zeros(around.white.shape, np.float32)
    places = np.argwhere(around.white > 0.8)
    if not len(places):
        return alpha
    closeness = np.exp(-around.from_ventricles[tuple(places.T)] / 8) + rng.uniform(0.01, 0.1)
    centres = rng.choice(places, int(rng.integers(2, 30)), p=closeness / closeness.sum())
    for centre in centres:
        radii = min(rng.uniform(1, 5), rng.uniform(1, 5)) * np.exp(rng.uniform(-0.4, 0.4, 3))
        reach = np.ceil((radii + 2) / spacing).astype(int)
        box = tuple(slice(max(c - r, 0), c + r + 1) for c, r in zip(centre, reach, strict=True))
        grid = np.ogrid[box]
        position = [(g - c) * d for g, c, d in zip(grid, centre, spacing, strict=True)]
        ratio = np.sqrt(sum((p / r) ** 2 for p, r in zip(position, radii, strict=True)))
        spot = 1 / (1 + np.exp(4 * (ratio - 1) * radii.mean()))
        alpha[box] = np.maximum(alpha[box], spot[tuple(slice(n) for n in alpha[box].shape)])
    return alpha * around.white


def periventricular_caps(
    around: Surroundings, spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """White matter next to the ventricles, thick in some places and thin in others."""
    thickness = rng.uniform(1, 4) * np.exp(
        0.8 * random_field(around.white.shape, spacing, 12.0, rng)
    )
    thickness = np.minimum(thickness, 10)
    return np.exp(-((around.from_ventricles / thickness) ** 2)) * around.white


def choroid_plexus(around: Surroundings, spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    """Lumps within the ventricles."""
    lumps = random_field(around.white.shape, spacing, 4.0, rng)
    regions = random_field(around.white.shape, spacing, 20.0, rng)
    return np.clip(2 * (lumps + regions) - rng.uniform(2, 3), 0, 1) * (
        around.ventricles * around.fluid
    )


def vessels(around: Surroundings, spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    """Thin tubes in fluid and along the surface of the brain."""
    # two smooth fields are both zero along curves
    squared = sum(random_field(around.white.shape, spacing, 14.0, rng) ** 2 for _ in range(2))
    tubes = np.exp(-squared / rng.uniform(0.06, 0.14) ** 2)
    return tubes * np.maximum(around.fluid, around.depth < 4)


Range = tuple[float, float]

#: How often a lookalike occurs, and its T1w and FLAIR relative to white matter.
LOOKALIKES: tuple[tuple[float, Callable[..., np.ndarray], Range, Range], ...] = (
    (0.5, white_matter_lesions, (0.7, 0.97), (1.2, 1.8)),
    (0.5, periventricular_caps, (0.8, 1.0), (1.1, 1.6)),
    (0.5, choroid_plexus, (0.4, 0.85), (0.7, 1.6)),
    (0.5, vessels, (0.9, 1.7), (0.2, 1.3)),
)
#: How often remnants of the skull and dura are left, and how often brain is cut off.
REMNANTS, CUTS = 0.35, 0.2


def add_lookalikes(
    t1w: np.ndarray,
    flair: np.ndarray,
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add some of the lookalikes to healthy images, and strip their skull badly at times.

    Parameters
    ----------
    t1w, flair
        Healthy images (X, Y, Z), 0 outside the brain.
    tissues
        1 GM, 2 WM, 3 CSF, 0 outside the brain.
    spacing
        Voxel size in mm.

    Returns
    -------
    t1w, flair : float32.
    visible : bool, what the skull stripping leaves.
    """
    around = find_surroundings(tissues, spacing)
    whites = [np.median(image[tissues == WM]) for image in (t1w, flair)]
    images = [t1w, flair]

    def blend(alpha: np.ndarray, *levels: np.ndarray | float) -> None:
        for i, level in enumerate(levels):
            images[i] = (images[i] + alpha * (whites[i] * level - images[i])).astype(np.float32)

    for chance, draw, *limits in LOOKALIKES:
        if rng.random() < chance:
            blend(draw(around, spacing, rng), *(rng.uniform(*pair) for pair in limits))

    visible = tissues > 0
    if rng.random() < REMNANTS:
        patchy = random_field(tissues.shape, spacing, 25.0, rng) - rng.uniform(-0.5, 1.5)
        thickness = np.minimum(rng.uniform(1, 4) * patchy, 5)
        remnants = ~visible & (distance(~visible, spacing) <= thickness)
        texture = np.exp(0.3 * random_field(tissues.shape, spacing, 3.0, rng))
        blend(remnants, rng.uniform(0.5, 1.8) * texture, rng.uniform(0.4, 1.6) * texture)
        visible = visible | remnants
    if rng.random() < CUTS:
        deep = rng.uniform(2, 8) * (random_field(tissues.shape, spacing, 25.0, rng) - 1.3)
        visible = visible & (np.where(tissues > 0, around.depth, 99) > deep)
    return images[0], images[1], visible
