"""What heads look like: any contrast, scanner and field of view; batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from tumorreg_wf.models.extraction import scale_intensity
from tumorreg_wf.training.anatomy import STRUCTURES
from tumorreg_wf.training.fields import random_field
from tumorreg_wf.training.heads import (
    AIR,
    BRAIN,
    INSIDE,
    OUTER_FLUID,
    SURROUNDINGS,
    TUMOR,
    TUMORS,
    Head,
    add_tumor,
    deform_head,
)

#: How often images have lost the face, or show a part of the head alone.
DEFACED, PARTIAL = 0.1, 0.4

#: How often the brain is about where :func:`~tumorreg_wf.models.extraction.extract_brain` looks
#: at last, and how far away it may be otherwise and then, mm.
FOUND, NEAR, FAR = 0.6, 10.0, 45.0


#: What a voxel of a tumour counts in the loss: few voxels, but losing them is what users mind.
TUMOR_WEIGHT = 30.0

#: Heads are drawn in voxels of about this edge, mm.
DRAWN = 2.0


def times_finer(spacing: float) -> int:
    """How many times finer than the voxels a network sees heads are drawn, to be averaged."""
    return max(1, round(spacing / DRAWN))


class Mixture(NamedTuple):
    """What images are like.

    Attributes
    ----------
    like_t1w : how often they have the contrast of a T1w; of the others every structure has any
        grey value.
    stripped : how often the brain alone is left, or nearly.
    at_surface : how often a tumour is brought near the surface of the brain.
    """

    like_t1w: float = 0.65
    stripped: float = 0.12
    at_surface: float = 0.0


#: What networks are trained on: more tumours than usual where they are easily cut.
USUAL = Mixture(at_surface=0.7)


@dataclass(frozen=True)
class HeadImage:
    """An image of a head with known answers; every array (S, S, S).

    Attributes
    ----------
    image : float32, 0 where nothing was imaged.
    brain, tumor : float32, share of the voxel; the tumour is part of the brain.
    """

    image: np.ndarray
    brain: np.ndarray
    tumor: np.ndarray


def draw_head(
    head: Head,
    shapes: list[np.ndarray],
    rng: np.random.Generator,
    *,
    spacing: float,
    size: int,
    finer: int = 1,
    mixture: Mixture = USUAL,
) -> HeadImage:
    """Draw an image of a head.

    Parameters
    ----------
    shapes : of tumours.
    spacing, size : of the image's cubic grid; mm, voxels.
    finer : the head is drawn with as many voxels for each of the image's along an axis, then
        averaged, so that voxels at borders show a part of each side.
    mixture : what it is like.
    """
    jitter = NEAR if rng.random() < FOUND else FAR
    codes = deform_head(head, rng, spacing=spacing / finer, size=size * finer, jitter=jitter)
    return draw_image(codes, shapes, rng, spacing=spacing, finer=finer, mixture=mixture)


def draw_image(
    codes: np.ndarray,
    shapes: list[np.ndarray],
    rng: np.random.Generator,
    *,
    spacing: float,
    finer: int = 1,
    mixture: Mixture = USUAL,
) -> HeadImage:
    """Put tumours into a deformed head, and draw its image; see :func:`draw_head`."""
    fine, size = spacing / finer, len(codes) // finer
    codes = codes.copy()
    for _ in range(rng.choice(len(TUMORS), p=TUMORS) if shapes else 0):
        add_tumor(
            codes, shapes[rng.integers(len(shapes))], fine, rng, at_surface=mixture.at_surface
        )
    inside, kinds = codes >= INSIDE, codes & (INSIDE - 1)
    visible = np.ones(codes.shape, bool)
    levels, spread = random_contrast(rng, like_t1w=rng.random() < mixture.like_t1w)
    if rng.random() < mixture.stripped:
        visible = inside
        if rng.random() < 0.5:  # some of the surroundings are left
            around = ndimage.maximum_filter(inside, max(round(4 / fine), 1) * 2 + 1)
            left = _field(size, spacing, 25.0, rng) > rng.uniform(0, 2)
            visible = inside | (around & _repeat(left, finer))
        levels[AIR] = spread[AIR] = 0
    image = levels[kinds] + spread[kinds] * _repeat(_texture(size, spacing, rng), finer)
    image = _mean(np.maximum(image, 0) * visible, finer)
    imaged = _field_of_view(inside[(slice(None, None, finer),) * 3], rng)
    if visible.all():
        shown = imaged
    else:
        shown = imaged & (_mean(visible, finer) > 0)
    image = scan_head(image, spacing, rng) * shown
    return HeadImage(
        image.astype(np.float32),
        *(_mean(part, finer) * imaged for part in (inside, kinds >= TUMOR)),
    )


def random_contrast(rng: np.random.Generator, *, like_t1w: bool) -> tuple[np.ndarray, np.ndarray]:
    """Grey value of each code, and how much it varies within it (float32)."""
    ranges = [limits for _, limits in SURROUNDINGS]
    ranges += [t1w for _, _, t1w, _ in STRUCTURES]
    ranges += [(0.15, 1.4)] * 3
    low, high = np.array(ranges, np.float32).T
    levels = rng.uniform(low, high)
    if like_t1w:
        levels[1:] *= np.exp(rng.normal(0, 0.12, len(levels) - 1))
    else:
        levels[1:] = rng.uniform(0.02, 1.2, len(levels) - 1)
    if rng.random() < 0.3:  # fluid away from the brain may not be told from the meninges
        levels[OUTER_FLUID] = rng.uniform(0.02, 1.0)
    spread = np.full(len(levels), 0.35) * rng.uniform(0, 1, len(levels))
    spread[AIR] = 0
    spread[BRAIN:TUMOR] = rng.uniform(0, 0.06)
    spread[TUMOR:] = rng.uniform(0, 0.3, len(spread) - TUMOR)
    return levels.astype(np.float32), (spread * levels).astype(np.float32)


def scan_head(image: np.ndarray, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Shade, blur, slice thickly and add noise; then any contrast curve. Arrays (S, S, S)."""
    size = len(image)
    image = image * np.exp(rng.uniform(0, 0.35) * _field(size, spacing, 80.0, rng))
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 3.0) / spacing)
    if rng.random() < 0.3:
        axis, thickness = int(rng.integers(3)), rng.uniform(4, 9)
        slices = [size, size, size]
        slices[axis] = max(1, int(size * min(spacing / thickness, 1)))
        thick = F.adaptive_avg_pool3d(torch.from_numpy(image)[None, None], slices)
        image = F.interpolate(thick, [size] * 3, mode='trilinear')[0, 0].numpy()
    level = np.exp(rng.uniform(np.log(0.003), np.log(0.08)))
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(level)
    image = np.hypot(image + noise[0], noise[1])
    return image ** np.float32(np.exp(rng.uniform(-0.3, 0.3)))


def _field_of_view(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What of a grid was imaged (bool): all, a part along some axes, all but the face."""
    imaged = np.ones(inside.shape, bool)
    where = np.argwhere(inside)
    if not len(where):
        return imaged
    low, high = where.min(0), where.max(0) + 1
    for axis in range(3) if rng.random() < PARTIAL else ():
        span = high[axis] - low[axis]
        start, stop = 0, inside.shape[axis]
        if rng.random() < 0.4:
            start = max(0, int(low[axis] + span * rng.uniform(-0.3, 0.25)))
        if rng.random() < 0.4:
            stop = int(high[axis] - span * rng.uniform(-0.3, 0.25))
        rows = np.arange(inside.shape[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
        imaged &= (rows >= start) & (rows < stop)
    if rng.random() < DEFACED:
        slope = rng.uniform(0.4, 1.5)
        height = np.arange(inside.shape[1])[None, :, None] - slope * np.arange(inside.shape[2])
        cut = (where[:, 1] - slope * where[:, 2]).max() + rng.uniform(0, 4)
        imaged &= height <= cut
    return imaged


class HeadBatches:
    """Random images of a head and its brain.

    To bend a head takes as long as to draw an image of it: those of a batch are of one bent head,
    with other contrasts, tumours and fields of view.

    Calling it with a generator gives ``(images, targets, weights)``, each (N, 1, S, S, S); targets
    are shares of the voxel, weights what it counts in the loss.

    Parameters
    ----------
    heads, shapes : as :func:`tumorreg_wf.training.heads.read_heads` gives them.
    spacing, size : of the network's grid; mm, voxels.
    batch : images in a batch.
    """

    def __init__(
        self, heads: list[Head], shapes: list[np.ndarray], *, spacing: float, size: int, batch: int
    ) -> None:
        self.heads, self.shapes = heads, shapes
        self.spacing, self.size, self.batch = spacing, size, batch
        self.finer = times_finer(spacing)

    def __call__(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        head = self.heads[rng.integers(len(self.heads))]
        codes = deform_head(
            head,
            rng,
            spacing=self.spacing / self.finer,
            size=self.size * self.finer,
            jitter=NEAR if rng.random() < FOUND else FAR,
        )
        images, targets, weights = [], [], []
        for _ in range(self.batch):
            drawn = draw_image(codes, self.shapes, rng, spacing=self.spacing, finer=self.finer)
            images.append(torch.from_numpy(scale_intensity(drawn.image)))
            targets.append(torch.from_numpy(drawn.brain))
            weights.append(torch.from_numpy(1 + (TUMOR_WEIGHT - 1) * drawn.tumor))
        return tuple(torch.stack(part)[:, None] for part in (images, targets, weights))


def _field(size: int, spacing: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    return random_field((size, size, size), np.full(3, spacing), scale, rng)


def _texture(size: int, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Patches of two kinds of tissue and what is between them, in [-1, 1]."""
    return np.tanh(2 * _field(size, spacing, np.exp(rng.uniform(np.log(8), np.log(40))), rng))


def _repeat(array: np.ndarray, times: int) -> np.ndarray:
    for axis in range(3) if times > 1 else ():
        array = np.repeat(array, times, axis)
    return array


def _mean(array: np.ndarray, times: int) -> np.ndarray:
    array = array.astype(np.float32)
    if times == 1:
        return array
    return F.avg_pool3d(torch.from_numpy(array)[None, None], times)[0, 0].numpy()
