"""Phantoms: brains of ellipsoids, in seconds."""

from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage


def ellipsoid_brain(scale=1.0, spacing=3.0):
    """A brain of ellipsoids: T1w, FLAIR, GM, WM, CSF maps, affine (RAS, centred)."""
    shape = np.array([48, 58, 46])
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (shape - 1) / 2
    axes = nb.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    radius = np.sqrt(((axes / (np.array([60, 75, 55]) * scale)) ** 2).sum(-1))
    brain, white = radius < 1, radius < 0.8
    ventricle = ((axes - [0, -5, 5]) ** 2 / np.array([12, 25, 10]) ** 2).sum(-1) < scale**2
    csf = brain & ((radius > 0.94) | ventricle)
    gm, wm = brain & ~white & ~csf, white & ~csf
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), 1) * 30
    t1w = brain * (250 * csf + 600 * gm + 900 * wm + texture)
    flair = brain * (150 * csf + 700 * gm + 550 * wm + texture)
    return t1w, flair, np.stack([gm, wm, csf]).astype(np.float32), affine


def save_nifti(data, affine, path, dtype=np.float32, axcodes=None):
    """Write an image, its axes turned to ``axcodes`` where given."""
    image = nb.Nifti1Image(data.astype(dtype), affine)
    if axcodes is not None:
        turn = nb.orientations.ornt_transform(
            nb.io_orientation(affine), nb.orientations.axcodes2ornt(axcodes)
        )
        image = image.as_reoriented(turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


@pytest.fixture(scope='session')
def bids_phantom(tmp_path_factory):
    """A dataset of two ellipsoid brains: sub-01 with FLAIR and a user's mask, sub-02 T1w alone.

    The mask lies in ``derivatives/manual``, stored in another orientation than the T1w.
    """
    root = tmp_path_factory.mktemp('data') / 'bids'
    t1w, flair, _, affine = ellipsoid_brain(0.95)
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(t1w.shape), 0, -1))
    tumor = ((where - [30, 20, 10]) ** 2).sum(-1) < 12**2
    t1w, flair = t1w - 250 * tumor, flair + 900 * tumor
    for label in ('01', '02'):
        stem = root / f'sub-{label}' / 'anat' / f'sub-{label}'
        save_nifti(t1w, affine, stem.with_name(f'{stem.name}_T1w.nii.gz'), np.int16, 'LPS')
    save_nifti(flair, affine, root / 'sub-01/anat/sub-01_FLAIR.nii.gz', np.int16, 'LPS')
    save_nifti(t1w, affine, root / 'sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz', np.int16)
    manual = root / 'derivatives' / 'manual'
    mask = manual / 'sub-01/anat/sub-01_label-lesion_roi.nii.gz'
    save_nifti(tumor, affine, mask, np.uint8, 'PIR')
    for folder in (root, manual):
        (folder / 'dataset_description.json').write_text(
            '{"Name": "phantom", "BIDSVersion": "1.10.0"}'
        )
    return root


@pytest.fixture(scope='session')
def template_phantom(tmp_path_factory):
    """A template of ellipsoids with tissues and a four-region atlas, in TemplateFlow's layout."""
    folder = tmp_path_factory.mktemp('template') / 'tpl-Phantom'
    t1w, _, tissues, affine = ellipsoid_brain(1.0)
    brain = tissues.sum(0) > 0
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(t1w.shape), 0, -1))
    atlas = (1 + (where[..., 0] > 0) + 2 * (where[..., 1] > 0)) * (tissues[2] == 0) * brain
    stem = 'tpl-Phantom_res-01'
    save_nifti(t1w, affine, folder / f'{stem}_desc-brain_T1w.nii.gz')
    save_nifti(brain, affine, folder / f'{stem}_desc-brain_mask.nii.gz', np.uint8)
    for name, data in zip(('GM', 'WM', 'CSF'), tissues, strict=True):
        save_nifti(data, affine, folder / f'{stem}_label-{name}_probseg.nii.gz')
    save_nifti(atlas, affine, folder / f'{stem}_atlas-Quarters_dseg.nii.gz', np.int16)
    (folder / f'{stem}_atlas-Quarters_dseg.tsv').write_text(
        'index\tname\n1\tback_L\n2\tback_R\n3\tfront_L\n4\tfront_R\n'
    )
    return folder


@pytest.fixture(scope='session')
def phantom():
    """A patient as images in memory: t1w, flair, tumor and brain; RAS, 2 mm, tumour at x > 0."""
    t1w, flair, _, affine = ellipsoid_brain(0.75, spacing=2.0)
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(t1w.shape), 0, -1))
    tumor = ((where - [20, 15, 8]) ** 2).sum(-1) < 11**2
    arrays = {'t1w': t1w - 250 * tumor, 'flair': flair + 900 * tumor}
    arrays |= {'tumor': tumor, 'brain': t1w > 0}
    return SimpleNamespace(
        **{key: nb.Nifti1Image(a.astype(np.float32), affine) for key, a in arrays.items()}
    )


@pytest.fixture(scope='session')
def head_labels(tmp_path_factory):
    """Two label maps of one small head, 2 mm: skin, soft tissue, bone, fluid and a brain."""
    folder = tmp_path_factory.mktemp('heads')
    radius = np.sqrt(sum(axis**2 for axis in np.ogrid[-29:30, -32:33, -29:30]))
    labels = np.select(
        [radius < n for n in (4, 14, 17, 19, 20, 21, 27, 28)], [4, 2, 3, 24, 24, 515, 507, 511], 0
    ).astype(np.int16)
    labels[29, 14:18, 29] = 502  # a vessel into the brain
    for name in ('one', 'two'):
        nb.Nifti1Image(labels, np.diag([-2, 2, 2, 1])).to_filename(folder / f'{name}.nii.gz')
    return folder


@pytest.fixture(scope='session')
def turned():
    """Function that permutes and flips an image's axes to codes such as 'LPS'."""

    def turn(image, axcodes):
        codes = nb.orientations.axcodes2ornt(axcodes)
        return image.as_reoriented(
            nb.orientations.ornt_transform(nb.io_orientation(image.affine), codes)
        )

    return turn
