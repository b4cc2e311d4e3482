"""What the networks learn from: cases in memory, random slices of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, dilate_mask, load_image, resample, to_network_grid
from tumorreg_wf.intensity import normalize, reference_quantiles, stripped_brain_mask
from tumorreg_wf.symmetry import fit_mirror
from tumorreg_wf.training.simulate import simulate_patient, tissues_from_t1w

#: Holes to learn from have at least this many pixels.
SMALLEST_HOLE = 50


@dataclass(frozen=True)
class Case:
    """One brain on the network grid, cropped to the brain.

    Attributes
    ----------
    name : for logs.
    t1w, flair : normalised, float16 (X, Y, Z); ``flair`` is None where there is none.
    tumor : bool (X, Y, Z).
    brain : bool (X, Y, Z).
    """

    name: str
    t1w: np.ndarray
    flair: np.ndarray | None
    tumor: np.ndarray
    brain: np.ndarray


def read_patients(dataset: Path, *, spacing: float, exclude: Iterable[str] = ()) -> list[Case]:
    """Read patients with reference labels from a BIDS dataset.

    ``sub-X/anat/sub-X_{T1w,FLAIR}.nii.gz``, skull-stripped, and a label or mask of the whole
    tumour ``derivatives/*/sub-X/anat/*_label-tumor_{dseg,mask}.nii.gz`` (any value > 0).
    """
    excluded = {f'sub-{name.removeprefix("sub-")}' for name in exclude}
    cases = []
    for folder in sorted(Path(dataset).glob('sub-*')):
        if folder.name in excluded:
            continue
        anat = f'derivatives/*/{folder.name}/anat'
        labels = [
            path
            for suffix in ('dseg', 'mask')
            for path in sorted(Path(dataset).glob(f'{anat}/*_label-tumor_{suffix}.nii.gz'))
        ]
        if not labels:
            raise TumorregError(
                f'{folder}: no reference label {anat}/*_label-tumor_{{dseg,mask}}.nii.gz. '
                'Add one, or leave this participant out.'
            )
        flair = folder / 'anat' / f'{folder.name}_FLAIR.nii.gz'
        cases.append(
            make_case(
                folder.name,
                load_image(folder / 'anat' / f'{folder.name}_T1w.nii.gz'),
                load_image(flair) if flair.exists() else None,
                load_image(labels[0]),
                spacing=spacing,
            )
        )
    return cases


def read_healthy(dataset: Path, *, spacing: float, exclude: Iterable[str] = ()) -> list[Case]:
    """Read skull-stripped T1w of people without lesions from a BIDS dataset."""
    excluded = {f'sub-{name.removeprefix("sub-")}' for name in exclude}
    return [
        make_case(path.name.split('_')[0], load_image(path), None, None, spacing=spacing)
        for path in sorted(Path(dataset).glob('sub-*/anat/*_T1w.nii.gz'))
        if path.name.split('_')[0] not in excluded
    ]


def read_shapes(folder: Path, *, spacing: float, only: slice) -> list[np.ndarray]:
    """Read tumour label volumes (uint8, cropped to the tumour) that lend their shapes."""
    shapes = []
    for path in sorted(Path(folder).glob('*.nii.gz'))[only]:
        labels = to_network_grid(load_image(path), spacing=spacing, order=0).get_fdata()
        shapes.append(labels[bounding_box(labels > 0)].astype(np.uint8))
    return shapes


def make_case(
    name: str,
    t1w: nb.Nifti1Image,
    flair: nb.Nifti1Image | None,
    label: nb.Nifti1Image | None,
    *,
    spacing: float,
) -> Case:
    """Normalise images, bring them to the network grid and crop them to the brain."""
    data = t1w.get_fdata(dtype=np.float32)
    brain = stripped_brain_mask(data)

    def on_grid(data: np.ndarray, order: int = 1) -> np.ndarray:
        image = nb.Nifti1Image(data.astype(np.float32), t1w.affine)
        return to_network_grid(image, spacing=spacing, order=order).get_fdata(dtype=np.float32)

    def normalized(image: nb.Nifti1Image, modality: str) -> np.ndarray:
        values = resample(image, t1w, order=1).get_fdata(dtype=np.float32)
        return on_grid(normalize(values, brain, reference_quantiles(modality))).astype(np.float16)

    mask = on_grid(brain) >= 0.5
    tumor = np.zeros_like(mask)
    if label is not None:
        tumor = on_grid(resample(label, t1w, order=0).get_fdata() > 0) >= 0.5
    box = bounding_box(mask, margin=2)
    return Case(
        name,
        normalized(t1w, 'T1w')[box],
        None if flair is None else normalized(flair, 'FLAIR')[box],
        tumor[box],
        mask[box],
    )


def simulate_cases(
    healthy: list[Case], shapes: list[np.ndarray], count: int, *, spacing: float, seed: int
) -> list[Case]:
    """Simulate patients: tumour shapes of others grown in healthy brains."""
    rng = np.random.default_rng(seed)
    cases = []
    for number in range(count):
        base = healthy[number % len(healthy)]
        t1w = base.t1w.astype(np.float32) + 4.0
        t1w[~base.brain] = 0
        tissues = tissues_from_t1w(t1w, base.brain)
        shape = shapes[rng.integers(len(shapes))]
        tumor = place_shape(shape, base.brain, deep_voxels(base.brain), rng)
        patient = simulate_patient(t1w, tissues, tumor, (spacing,) * 3, rng)
        brain = patient.t1w != 0
        cases.append(
            Case(
                f'sim-{number:03d}',
                normalize(patient.t1w, brain, reference_quantiles('T1w')).astype(np.float16),
                normalize(patient.flair, brain, reference_quantiles('FLAIR')).astype(np.float16),
                patient.tumor_mask,
                brain,
            )
        )
    return cases


def place_shape(
    shape: np.ndarray, brain: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lay a label volume over a brain, flipped at random, on one of some centres (N, 3)."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            shape = np.flip(shape, axis)
    placed = np.zeros(brain.shape, shape.dtype)
    start = centres[rng.integers(len(centres))] - np.array(shape.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + shape.shape, brain.shape)
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    source = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    placed[target] = shape[source]
    placed[~brain] = 0
    return placed


def deep_voxels(brain: np.ndarray) -> np.ndarray:
    """Voxels (N, 3) away from the edge of a brain, where little of a shape would be inside."""
    depth = ndimage.distance_transform_edt(brain)
    return np.argwhere(depth > 0.35 * depth.max())


class SegmentationSlices:
    """Random augmented axial slices with tumour masks.

    Calling it with a generator gives ``(images (N, 2, H, W), targets (N, 1, H, W))``.

    Parameters
    ----------
    cases : patients; simulated ones are drawn for a quarter of the slices.
    size : height and width of a slice, pixels.
    batch : slices in a batch.
    """

    def __init__(
        self, cases: list[Case], simulated: list[Case], *, size: tuple[int, int], batch: int
    ) -> None:
        self.cases, self.simulated, self.size, self.batch = cases, simulated, size, batch

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = zip(*(self._slice(rng) for _ in range(self.batch)), strict=True)
        return torch.stack(images), torch.stack(targets)

    def _slice(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pool = self.simulated if self.simulated and rng.random() < 0.25 else self.cases
        case = pool[rng.integers(len(pool))]
        wanted = case.tumor if rng.random() < 0.7 and case.tumor.any() else case.brain
        slices = np.flatnonzero(wanted.any(axis=(0, 1)))
        k = slices[rng.integers(len(slices))]
        flair = np.zeros_like(case.t1w) if case.flair is None else case.flair
        if rng.random() < 0.15:
            flair = np.zeros_like(flair)
        stack = np.stack([case.t1w[..., k], flair[..., k], case.tumor[..., k]])
        sampled = random_affine(stack, None, self.size, rng)
        image, target = sampled[:2], (sampled[2:] >= 0.5).float()
        return augment_intensity(image, rng), target


class InpaintingSlices:
    """Random slices of normal tissue with holes of other patients' tumours.

    Calling it with a generator gives ``(images, masks, truth, valid)``: images and masks
    (N, 2, H, W) of the brain and of its mirror image; truth and valid (N, 1, H, W), see
    :func:`tumorreg_wf.training.losses.inpainting_loss`.

    Parameters
    ----------
    cases : brains; of a patient only what is normal is learnt from.
    shapes : tumour label volumes of other patients.
    spacing : voxel edge, mm; the holes are the shapes dilated by 3 mm, as in use.
    size : height and width of a slice, pixels.
    batch : slices in a batch.
    """

    def __init__(
        self,
        cases: list[Case],
        shapes: list[np.ndarray],
        *,
        spacing: float,
        size: tuple[int, int],
        batch: int,
    ) -> None:
        margin = int(np.ceil(3 / spacing)) + 1
        edges = np.full(3, spacing)
        grown = [dilate_mask(np.pad(shape > 0, margin), edges, 3.0) for shape in shapes]
        self.shapes = [
            shape
            for shape in grown
            if max(_areas(shape, axis).max() for axis in range(3)) >= SMALLEST_HOLE
        ]
        if not self.shapes:
            raise TumorregError('None of the tumour shapes is large enough to make holes of.')
        self.tumors = [dilate_mask(case.tumor, edges, 5.0) for case in cases]
        self.mirrors = [
            fit_mirror(case.t1w.astype(np.float32), case.brain & ~tumor)
            for case, tumor in zip(cases, self.tumors, strict=True)
        ]
        self.centres = [deep_voxels(case.brain) for case in cases]
        self.cases, self.size, self.batch = cases, size, batch

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        slices = [self._slice(rng) for _ in range(self.batch)]
        return tuple(torch.stack(part) for part in zip(*slices, strict=True))

    def _slice(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        number = rng.integers(len(self.cases))
        case, tumor = self.cases[number], self.tumors[number]
        normal, hole, holed = case.brain & ~tumor, None, np.zeros(0)
        while not len(holed):  # shapes that fall on a tumour leave nothing to learn
            shape = self.shapes[rng.integers(len(self.shapes))].transpose(rng.permutation(3))
            hole = place_shape(shape, case.brain, self.centres[number], rng)
            axis = int(rng.integers(3))
            holed = np.flatnonzero(_areas(hole & normal, axis) >= SMALLEST_HOLE)
        k = int(holed[rng.integers(len(holed))])
        hidden = hole | tumor

        plane = [np.arange(size) for size in case.brain.shape]
        plane[axis] = np.array([k])
        voxels = np.stack(np.meshgrid(*plane, indexing='ij')).squeeze(axis + 1)
        matrix = self.mirrors[number]
        other = np.tensordot(matrix[:3, :3], voxels, 1) + matrix[:3, 3, None, None]
        stack = np.stack(
            [
                case.t1w[tuple(voxels)],
                _sample(case.t1w, other),
                hidden[tuple(voxels)],
                _sample(hidden, other) > 0.01,
                tumor[tuple(voxels)],
                case.brain[tuple(voxels)],
            ]
        )
        inside = np.argwhere((hole & normal)[tuple(voxels)])
        centre = inside[rng.integers(len(inside))]
        truth, mirrored, *masks = random_affine(stack, centre, self.size, rng)
        hidden_here, hidden_there, diseased = (mask > 0.01 for mask in masks[:3])
        brain = masks[3] >= 0.5
        # partial voxels of the rim are left as they are
        truth = truth * brain * float(rng.uniform(0.9, 1.1))
        known_here = ~hidden_here | ~brain
        return (
            torch.stack([truth, mirrored]),
            torch.stack([known_here, ~hidden_there]).float(),
            truth[None],
            (~diseased)[None].float(),
        )


def _areas(mask: np.ndarray, axis: int) -> np.ndarray:
    """Pixels of a mask in each slice across an axis."""
    return mask.sum(axis=tuple({0, 1, 2} - {axis}))


def _sample(volume: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Read a volume at voxel coordinates (3, H, W), linearly; 0 beyond it."""
    low = np.maximum(np.floor(where.min(axis=(1, 2))).astype(int), 0)
    high = np.ceil(where.max(axis=(1, 2))).astype(int) + 2
    part = volume[tuple(slice(a, max(a + 1, b)) for a, b in zip(low, high, strict=True))]
    if 0 in part.shape:
        return np.zeros(where.shape[1:], np.float32)
    return ndimage.map_coordinates(part.astype(np.float32), where - low[:, None, None], order=1)


def random_affine(
    stack: np.ndarray,
    centre: np.ndarray | None,
    size: tuple[int, int],
    rng: np.random.Generator,
    turn: float = 15,
) -> torch.Tensor:
    """Turn, scale, shear and mirror a stack of slices.

    Parameters
    ----------
    stack : (C, X, Y).
    centre : pixel that comes to lie at the middle of the result; None for the stack's middle.
    size : height and width of the result.
    turn : largest rotation, degrees.

    Returns
    -------
    stack : float32 tensor (C, *size), 0 beyond the input.
    """
    _, height, width = stack.shape
    angle = np.deg2rad(rng.uniform(-turn, turn))
    scale = np.exp(rng.uniform(-0.15, 0.15, 2))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[1, rng.uniform(-0.1, 0.1)], [0, 1]]) @ np.diag(scale)
    if rng.random() < 0.5:
        matrix[0] *= -1  # axis 0 is left to right in axial and coronal slices
    middle = np.array([height - 1, width - 1]) / 2
    shift = (middle if centre is None else np.asarray(centre)) - middle
    # grid_sample wants (x, y) = (axis 1, axis 0) in units of half the input's size
    halves = np.array([height, width]) / 2
    theta = matrix * (np.array(size) / 2)[None] / halves[:, None]
    theta = np.column_stack([theta, shift / halves])[::-1][:, [1, 0, 2]]
    grid = F.affine_grid(
        torch.from_numpy(np.ascontiguousarray(theta, np.float32))[None],
        [1, 1, *size],
        align_corners=False,
    )
    source = torch.from_numpy(stack.astype(np.float32))[None]
    return F.grid_sample(source, grid, align_corners=False)[0]


def augment_intensity(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Vary contrast, brightness, shading, blur and noise of slices (C, H, W) within the brain."""
    brain = image[:1] != 0
    out = []
    for channel in image:
        if not channel.any():
            out.append(channel)
            continue
        gamma = np.exp(rng.uniform(-0.3, 0.3))
        channel = (torch.sigmoid(channel) ** gamma).logit(1e-4)
        shading = torch.from_numpy(rng.normal(0, 0.25, (1, 1, 3, 3)).astype(np.float32))
        shading = F.interpolate(
            shading, tuple(image.shape[-2:]), mode='bicubic', align_corners=True
        )[0, 0]
        channel = channel * float(rng.uniform(0.8, 1.25)) + float(rng.uniform(-0.3, 0.3)) + shading
        if rng.random() < 0.3:
            channel = F.avg_pool2d(channel[None], 3, stride=1, padding=1)[0]
        if rng.random() < 0.4:
            noise = rng.standard_normal(channel.shape).astype(np.float32)
            channel = channel + float(rng.uniform(0, 0.25)) * torch.from_numpy(noise)
        out.append(channel)
    return torch.stack(out) * brain
