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
from tumorreg_wf.training.simulate import simulate_patient, tissues_from_t1w


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
        tumor = place_shape(shapes[rng.integers(len(shapes))], base.brain, rng)
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


def place_shape(shape: np.ndarray, brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a label volume over a brain, centred on a random brain voxel, flipped at random."""
    for axis in (0, 1):
        if rng.random() < 0.5:
            shape = np.flip(shape, axis)
    # the centre keeps away from the edge, where little of the shape would be inside
    depth = ndimage.distance_transform_edt(brain)
    candidates = np.argwhere(depth > 0.35 * depth.max())
    centre = candidates[rng.integers(len(candidates))]
    placed = np.zeros(brain.shape, np.uint8)
    start = centre - np.array(shape.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + shape.shape, brain.shape)
    target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    source = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    placed[target] = shape[source]
    return placed * brain


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

    Calling it with a generator gives ``(truth, mask, valid)``, each (N, 1, H, W): see
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
        grown = [
            dilate_mask(np.pad(shape > 0, margin), np.full(3, spacing), 3.0) for shape in shapes
        ]
        self.shapes = [
            shape for shape in grown if all(len(_sections(shape, axis)) for axis in range(3))
        ]
        if not self.shapes:
            raise TumorregError('None of the tumour shapes is large enough to make holes of.')
        self.tumors = [dilate_mask(case.tumor, np.full(3, spacing), 5.0) for case in cases]
        self.cases, self.size, self.batch = cases, size, batch

    def __call__(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.stack(part)
            for part in zip(*(self._slice(rng) for _ in range(self.batch)), strict=True)
        )

    def _slice(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        while True:
            number = rng.integers(len(self.cases))
            case, axis = self.cases[number], int(rng.integers(3))
            area = case.brain.sum(axis=tuple({0, 1, 2} - {axis}))
            slices = np.flatnonzero(area > 0.15 * area.max())
            k = slices[rng.integers(len(slices))]
            brain = np.take(case.brain, k, axis)
            tumor = np.take(self.tumors[number], k, axis)
            truth = np.take(case.t1w, k, axis)
            normal = np.argwhere(brain & ~tumor)
            if len(normal) == 0:
                continue
            centre = normal[rng.integers(len(normal))]
            stack = np.stack([truth, brain, tumor]).astype(np.float32)
            truth_t, brain_t, tumor_t = random_affine(stack, centre, self.size, rng)
            hole = self._hole(rng, axis)
            brain_t, tumor_t = (brain_t >= 0.5).float(), (tumor_t > 0.01).float()
            hole = hole * brain_t
            if (hole * (1 - tumor_t)).sum() < 30:
                continue
            mask = (1 - hole) * (1 - tumor_t)
            gain, shift = rng.uniform(0.9, 1.1), rng.uniform(-0.1, 0.1)
            truth_t = (truth_t * gain + shift) * brain_t
            return truth_t[None], mask[None], 1 - tumor_t[None]

    def _hole(self, rng: np.random.Generator, axis: int) -> torch.Tensor:
        shape = self.shapes[rng.integers(len(self.shapes))]
        slices = _sections(shape, axis)
        section = np.take(shape, slices[rng.integers(len(slices))], axis)
        centre = np.argwhere(section)
        centre = centre[rng.integers(len(centre))]
        hole = random_affine(section[None].astype(np.float32), centre, self.size, rng, turn=180)
        return (hole[0] >= 0.5).float()


def _sections(shape: np.ndarray, axis: int) -> np.ndarray:
    """Indices of the slices across an axis that hold enough of a shape to make a hole."""
    return np.flatnonzero(shape.sum(axis=tuple({0, 1, 2} - {axis})) > 20)


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
