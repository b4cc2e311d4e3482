"""What tumours look like: contrast, texture, cysts, blood and calcium.

Tumour labels follow the Medical Segmentation Decathlon: 1 oedema, 2 non-enhancing or necrotic
core, 3 enhancing rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import remove_small_components
from tumorreg_wf.tissues import WM
from tumorreg_wf.training.fields import Spacing, depth_inside, random_field

EDEMA, CORE, RIM = 1, 2, 3

Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """T1w and FLAIR of oedema, core and rim relative to white matter: ranges to draw from."""

    t1w: tuple[Range, Range, Range]
    flair: tuple[Range, Range, Range]
    has_rim: bool = True


TYPICAL = Look(((0.62, 0.85), (0.35, 0.75), (0.75, 1.05)), ((1.6, 2.3), (0.8, 2.0), (1.3, 1.9)))
RING = Look(((0.7, 1.0), (0.45, 0.9), (0.65, 1.05)), ((1.25, 2.1), (0.95, 2.0), (1.1, 2.1)))
CYSTIC = Look(((0.7, 1.0), (0.2, 0.5), (0.65, 1.0)), ((1.25, 2.1), (0.2, 1.6), (1.1, 2.0)))
LOW_GRADE = Look(
    ((0.65, 0.95), (0.5, 0.85), (0.5, 0.85)), ((1.2, 1.8), (1.2, 2.2), (1.2, 2.2)), has_rim=False
)
FAINT = Look(((0.9, 1.03), (0.85, 1.0), (0.85, 1.05)), ((1.17, 1.4), (1.1, 1.5), (1.1, 1.5)))
#: How often tumours of all kinds look how.
WILD = ((0.5, RING), (0.12, CYSTIC), (0.23, LOW_GRADE), (0.15, FAINT))


@dataclass(frozen=True)
class Patch:
    """Something within the core, or within all of a tumour that has none.

    Attributes
    ----------
    chance : how often it is there.
    scale : size of its parts, mm.
    share : of the core, range.
    t1w, flair : relative to white matter, ranges.
    """

    chance: float
    scale: float
    share: Range
    t1w: Range
    flair: Range


PATCHES = (
    Patch(0.25, 12.0, (0.1, 0.5), (0.2, 0.5), (0.15, 1.6)),  # cyst
    Patch(0.12, 7.0, (0.05, 0.25), (1.1, 1.8), (0.3, 2.2)),  # haemorrhage, bright on T1w
    Patch(0.08, 7.0, (0.05, 0.25), (0.3, 0.7), (0.2, 0.9)),  # haemorrhage, dark
    Patch(0.12, 2.0, (0.01, 0.05), (0.2, 0.6), (0.1, 0.5)),  # calcification
)

#: Alpha (X, Y, Z), level on T1w, level on FLAIR.
PaintedPatch = tuple[np.ndarray, float, float]


def random_look(rng: np.random.Generator) -> Look:
    """Draw one of the looks tumours have."""
    chances = [chance for chance, _ in WILD]
    return WILD[rng.choice(len(WILD), p=chances)][1]


def follow_white_matter(
    labels: np.ndarray, tissues: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> np.ndarray:
    """Take away oedema that lies in grey matter, so that it has fingers.

    A tumour of which nothing worth mentioning would be left stays as it is.
    """
    blur = rng.uniform(1.0, 2.0) / np.asarray(spacing, float)
    white = ndimage.gaussian_filter((tissues == WM).astype(np.float32), blur)
    away = (labels == EDEMA) & (white < rng.uniform(0.1, 0.4))
    kept = remove_small_components((labels > 0) & ~away, np.asarray(spacing), 1000)
    if not kept.any():
        return labels
    # nor are readers' labels full of small holes
    kept = ~remove_small_components(~kept, np.asarray(spacing), 100)
    return np.where(kept, labels, 0).astype(labels.dtype)


def random_patches(
    labels: np.ndarray, spacing: Spacing, rng: np.random.Generator
) -> list[PaintedPatch]:
    """Draw cysts, haemorrhage and calcification within a tumour."""
    core = labels >= CORE if (labels >= CORE).any() else labels > 0
    if not core.any():
        return []
    blur = 0.6 / np.asarray(spacing, float)
    inside = ndimage.gaussian_filter(core.astype(np.float32), 2.5 * blur)
    painted = []
    for patch in PATCHES:
        if rng.random() >= patch.chance:
            continue
        field = random_field(labels.shape, spacing, patch.scale, rng) + 2 * inside
        mask = core & (field > np.quantile(field[core], 1 - rng.uniform(*patch.share)))
        alpha = ndimage.gaussian_filter(mask.astype(np.float32), blur) * core
        painted.append((alpha, rng.uniform(*patch.t1w), rng.uniform(*patch.flair)))
    return painted


def mix(
    labels: np.ndarray,
    tissues: np.ndarray,
    spacing: Spacing,
    rng: np.random.Generator,
    *,
    wild: bool,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """How much of each voxel is tumour (0-1), and which share of that is oedema, core, rim."""
    # Where tumours may be faint, oedema has to be seen up to where its outline is.
    widths, grey, white, fluid = (
        ((0.5, 1.5), (0.6, 0.9), (0.85, 1.0), 0.4)
        if wild
        else ((1.5, 3.5), (0.35, 0.7), (0.75, 0.95), 0.2)
    )
    blur = rng.uniform(0.8, 1.6) / np.asarray(spacing)
    shares = [
        ndimage.gaussian_filter((labels == label).astype(np.float32), blur)
        for label in (EDEMA, CORE, RIM)
    ]
    total = np.maximum(sum(shares), 1e-6)
    shares = [share / total for share in shares]
    # Oedema starts faintly and spares the cortex; the core replaces whatever was there.
    depth = depth_inside(labels > 0, spacing)
    width = rng.uniform(*widths) * np.exp(0.3 * random_field(labels.shape, spacing, 8.0, rng))
    susceptible = np.array((0, rng.uniform(*grey), rng.uniform(*white), fluid), np.float32)
    edema = (1 - np.exp(-depth / width)) * ndimage.gaussian_filter(susceptible[tissues], blur)
    return shares[0] * edema + 0.95 * (shares[1] + shares[2]), shares


def paint(
    healthy: np.ndarray,
    level: float,
    opacity: np.ndarray,
    shares: list[np.ndarray],
    contrast: tuple[Range, Range, Range],
    roughness: float,
    spacing: Spacing,
    rng: np.random.Generator,
) -> np.ndarray:
    """Blend a tumour into an image.

    Parameters
    ----------
    healthy
        Image (X, Y, Z).
    level
        Intensity that the contrasts are relative to.
    opacity, shares
        What :func:`mix` makes.
    contrast
        Ranges of oedema, core and rim, relative to it.
    roughness
        Strength of the texture; 1 is typical.
    spacing
        Voxel size in mm.
    """
    texture = 1 + 0.05 * roughness * random_field(healthy.shape, spacing, 3.0, rng)
    texture += 0.1 * roughness * random_field(healthy.shape, spacing, 12.0, rng)
    mixed = sum(
        share * rng.uniform(*limits) for share, limits in zip(shares, contrast, strict=True)
    )
    return (1 - opacity) * healthy + opacity * level * np.maximum(texture, 0.2) * mixed
