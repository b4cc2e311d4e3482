"""Random batches of cases: slices and cubes, at the resolution of the cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tumorreg_wf.defaults import DILATION
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import dilate_mask
from tumorreg_wf.models.segmentation import neighbours
from tumorreg_wf.shapes import deep_voxels
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

#: Holes show at least this much normal tissue, in slices mm^2 and in cubes mm^3.
SMALLEST_AREA, SMALLEST_VOLUME = 50.0, 200.0

#: Size of holes relative to the tumours that lend their shapes.
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
    device : torch device that holds the images and draws.
    """

    def __init__(
        self,
        groups: list[tuple[list[Case], float]],
        *,
        size: tuple[int, ...],
        batch: int,
        device: str = 'cpu',
    ) -> None:
        self.groups = [cases for cases, share in groups if cases and share]
        shares = np.array([share for cases, share in groups if cases and share])
        self.shares = shares / shares.sum()
        self.cases = [case for cases in self.groups for case in cases]
        self.donors = [case for case in self.cases if case.tumor.any()]
        self.volumes = {
            id(case): [
                None if array is None else torch.from_numpy(array).to(device)
                for array in (case.t1w, case.flair, case.tumor)
            ]
            for case in self.cases
        }
        self.size, self.batch = size, batch

    def _view(
        self, case: Case, channels: int, rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        """Volumes (K, H, W) of the T1w, or of both images, and of the tumour, in a random view.

        ``at_tumor`` is how often a view of a part of the brain shows the tumour.
        """
        *images, tumor = self.volumes[id(case)]
        return self._turn(case, [*images[:channels], tumor], rng, at_tumor)

    def _turn(
        self, case: Case, volumes: list[Tensor], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        """Volumes (X, Y, Z) in one random view."""
        raise NotImplementedError

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        cases = self.groups[rng.choice(len(self.groups), p=self.shares)]
        case = cases[rng.integers(len(cases))]
        *views, tumor = self._view(case, 1 if case.flair is None else 2, rng, at_tumor=0.7)
        if self.donors and rng.random() < GRAFTED:
            views, tumor = self._graft(views, tumor, rng)
        channels = range(len(views))
        if case.flair is not None:
            seen = rng.choice(3, p=[WITHOUT_FLAIR, WITHOUT_T1W, 1 - WITHOUT_FLAIR - WITHOUT_T1W])
            channels = (range(1), range(1, 2), range(2))[seen]
        faded = channels[rng.integers(len(channels))] if rng.random() < FADED else None
        image = torch.zeros(2, *tumor.shape, device=tumor.device)
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
        if len(views) == 2 and donor.flair is None:
            return views, tumor
        *lent, other = self._view(donor, len(views), rng, at_tumor=1)
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

    def __init__(self, groups, *, offsets: Sequence[int], **settings) -> None:
        super().__init__(groups, **settings)
        self.offsets = np.array(offsets)
        # of large voxels neighbours may be the slice itself
        middle = len(offsets) // 2
        self.middle = slice(middle, middle + 1)

    def _turn(
        self, case: Case, volumes: list[Tensor], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        wanted = case.tumor if rng.random() < at_tumor and case.tumor.any() else case.brain
        slices = np.flatnonzero(wanted.any(axis=(0, 1)))
        k = slices[rng.integers(len(slices))]
        slabs = [neighbours(volume, k, self.offsets).float() for volume in volumes]
        stack = random_affine(torch.cat(slabs), None, self.size, rng)
        return list(stack.split(len(self.offsets)))

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        image, tumor = super()._draw(rng)
        return image.flatten(0, 1), tumor[self.middle]


class SegmentationVolumes(SegmentationBatches):
    """Random upright brains, their mid-sagittal plane about the middle.

    Calling it with a generator gives ``(images (N, 2, X, Y, Z), targets (N, 1, X, Y, Z))``, for
    :class:`tumorreg_wf.models.unet3d.MirrorUNet`.
    """

    def __init__(self, groups, **settings) -> None:
        super().__init__(groups, **settings)
        self.upright = {
            id(case): upright(case.t1w.astype(np.float32), case.brain) for case in self.cases
        }

    def _turn(
        self, case: Case, volumes: list[Tensor], rng: np.random.Generator, at_tumor: float
    ) -> list[Tensor]:
        # as well as the plane is found in most, or badly
        off = 1 if rng.random() < WELL_CENTRED else 3
        turned = random_matrix(
            np.zeros(3), self.size, rng, jitter=(1.5 * off, 4, 4), turn=(12, 4 * off, 4 * off)
        )
        return list(sample(volumes, self.upright[id(case)] @ turned, self.size))

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
    size : height and width of a slice, or edges of a cube, voxels.
    batch : slices or cubes in a batch.
    device : torch device that holds the images and draws.
    """

    #: Axes of a view, and the least size of what its hole shows, mm to that power.
    dimensions: int
    smallest: float

    def __init__(
        self,
        cases: list[Case],
        shapes: list[np.ndarray],
        *,
        spacing: float,
        size: Sequence[int],
        batch: int,
        device: str = 'cpu',
    ) -> None:
        margin = int(np.ceil(DILATION / spacing)) + 1
        edges = np.full(3, spacing)
        grown = (dilate_mask(np.pad(shape > 0, margin), edges, DILATION) for shape in shapes)
        least = 2 * SMALLEST_VOLUME / spacing**3
        self.shapes = [shape for shape in grown if shape.sum() >= least]
        if not self.shapes:
            raise TumorregError('None of the tumour shapes is large enough to make holes of.')
        self.tumors = [dilate_mask(case.tumor, edges, 5.0) for case in cases]
        self.centres = [deep_voxels(case.brain) for case in cases]
        self.volumes = [
            [torch.from_numpy(array).to(device) for array in (case.t1w, tumor, case.brain)]
            for case, tumor in zip(cases, self.tumors, strict=True)
        ]
        self.holes = [torch.from_numpy(shape).to(device) for shape in self.shapes]
        self.least = self.smallest / spacing**self.dimensions
        self.cases, self.size, self.batch = cases, size, batch

    def _scene(
        self, size: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, np.ndarray, Tensor, Tensor, Tensor, Tensor]:
        """A random view of a brain (its number, and where the view lies) with a hole.

        T1w, and whether hole, tumour and brain; each of the size given.
        """
        while True:  # holes that fall on a tumour, or out of the brain, teach nothing
            number = int(rng.integers(len(self.cases)))
            centres = self.centres[number]
            matrix = self._turned(size, rng)
            matrix[:3, 3] += centres[rng.integers(len(centres))]
            t1w, tumor, brain = sample(self.volumes[number], matrix, size)
            tumor, brain = tumor > 0.01, brain >= 0.5
            shape = self.holes[rng.integers(len(self.holes))]
            scale = np.exp(rng.uniform(*np.log(HOLE_SCALES)))
            placed = random_matrix(
                np.array(shape.shape) / 2, size, rng, jitter=8, turn=45, scale=1 / scale
            )
            hole = sample([shape], placed, size)[0] >= 0.5
            if (hole & brain & ~tumor).sum() >= self.least:
                return number, matrix, t1w, hole, tumor, brain

    def _turned(self, size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Map (4, 4) from the voxels of a view to those about the middle of a brain."""
        return random_matrix(np.zeros(3), size, rng, jitter=4)


class InpaintingSlices(InpaintingBatches):
    """Random slices of normal tissue with holes of other patients' tumours.

    Calling it with a generator gives ``(images, masks, truth, valid)``, each (N, 1, H, W), see
    :func:`tumorreg_wf.training.losses.inpainting_loss`.
    """

    dimensions, smallest = 2, SMALLEST_AREA

    def _turned(self, size: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        axial = super()._turned(size, rng)
        return axial[[*rng.permutation(3), 3]]  # or coronal, or sagittal

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        _, _, *scene = self._scene((*self.size, 1), rng)
        t1w, hole, tumor, brain = (part[..., 0] for part in scene)
        truth = (t1w * brain * float(rng.uniform(0.9, 1.1)))[None]
        known = ~((hole | tumor) & brain)
        return truth, known[None].float(), truth, (~tumor)[None].float()


class InpaintingCubes(InpaintingBatches):
    """Random cubes of normal tissue with holes of other patients' tumours.

    Calling it with a generator gives ``(images, masks, truth, valid)``: images and masks
    (N, 2, S, S, S) of the brain and of its mirror image; truth and valid (N, 1, S, S, S), see
    :func:`tumorreg_wf.training.losses.recovery_loss`.
    """

    dimensions, smallest = 3, SMALLEST_VOLUME

    def __init__(self, cases: list[Case], shapes: list[np.ndarray], **settings) -> None:
        super().__init__(cases, shapes, **settings)
        self.mirrors = [
            fit_mirror(case.t1w.astype(np.float32), case.brain & ~tumor)
            for case, tumor in zip(cases, self.tumors, strict=True)
        ]

    def _draw(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        number, matrix, t1w, hole, tumor, brain = self._scene(self.size, rng)
        mirrored = self.mirrors[number] @ matrix
        other, tumor_there = sample(self.volumes[number][:2], mirrored, self.size)
        (hole_there,) = sample([hole], np.linalg.inv(matrix) @ mirrored, self.size)
        gain = float(rng.uniform(0.85, 1.15))
        offset = float(rng.uniform(-0.2, 0.2))
        truth = (t1w * gain + offset) * brain
        # beyond the brain's own voxels there is nothing to see on the other side either
        other = torch.where(other != 0, other * gain + offset, 0)
        known = ~((hole | tumor) & brain)
        known_there = ~((hole_there > 0.01) | (tumor_there > 0.01))
        return (
            torch.stack([truth, other]),
            torch.stack([known, known_there]).float(),
            truth[None],
            (~tumor & brain)[None].float(),
        )
