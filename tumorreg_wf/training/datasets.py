"""What the networks learn from: cases in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np

from tumorreg_wf.bids import REFERENCES, find_cases
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import (
    bounding_box,
    load_image,
    resample,
    to_network_grid,
    voxel_spacing,
)
from tumorreg_wf.intensity import normalize_modality, require_stripped, stripped_brain_mask
from tumorreg_wf.shapes import find_shapes, read_shape


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
    excluded = {name.removeprefix('sub-') for name in exclude}
    cases = []
    for case in find_cases(dataset):
        if case.subject in excluded:
            continue
        if case.tumor_mask is None:
            raise TumorregError(
                f'{dataset}/sub-{case.subject}: no reference label {REFERENCES}. '
                'Add one, or leave this participant out.'
            )
        cases.append(
            make_case(
                f'sub-{case.subject}',
                load_image(case.t1w),
                None if case.flair is None else load_image(case.flair),
                load_image(case.tumor_mask),
                spacing=spacing,
            )
        )
    return cases


def read_healthy(dataset: Path, *, spacing: float, exclude: Iterable[str] = ()) -> list[Case]:
    """Read skull-stripped T1w of people without lesions from a BIDS dataset."""
    excluded = {name.removeprefix('sub-') for name in exclude}
    return [
        make_case(f'sub-{case.subject}', load_image(case.t1w), None, None, spacing=spacing)
        for case in find_cases(dataset)
        if case.subject not in excluded
    ]


def read_shapes(folder: Path, *, spacing: float, only: slice) -> list[np.ndarray]:
    """Read tumour label volumes (uint8, cropped to the tumour) that lend their shapes."""
    return [read_shape(path, spacing=spacing) for path in find_shapes(folder, only)]


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
    require_stripped(data, voxel_spacing(t1w), name)
    brain = stripped_brain_mask(data)

    def on_grid(data: np.ndarray, order: int = 1) -> np.ndarray:
        image = nb.Nifti1Image(data.astype(np.float32), t1w.affine)
        return to_network_grid(image, spacing=spacing, order=order).get_fdata(dtype=np.float32)

    def normalized(image: nb.Nifti1Image, modality: str) -> np.ndarray:
        values = resample(image, t1w, order=1).get_fdata(dtype=np.float32)
        return on_grid(normalize_modality(values, brain, modality)).astype(np.float16)

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
