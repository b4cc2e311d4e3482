"""Whole heads: anatomical label maps in memory, deformed at random, with tumours put in."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, load_image, to_network_grid
from tumorreg_wf.shapes import find_shapes, name_of, read_shape
from tumorreg_wf.training.anatomy import FLUID, STRUCTURES, strip_labels
from tumorreg_wf.training.fields import random_field

#: What a head consists of besides the brain: labels as in SimNIBS's CHARM atlas, and ranges of
#: T1w intensity relative to white matter. ``None``: no label of the map has it.
SURROUNDINGS: tuple[tuple[int | None, tuple[float, float]], ...] = (
    (0, (0.0, 0.03)),  # air
    (None, (0.1, 0.55)),  # CSF away from the brain
    (502, (0.1, 2.0)),  # arteries
    (506, (0.15, 0.5)),  # eyes
    (507, (0.3, 1.2)),  # muscle and other soft tissue
    (None, (0.7, 2.5)),  # the same next to the skin: fat
    (508, (0.3, 0.9)),  # muscles of the eye
    (509, (0.4, 1.3)),  # mucosa
    (511, (0.3, 1.6)),  # skin
    (512, (0.8, 1.0)),  # spinal cord
    (514, (0.15, 1.6)),  # veins
    (515, (0.02, 0.35)),  # cortical bone
    (516, (0.2, 1.8)),  # cancellous bone
    (530, (0.6, 1.0)),  # optic nerve
)
AIR, OUTER_FLUID, SOFT, FAT = 0, 1, 4, 5
#: Codes of the brain's structures follow, in the order of :data:`STRUCTURES`; then the tumour.
BRAIN = len(SURROUNDINGS)
TUMOR = BRAIN + len(STRUCTURES)
#: Added to the code of what lies within the brain.
INSIDE = 128

#: Thickness of the fat below the skin, mm.
FAT_DEPTH = 6

#: Voxel edge of the shapes of tumours, mm.
SHAPE_SPACING = 2.0

#: So deep below the surface of the brain tumours "at the surface" have their middle at most, mm.
SURFACE = 15.0

#: How often a head has no tumour, one, and two.
TUMORS = (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class Head:
    """A label map of a whole head at 1 mm; axes R, A, S, cropped to the head.

    Attributes
    ----------
    name : of its file.
    codes : uint8 (X, Y, Z), see :data:`SURROUNDINGS` and :data:`INSIDE`.
    centre : middle of the brain, voxels.
    """

    name: str
    codes: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Heads:
    """Heads to learn from and to be judged by, and shapes of tumours (uint8, at 2 mm)."""

    heads: list[Head]
    held_out: list[Head]
    shapes: list[np.ndarray]

    def checksum(self) -> str:
        """A number that differs where any voxel or name does."""
        everyone = [*self.heads, *self.held_out]
        total = zlib.crc32(' '.join(head.name for head in everyone).encode())
        for array in [*(head.codes for head in everyone), *self.shapes]:
            total = zlib.crc32(np.ascontiguousarray(array).data, total)
        return f'{total:08x}'

    def facts(self) -> dict:
        """What a model card says of them."""
        return {'anatomies': [head.name for head in self.heads], 'shapes': len(self.shapes)}


def read_heads(
    folder: Path,
    shapes: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    validate: Sequence[str] = (),
) -> Heads:
    """Read label maps of heads, and set apart those to be judged by.

    Parameters
    ----------
    folder : of label maps: FreeSurfer indices in the brain, :data:`SURROUNDINGS` around it.
    shapes : tumour label volumes.
    exclude, validate : names of label maps to leave out, and to be judged by.
    """
    heads = [read_head(path) for path in find_shapes(folder) if name_of(path) not in exclude]
    held_out = [head for head in heads if head.name in validate]
    learnt = [head for head in heads if head.name not in validate]
    if not learnt:
        raise TumorregError(f'{folder}: no label maps to learn from are left.')
    return Heads(learnt, held_out, [read_shape(path, spacing=SHAPE_SPACING) for path in shapes])


def read_head(path: Path) -> Head:
    """Read one label map."""
    image = to_network_grid(load_image(path), spacing=1.0, order=0)
    labels = image.get_fdata(dtype=np.float32).astype(np.int32)
    stripped = strip_labels(labels, (1, 1, 1)) > 0
    if not stripped.any():
        raise TumorregError(f'{path}: no FreeSurfer labels of a brain (2, 3, 41, 42 ...).')
    box = bounding_box(labels > 0)
    labels, stripped = labels[box], stripped[box]
    # vessels that run through the brain belong to it
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(stripped))
    table = np.full(max(1024, int(labels.max()) + 1), SOFT, np.uint8)
    for code, (label, _) in enumerate(SURROUNDINGS):
        if label is not None:
            table[label] = code
    for code, (_, indices, *_) in enumerate(STRUCTURES, BRAIN):
        table[list(indices)] = code
    codes = table[labels]
    codes[np.isin(labels, FLUID) & ~inside] = OUTER_FLUID
    outer = ndimage.maximum_filter((labels == 511) | (labels == 0), 2 * FAT_DEPTH + 1)
    codes[(codes == SOFT) & outer] = FAT
    centre = np.array([(side.start + side.stop) / 2 for side in bounding_box(inside)])
    return Head(name_of(path), codes + INSIDE * inside.astype(np.uint8), centre)


def deform_head(
    head: Head, rng: np.random.Generator, *, spacing: float, size: int, jitter: float
) -> np.ndarray:
    """Codes (uint8, S, S, S) of a head turned, scaled, mirrored and bent at random.

    Parameters
    ----------
    spacing, size : of the cubic grid, about whose middle the brain lies; mm, voxels.
    jitter : largest distance of the brain from that middle along each axis, mm.
    """
    extent = spacing * size
    coarse = -(-int(extent) // 8) + 1
    # the outermost of the grid's voxels are where the outermost coarse points are
    axis = np.linspace(-1, 1, coarse) * (extent - spacing) / 2
    points = np.stack(np.meshgrid(axis, axis, axis, indexing='ij')).reshape(3, -1)
    points = points - rng.uniform(-jitter, jitter, (3, 1))
    matrix = np.diag(np.exp(rng.uniform(-0.1, 0.1, 3) + rng.uniform(-0.1, 0.1)))
    for i, angle in enumerate(np.deg2rad(rng.uniform(-16, 16, 3))):
        turn = np.eye(3)
        j, k = (i + 1) % 3, (i + 2) % 3
        turn[[j, j, k, k], [j, k, j, k]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = matrix @ turn
    matrix[np.triu_indices(3, 1)] += rng.uniform(-0.06, 0.06, 3)
    if rng.random() < 0.5:
        matrix[0] *= -1  # left and right
    points = (matrix @ points).reshape(3, coarse, coarse, coarse)
    for scale, largest in ((45.0, 5.0), (20.0, 1.5)):
        strength = rng.uniform(0, largest)
        for part in points:
            part += strength * random_field(part.shape, np.full(3, 8.0), scale, rng)
    points += head.centre.reshape(3, 1, 1, 1)
    fine = F.interpolate(
        torch.from_numpy(points.astype(np.float32))[None],
        [size] * 3,
        mode='trilinear',
        align_corners=True,
    )[0]
    return _look_up(head.codes, fine.round_().int())


def _look_up(volume: np.ndarray, voxels: torch.Tensor) -> np.ndarray:
    """Values of a volume at voxels (3, ...); 0 beyond it."""
    index = torch.zeros_like(voxels[0])
    within = torch.ones_like(index, dtype=torch.bool)
    for along, length in zip(voxels, volume.shape, strict=True):
        within &= (along >= 0) & (along < length)
        index = index * length + along.clamp(0, length - 1)
    values = torch.from_numpy(volume.ravel()).take(index.long())
    return (values * within).numpy()


def add_tumor(
    codes: np.ndarray,
    shape: np.ndarray,
    spacing: float,
    rng: np.random.Generator,
    *,
    at_surface: float = 0.0,
) -> None:
    """Put a tumour anywhere into the brain, in place; it may reach into the CSF around it.

    ``at_surface`` is as in :func:`place_tumor`.
    """
    box, tumor = place_tumor(codes, shape, spacing, rng, at_surface=at_surface)
    region = codes[box]
    possible = (region >= INSIDE) | (region == OUTER_FLUID)
    region[...] = np.where(
        possible & (tumor > 0), TUMOR - 1 + np.minimum(tumor, 3) + INSIDE, region
    )


def place_tumor(
    codes: np.ndarray,
    shape: np.ndarray,
    spacing: float,
    rng: np.random.Generator,
    *,
    at_surface: float = 0.0,
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Turn and scale a tumour at random, and lay it over a part of the brain.

    Parameters
    ----------
    at_surface : how often its middle is moved to within :data:`SURFACE` of where the brain ends.

    Returns
    -------
    box : of the codes where it lies; empty where there is no brain.
    tumor : labels of the shape in that box, wherever the brain ends.
    """
    brain = np.flatnonzero(codes.ravel()[::31] >= INSIDE) * 31
    if not len(brain):
        return (slice(0),) * 3, np.zeros((0, 0, 0), shape.dtype)
    centre = np.array(np.unravel_index(brain[rng.integers(len(brain))], codes.shape))
    if at_surface and rng.random() < at_surface:
        centre = _towards_surface(codes, centre, rng.uniform(0, SURFACE) / spacing, rng)
    # any rotation: a random matrix made orthogonal
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    scale = np.exp(rng.uniform(np.log(0.4), np.log(1.3)))
    reach = int(np.ceil(np.linalg.norm(shape.shape) / 2 * SHAPE_SPACING * scale / spacing))
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, codes.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)),
                                indexing='ij')).reshape(3, -1)  # fmt: skip
    voxels = turn @ (grid - centre[:, None]) * spacing / SHAPE_SPACING / scale
    voxels = np.rint(voxels + np.array(shape.shape)[:, None] / 2).astype(np.int32)
    return box, _look_up(shape, torch.from_numpy(voxels)).reshape(codes[box].shape)


def _towards_surface(
    codes: np.ndarray, voxel: np.ndarray, depth: float, rng: np.random.Generator
) -> np.ndarray:
    """The voxel so deep (voxels) below where the brain ends in a random direction."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    steps = np.arange(max(codes.shape) * 2)
    line = np.rint(voxel + steps[:, None] * direction).astype(int)
    line = line[((line >= 0) & (line < codes.shape)).all(axis=1)]
    left = np.flatnonzero(codes[tuple(line.T)] < INSIDE)
    end = left[0] if len(left) else len(line) - 1
    return line[max(0, end - round(depth))]
