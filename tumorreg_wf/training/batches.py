"""Random batches of cases: slices and cubes, at the resolution of the cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import dilate_mask
from tumorreg_wf.models.segmentation import neighbours
from tumorreg_wf.shapes import deep_voxels, place_shape
from tumorreg_wf.symmetry import fit_mirror, upright
from tumorreg_wf.training.augment import (
    augment,
    fade,
    graft,
    random_affine,
    random_matrix,
    sample,
)
from tumorreg_wf.training.datasets import Case

#: A FLAIR is taken away as often as this, so that a T1w alone has to do; and the T1w, so that
#: a tumour is found that only the FLAIR shows.
WITHOUT_FLAIR, WITHOUT_T1W = 0.3, 0.1

#: A tumour is made to stand out less in one of the images as often as this: some show in the
#: FLAIR or in the T1w alone.
FADED = 0.4

#: A brain gets the tumour of another patient as well as often as this: few tumours in few
#: brains become many in many.
GRAFTED = 0.35

#: How often a whole brain's mid-sagittal plane is where it should be, or nearly.
WELL_CENTRED = 0.75

#: Holes in slices have at least this many pixels.
SMALLEST_HOLE = 50

#: Holes in cubes show at least this much normal tissue, mm^3.
SMALLEST_HOLE_VOLUME = 200.0

#: Size of holes in cubes relative to the tumours that lend their shapes.
HOLE_SCALES = (0.35, 1.15)


class Batches:
    """Calling it with a generator gives a batch of random draws, part by part."""

    batch: int

    def __call__(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        draws = [self._draw(rng) for _ in range(self.batch)]
        return tuple(torch.stack(part) for part in zip(*draws, strict=True))

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        raise NotImplementedError


class SegmentationBatches(Batches):
    """Random augmented views of brains, with tumour masks.

    Parameters
    ----------
    groups : lists of cases, and how often a view is drawn from each.
    size : of a view, pixels or voxels.
    batch : views in a batch.
    """

    def __init__(
        self, groups: list[tuple[list[Case], float]], *, size: tuple[int, ...], batch: int
    ) -> None:
        self.groups = [cases for cases, share in groups if cases and share]
        shares = np.array([share for cases, share in groups if cases and share])
        self.shares = shares / shares.sum()
        self.cases = [case for cases in self.groups for case in cases]
        self.donors = [case for case in self.cases if case.tumor.any()]
        self.size, self.batch = size, batch

    def _view(
        self, case: Case, volumes: list[np.ndarray], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        """Volumes (K, H, W) of images and tumour, all in one random view.

        ``at_tumor`` is how often a view of a part of the brain shows the tumour.
        """
        raise NotImplementedError

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        cases = self.groups[rng.choice(len(self.groups), p=self.shares)]
        case = cases[rng.integers(len(cases))]
        volumes = [case.t1w] if case.flair is None else [case.t1w, case.flair]
        *views, tumor = self._view(case, volumes, rng, at_tumor=0.7)
        if self.donors and rng.random() < GRAFTED:
            views, tumor = self._graft(views, tumor, rng)
        channels = range(len(views))
        if case.flair is not None:
            seen = rng.choice(3, p=[WITHOUT_FLAIR, WITHOUT_T1W, 1 - WITHOUT_FLAIR - WITHOUT_T1W])
            channels = (range(1), range(1, 2), range(2))[seen]
        faded = channels[rng.integers(len(channels))] if rng.random() < FADED else None
        image = torch.zeros(2, *tumor.shape)
        for channel in channels:
            view = views[channel]
            brain = view != 0
            if channel == faded:  # where nothing else shows the tumour, something of it stays
                view = fade(view, tumor, brain, rng.uniform(0.5 if len(channels) == 1 else 0, 1))
            image[channel] = augment(view, brain, rng)
        return image, (tumor >= 0.5).float()

    def _graft(
        self, views: list[Tensor], tumor: Tensor, rng: np.random.Generator
    ) -> tuple[list[Tensor], Tensor]:
        """Add a tumour of another patient who has all the images."""
        donor = self.donors[rng.integers(len(self.donors))]
        volumes = [one for one in (donor.t1w, donor.flair)[: len(views)] if one is not None]
        if len(volumes) < len(views):
            return views, tumor
        *lent, other = self._view(donor, volumes, rng, at_tumor=1)
        brain = (views[0] != 0) & (lent[0] != 0)
        views = [graft(view, one, other, brain) for view, one in zip(views, lent, strict=True)]
        return views, torch.maximum(tumor, other * brain)


class SegmentationSlabs(SegmentationBatches):
    """Random axial slices and their neighbours.

    Calling it with a generator gives ``(images (N, 2 K, H, W), targets (N, 1, H, W))``, for
    :class:`tumorreg_wf.models.unet.SlabUNet`.

    Parameters
    ----------
    offsets : where the K slices seen lie from the one marked, voxels; 0 is among them.
    """

    def __init__(self, groups, *, offsets: Sequence[int], size: tuple[int, int], batch: int):
        super().__init__(groups, size=size, batch=batch)
        self.offsets = np.array(offsets)

    def _view(
        self, case: Case, volumes: list[np.ndarray], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        wanted = case.tumor if rng.random() < at_tumor and case.tumor.any() else case.brain
        slices = np.flatnonzero(wanted.any(axis=(0, 1)))
        k = slices[rng.integers(len(slices))]
        slabs = [neighbours(volume, k, self.offsets) for volume in (*volumes, case.tumor)]
        stack = random_affine(np.concatenate(slabs), None, self.size, rng)
        return list(stack.split(len(self.offsets)))

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        image, tumor = super()._draw(rng)
        return image.flatten(0, 1), tumor[self.offsets == 0]


class SegmentationVolumes(SegmentationBatches):
    """Random upright brains, their mid-sagittal plane about the middle.

    Calling it with a generator gives ``(images (N, 2, X, Y, Z), targets (N, 1, X, Y, Z))``, for
    :class:`tumorreg_wf.models.unet3d.MirrorUNet`.
    """

    def __init__(self, groups, *, size: tuple[int, ...], batch: int):
        super().__init__(groups, size=size, batch=batch)
        self.upright = {
            id(case): upright(case.t1w.astype(np.float32), case.brain) for case in self.cases
        }

    def _view(
        self, case: Case, volumes: list[np.ndarray], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        # as well as the plane is found in most, or badly
        off = 1 if rng.random() < WELL_CENTRED else 3
        turned = random_matrix(
            np.zeros(3), self.size, rng, jitter=(1.5 * off, 4, 4), turn=(12, 4 * off, 4 * off)
        )
        return list(sample([*volumes, case.tumor], self.upright[id(case)] @ turned, self.size))

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        image, tumor = super()._draw(rng)
        return image, tumor[None]


class InpaintingBatches(Batches):
    """Normal tissue with holes of other patients' tumours.

    Parameters
    ----------
    cases : brains; of a patient only what is normal is learnt from.
    shapes : tumour label volumes of other patients.
    spacing : voxel edge, mm; the holes are the shapes dilated by 3 mm, as in use.
    size : height and width of a slice, or edge of a cube, voxels.
    batch : slices or cubes in a batch.
    """

    def __init__(
        self,
        cases: list[Case],
        shapes: list[np.ndarray],
        *,
        spacing: float,
        size,
        batch: int,
    ) -> None:
        margin = int(np.ceil(3 / spacing)) + 1
        edges = np.full(3, spacing)
        grown = (dilate_mask(np.pad(shape > 0, margin), edges, 3.0) for shape in shapes)
        self.shapes = [shape for shape in grown if self._is_large(shape, spacing)]
        if not self.shapes:
            raise TumorregError('None of the tumour shapes is large enough to make holes of.')
        self.tumors = [dilate_mask(case.tumor, edges, 5.0) for case in cases]
        self.centres = [deep_voxels(case.brain) for case in cases]
        self.cases, self.size, self.batch = cases, size, batch

    def _is_large(self, shape: np.ndarray, spacing: float) -> bool:
        """Whether holes can be made of a shape."""
        raise NotImplementedError


class InpaintingSlices(InpaintingBatches):
    """Random slices of normal tissue with holes of other patients' tumours.

    Calling it with a generator gives ``(images, masks, truth, valid)``, each (N, 1, H, W), see
    :func:`tumorreg_wf.training.losses.inpainting_loss`.
    """

    def _is_large(self, shape: np.ndarray, spacing: float) -> bool:
        return max(_areas(shape, axis).max() for axis in range(3)) >= SMALLEST_HOLE

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        number = rng.integers(len(self.cases))
        case, tumor = self.cases[number], self.tumors[number]
        normal, hole, holed = case.brain & ~tumor, None, np.zeros(0)
        while not len(holed):  # shapes that fall on a tumour leave nothing to learn
            shape = self.shapes[rng.integers(len(self.shapes))].transpose(rng.permutation(3))
            hole = place_shape(shape, case.brain, self.centres[number], rng)
            axis = int(rng.integers(3))
            holed = np.flatnonzero(_areas(hole & normal, axis) >= SMALLEST_HOLE)
        k = int(holed[rng.integers(len(holed))])
        stack = np.stack(
            [volume.take(k, axis=axis) for volume in (case.t1w, hole | tumor, tumor, case.brain)]
        )
        inside = np.argwhere((hole & normal).take(k, axis=axis))
        centre = inside[rng.integers(len(inside))]
        truth, hidden, diseased, brain = random_affine(stack, centre, self.size, rng)
        # partial voxels of the rim are left as they are
        brain = brain >= 0.5
        truth = (truth * brain * float(rng.uniform(0.9, 1.1)))[None]
        known = (hidden <= 0.01) | ~brain
        return truth, known[None].float(), truth, (diseased <= 0.01)[None].float()


class InpaintingCubes(InpaintingBatches):
    """Random cubes of normal tissue with holes of other patients' tumours.

    Calling it with a generator gives ``(images, masks, truth, valid)``: images and masks
    (N, 2, S, S, S) of the brain and of its mirror image; truth and valid (N, 1, S, S, S), see
    :func:`tumorreg_wf.training.losses.recovery_loss`.
    """

    def __init__(self, cases: list[Case], shapes: list[np.ndarray], **settings) -> None:
        super().__init__(cases, shapes, **settings)
        self.smallest = SMALLEST_HOLE_VOLUME / settings['spacing'] ** 3
        self.mirrors = [
            fit_mirror(case.t1w.astype(np.float32), case.brain & ~tumor)
            for case, tumor in zip(cases, self.tumors, strict=True)
        ]

    def _is_large(self, shape: np.ndarray, spacing: float) -> bool:
        return shape.sum() >= 2 * SMALLEST_HOLE_VOLUME / spacing**3

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        while True:  # holes that fall on a tumour, or out of the brain, teach nothing
            number = rng.integers(len(self.cases))
            case, tumor = self.cases[number], self.tumors[number]
            centres = self.centres[number]
            matrix = random_matrix(centres[rng.integers(len(centres))], self.size, rng, jitter=4)
            t1w, diseased, brain = sample([case.t1w, tumor, case.brain], matrix, self.size)
            diseased, brain = diseased > 0.01, brain >= 0.5
            hole = self._hole(rng)
            if (hole & brain & ~diseased).sum() >= self.smallest:
                break
        mirrored = self.mirrors[number] @ matrix
        other, diseased_there = sample([case.t1w, tumor], mirrored, self.size)
        (hole_there,) = sample([hole.numpy()], np.linalg.inv(matrix) @ mirrored, self.size)
        gain = float(rng.uniform(0.85, 1.15))
        offset = float(rng.uniform(-0.2, 0.2))
        truth = (t1w * gain + offset) * brain
        # beyond the brain's own voxels there is nothing to see on the other side either
        other = torch.where(other != 0, other * gain + offset, 0)
        known = ~((hole | diseased) & brain)
        known_there = ~((hole_there > 0.01) | (diseased_there > 0.01))
        return (
            torch.stack([truth, other]),
            torch.stack([known, known_there]).float(),
            truth[None],
            (~diseased & brain)[None].float(),
        )

    def _hole(self, rng: np.random.Generator) -> Tensor:
        shape = self.shapes[rng.integers(len(self.shapes))]
        scale = np.exp(rng.uniform(*np.log(HOLE_SCALES)))
        matrix = random_matrix(
            np.array(shape.shape) / 2, self.size, rng, jitter=8, turn=45, scale=1 / scale
        )
        return sample([shape], matrix, self.size)[0] >= 0.5


def _areas(mask: np.ndarray, axis: int) -> np.ndarray:
    """Pixels of a mask in each slice across an axis."""
    return mask.sum(axis=tuple({0, 1, 2} - {axis}))
