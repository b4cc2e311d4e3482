"""Healthy brains: tissues and the images T1w and FLAIR make of them.

Tissue labels follow BIDS: 1 GM, 2 WM, 3 CSF, 0 outside the brain.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import bounding_box
from tumorreg_wf.tissues import CSF, GM, WM
from tumorreg_wf.training.fields import Spacing, distance, random_field

#: T1w intensity of white matter in images made from label maps.
WHITE = 700.0

CORTEX, FLUID, VESSELS = (3, 42), (24,), (30, 62)

#: FreeSurfer labels by what they have in common: tissue, and ranges of T1w and FLAIR intensity
#: relative to cerebral white matter.
STRUCTURES = (
    (WM, (2, 41, 25, 57, 85), (1.0, 1.0), (1.0, 1.0)),  # cerebrum
    (WM, (7, 46), (0.94, 1.04), (0.95, 1.15)),  # cerebellum
    (WM, (16, 28, 60), (0.88, 1.0), (0.95, 1.2)),  # brain stem, ventral diencephalon
    (GM, CORTEX, (0.62, 0.86), (0.85, 1.25)),  # cortex
    (GM, (8, 47), (0.62, 0.86), (0.85, 1.2)),  # cerebellar cortex
    (GM, (10, 49), (0.8, 0.95), (0.95, 1.15)),  # thalamus
    (GM, (11, 12, 26, 50, 51, 58), (0.7, 0.9), (0.95, 1.2)),  # striatum
    (GM, (13, 52), (0.85, 1.0), (0.8, 1.05)),  # pallidum
    (GM, (17, 18, 53, 54), (0.65, 0.87), (1.0, 1.35)),  # hippocampus, amygdala
    (CSF, (4, 5, 14, 15, 43, 44, 72), (0.1, 0.45), (0.05, 0.35)),  # ventricles
    (CSF, FLUID, (0.15, 0.55), (0.08, 0.55)),  # around the brain
    (CSF, (31, 63, 136, 137, 163, 164), (0.35, 0.8), (0.6, 1.3)),  # choroid plexus
    (CSF, VESSELS, (0.4, 1.2), (0.2, 0.9)),  # vessels
)
#: Places of the ranges in :data:`STRUCTURES`.
T1W, FLAIR = 0, 1

#: FLAIR of healthy GM, WM and CSF relative to white matter: typical, and all that occurs.
FLAIR_TISSUES = ((1.1, 1.25), (1.0, 1.0), (0.2, 0.4))
WILD_FLAIR_TISSUES = ((0.85, 1.25), (1.0, 1.0), (0.05, 0.5))
#: T1w of healthy CSF and GM relative to white matter: all that occurs.
WILD_T1W_TISSUES = ((0.15, 0.55), (0.6, 0.87))


def strip_labels(labels: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Keep of a label map of a whole head the brain and the CSF in and around it.

    Parameters
    ----------
    labels
        FreeSurfer indices (X, Y, Z); extra-cerebral labels above 500.
    spacing
        Voxel size in mm.

    Returns
    -------
    numpy.ndarray
        uint8, 0 outside the brain: CSF more than about 2 mm away from it is outside.
    """
    known = tissues_from_labels(labels) > 0
    solid = known & ~np.isin(labels, FLUID + VESSELS)
    box = bounding_box(solid, margin=int(np.ceil(8 / min(spacing))))
    stripped = np.zeros(labels.shape, np.uint8)
    labels, known, solid = labels[box], known[box], solid[box]
    # sulci and cisterns narrower than 12 mm are inside
    near = distance(~solid, spacing) <= 6
    brain = distance(near, spacing) >= 4
    stripped[box] = np.where((brain | solid) & known, labels, 0)
    return stripped


def tissues_from_labels(labels: np.ndarray) -> np.ndarray:
    """GM, WM and CSF (uint8) of a label map of FreeSurfer indices; 0 for what is no brain."""
    table = np.zeros(max(256, int(labels.max()) + 1), np.uint8)
    for tissue, indices, _, _ in STRUCTURES:
        table[list(indices)] = tissue
    return table[labels]


def random_levels(modality: int, rng: np.random.Generator) -> list[float]:
    """Grey value of each of :data:`STRUCTURES` on a :data:`T1W` or :data:`FLAIR`."""
    common, levels = rng.random(), []
    for _, _, *contrast in STRUCTURES:
        low, high = contrast[modality]
        levels.append(low + (common + rng.random()) / 2 * (high - low))
    return levels


def images_from_labels(
    labels: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make T1w and FLAIR (float32) of a stripped label map; contrast and texture are drawn."""
    brain = labels > 0
    fine = random_field(labels.shape, spacing, 1.0, rng)
    coarse = random_field(labels.shape, spacing, 6.0, rng)
    blur = rng.uniform(0.55, 0.85) / np.asarray(spacing, float)
    images = []
    for modality in (T1W, FLAIR):
        table = np.zeros(256, np.float32)
        for (_, indices, *_), level in zip(STRUCTURES, random_levels(modality, rng), strict=True):
            table[list(indices)] = level
        # outside there is fluid too: the edge of the brain is not darker than that
        table[0] = table[FLUID[0]]
        image = ndimage.gaussian_filter(table[labels], blur)
        image *= 1 + rng.uniform(0.005, 0.025) * fine + rng.uniform(0.01, 0.04) * coarse
        images.append(np.where(brain, np.maximum(WHITE * image, 0), 0).astype(np.float32))
    return images[0], images[1]


def vary_contrast(t1w: np.ndarray, tissues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the CSF and GM of a T1w to other grey values, and what is between them along."""
    csf, gm, white = (np.median(t1w[tissues == label]) for label in (CSF, GM, WM))
    return _move(t1w, csf, gm, white, rng)


def random_t1w_levels(rng: np.random.Generator) -> np.ndarray:
    """T1w of each of :data:`STRUCTURES` (float32) in a simulated patient; white matter is 1."""
    levels = random_levels(T1W, rng)
    of = {indices: level for (_, indices, *_), level in zip(STRUCTURES, levels, strict=True)}
    return _move(np.array(levels), of[FLUID], of[CORTEX], 1.0, rng)


def _move(
    t1w: np.ndarray, csf: float, gm: float, white: float, rng: np.random.Generator
) -> np.ndarray:
    known = np.maximum.accumulate([0, csf, gm, white, 2 * white])
    wanted = [0.0, *(rng.uniform(*limits) for limits in WILD_T1W_TISSUES), 1.0, 2.0]
    return np.interp(t1w, known, np.multiply(wanted, white)).astype(np.float32)


def synthesize_flair(
    t1w: np.ndarray,
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    wild: bool = False,
) -> np.ndarray:
    """Make a healthy FLAIR (float32, unit of the T1w): CSF dark, GM about as bright as WM."""
    brain = tissues > 0
    sigma = rng.uniform(0.6, 1.0) / np.asarray(spacing)
    inside = np.maximum(ndimage.gaussian_filter(brain.astype(np.float32), sigma), 1e-3)
    white = np.median(t1w[tissues == WM])
    flair = np.zeros(t1w.shape, np.float32)
    expected = np.zeros(t1w.shape, np.float32)
    contrast = WILD_FLAIR_TISSUES if wild else FLAIR_TISSUES
    for label, limits in zip((GM, WM, CSF), contrast, strict=True):
        members = tissues == label
        probability = ndimage.gaussian_filter(members.astype(np.float32), sigma) / inside
        flair += probability * white * rng.uniform(*limits)
        expected += probability * (np.median(t1w[members]) if members.any() else 0)
    texture = np.clip(t1w - expected, -0.15 * white, 0.15 * white)
    if wild:
        texture *= rng.uniform(-0.6, 0.4)
        for scale, largest in ((1.5, 0.025), (8.0, 0.05)):
            strength = rng.uniform(0.005, largest) * white
            texture += strength * random_field(t1w.shape, spacing, scale, rng)
    else:
        texture *= -0.5
    return np.where(brain, np.maximum(0.6 * (flair + texture), 0), 0).astype(np.float32)
