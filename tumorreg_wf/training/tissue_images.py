"""Parts of stripped brains drawn from label maps, and their tissues; batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.models.tissues import scale_intensity
from tumorreg_wf.tissues import CSF
from tumorreg_wf.training.anatomy import STRUCTURES, random_t1w_levels
from tumorreg_wf.training.fields import random_field
from tumorreg_wf.training.head_images import random_contrast
from tumorreg_wf.training.heads import (
    BRAIN,
    INSIDE,
    OUTER_FLUID,
    TUMOR,
    TUMORS,
    Head,
    deform_head,
    place_tumor,
)
from tumorreg_wf.training.scanner import random_scanner, scan

#: Voxel edge at which label maps are drawn, mm.
SPACING = (1.0, 1.0, 1.0)

#: Tissue (1 GM, 2 WM, 3 CSF) of each code in a brain; 0 where it is not known: what is no
#: brain and lies within it.
TISSUE_OF = np.zeros(INSIDE, np.uint8)
TISSUE_OF[BRAIN : BRAIN + len(STRUCTURES)] = [tissue for tissue, *_ in STRUCTURES]

#: Largest distance of a cube's middle from that of the brain along each axis, mm; and the part of
#: it that must be brain.
JITTER, LEAST_BRAIN = 50.0, 0.15

#: Cubes drawn before a brain is given up as too small.
TRIES = 200

#: How often something of what surrounds a brain is left.
BADLY_STRIPPED = 0.3

#: How often structures have the grey values of simulated patients; otherwise each is some tenth
#: brighter or darker than those.
AS_SIMULATED = 0.5

#: Of oedema, core and rim of a tumour: grey values, white matter being 1, and how much they hide
#: of the tissue, from nothing to all.
TUMOR_LEVELS = ((0.5, 1.0), (0.1, 1.2), (0.4, 1.4))
TUMOR_OPACITY = ((0.2, 0.9), (0.5, 1.0), (0.5, 1.0))


def draw_tissues(
    codes: np.ndarray, rng: np.random.Generator, shapes: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a T1w of any scanner of a deformed head, at 1 mm; what is no brain is cut away.

    Parameters
    ----------
    codes : (X, Y, Z), see :mod:`tumorreg_wf.training.heads`; some of it brain.
    shapes : of tumours, with as many of which in a brain as :data:`TUMORS` says. They are laid
        over the tissue like frosted glass: it shows through, and stays what is to be found.

    Returns
    -------
    image : float32, scaled as for the network.
    tissues : uint8, 1 GM, 2 WM, 3 CSF; 0 outside the brain and where it is not known.
    """
    inside, kinds = codes >= INSIDE, codes & (INSIDE - 1)

    def field(scale: float) -> np.ndarray:
        return random_field(codes.shape, SPACING, scale, rng)

    visible = inside
    if rng.random() < BADLY_STRIPPED:
        around = ndimage.maximum_filter(inside, 2 * int(rng.integers(1, 4)) + 1)
        visible = inside | (around & (field(25.0) > rng.uniform(0, 2)))
    levels, spread = random_contrast(rng, like_t1w=True)
    if rng.random() < AS_SIMULATED:
        levels[BRAIN:TUMOR] = random_t1w_levels(rng)
    image = levels[kinds] + spread[kinds] * field(rng.uniform(4, 20))
    image *= 1 + rng.uniform(0, 0.03) * field(1.0)
    for _ in range(rng.choice(len(TUMORS), p=TUMORS) if len(shapes) else 0):
        _cover(image, codes, shapes[int(rng.integers(len(shapes)))], rng)
    # outside there is fluid too: the edge of the brain is not darker than that
    image = np.where(visible, np.maximum(image, 0), levels[OUTER_FLUID]).astype(np.float32)
    image = ndimage.gaussian_filter(image, rng.uniform(0.4, 0.9))
    (image,) = scan([image], visible, 1.0, SPACING, random_scanner(rng, wild=True), rng)
    image = scale_intensity(image, inside) * np.exp(rng.uniform(-0.1, 0.1))
    return image.astype(np.float32), np.where(inside, TISSUE_OF[kinds], 0)


def _cover(
    image: np.ndarray, codes: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> None:
    """Lay a tumour over the brain in an image whose white matter is about 1, in place."""
    box, tumor = place_tumor(codes, shape, 1.0, rng)
    region = codes[box]
    covered = region >= INSIDE
    if rng.random() < 0.5:  # fluid stays as dark as it is
        covered &= TISSUE_OF[region & (INSIDE - 1)] != CSF
    level, opacity = np.zeros((2, *tumor.shape), np.float32)
    for part, (levels, hidden) in enumerate(zip(TUMOR_LEVELS, TUMOR_OPACITY, strict=True), 1):
        here = np.minimum(tumor, 3) == part
        level[here], opacity[here] = rng.uniform(*levels), rng.uniform(*hidden)
    if not opacity.any():
        return
    level *= 1 + rng.uniform(0, 0.25) * random_field(tumor.shape, SPACING, rng.uniform(1, 8), rng)
    # where a tumour ends nobody sees: its grey values fade with it
    blur = rng.uniform(0.3, 2.5)
    weighted = ndimage.gaussian_filter(level * opacity, blur)
    opacity = ndimage.gaussian_filter(opacity, blur)
    image[box] = np.where(covered, image[box] * (1 - opacity) + weighted, image[box])


class TissueBatches:
    """Random cubes of stripped brains; those of a batch are of one bent head.

    Calling it with a generator gives ``(images (N, 1, S, S, S), tissues (N, S, S, S))``, as
    :func:`draw_tissues` does.

    Parameters
    ----------
    heads, shapes : as :func:`tumorreg_wf.training.heads.read_heads` gives them.
    size : edge of a cube, voxels of 1 mm.
    batch : cubes in a batch.
    """

    def __init__(
        self, heads: list[Head], shapes: Sequence[np.ndarray] = (), *, size: int, batch: int
    ) -> None:
        self.heads, self.shapes = heads, shapes
        self.size, self.batch = size, batch

    def __call__(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        codes = self._codes(rng)
        drawn = (draw_tissues(codes, rng, self.shapes) for _ in range(self.batch))
        images, tissues = zip(*drawn, strict=True)
        return (
            torch.from_numpy(np.stack(images))[:, None],
            torch.from_numpy(np.stack(tissues).astype(np.int64)),
        )

    def _codes(self, rng: np.random.Generator) -> np.ndarray:
        """Codes of a cube with enough of the brain of a head in it."""
        for _ in range(TRIES):
            head = self.heads[rng.integers(len(self.heads))]
            codes = deform_head(head, rng, spacing=1.0, size=self.size, jitter=JITTER)
            if (codes >= INSIDE).mean() >= LEAST_BRAIN:
                return codes
        names = ', '.join(sorted({head.name for head in self.heads}))
        raise TumorregError(f'{names}: the brain in these label maps is too small to learn from.')
