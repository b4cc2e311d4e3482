"""The input matrix: one simulated patient stored in many ways, and one result.

Orientations are crossed with what is shown: T1w and FLAIR, T1w alone, T1w and FLAIR of the whole
head. Number types and voxel sizes are crossed with one of these. All are patients of one run.
"""

import subprocess
import sys
from typing import NamedTuple

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from tumorreg_wf.images import resample
from tumorreg_wf.template import packaged_images
from tumorreg_wf.training.fields import random_deformation, random_field, warp
from tumorreg_wf.training.growth import random_tumor
from tumorreg_wf.training.simulate import simulate_patient

pytestmark = pytest.mark.matrix

COARSE = 2
TURN = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.25, -0.15, 0.2))
ORIENTATIONS = ('RAS', 'LAS', 'LPS', 'PIR', 'oblique')
SHOWN = ('flair', 'alone', 'head')


class Row(NamedTuple):
    """How a patient is stored."""

    shown: str
    orientation: str = 'RAS'
    dtype: str = 'int16'
    zooms: tuple[float, float, float] = (COARSE, COARSE, COARSE)


ROWS = {
    **{f'{shown}{turn}': Row(shown, turn) for shown in SHOWN for turn in ORIENTATIONS},
    **{kind: Row('flair', 'LPS', kind) for kind in ('uint8', 'float64', 'scaled', 'nan')},
    'fine': Row('flair', 'LAS', zooms=(1.5, 1.5, 1.5)),
    'thick': Row('flair', 'LPS', zooms=(1.5, 1.5, 6)),
}
REFERENCES = {shown: f'{shown}RAS' for shown in SHOWN}


def coarsen(data, affine, times):
    """Means of blocks of voxels, and the affine of the blocks."""
    data = data[tuple(slice(length // times * times) for length in data.shape)]
    blocks = data.reshape([part for n in data.shape for part in (n // times, times)])
    scaled = affine @ np.diag([times, times, times, 1.0])
    scaled[:3, 3] = nb.affines.apply_affine(affine, [(times - 1) / 2] * 3)
    return nb.Nifti1Image(blocks.mean((1, 3, 5)).astype(np.float32), scaled)


@pytest.fixture(scope='module')
def coarse():
    """The packaged template at 2 mm: T1w, GM, WM and brain mask."""
    return [
        coarsen(image.get_fdata(dtype=np.float32), image.affine, COARSE)
        for image in packaged_images()
    ]


@pytest.fixture(scope='module')
def patient(coarse):
    """T1w and FLAIR of a stripped patient, of the same in a head, and the tumour; RAS, 2 mm."""
    rng = np.random.default_rng(9)
    spacing = np.full(3, float(COARSE))
    t1w, gm, wm, mask = (image.get_fdata(dtype=np.float32) for image in coarse)
    bend = random_deformation(mask.shape, spacing, rng)
    brain = warp(mask, bend, spacing, np.ones(mask.shape, bool), order=1) >= 0.5
    t1w, gm, wm = (warp(image, bend, spacing, brain, order=1) for image in (t1w, gm, wm))
    tissues = np.where(brain, 1 + np.argmax([gm, wm, 1 - gm - wm], axis=0), 0).astype(np.uint8)
    tumor = random_tumor(tissues, spacing, rng, volume_ml=45)
    made = simulate_patient(800 * t1w / t1w.max(), tissues, tumor, spacing, rng)
    away = ndimage.distance_transform_edt(~brain, sampling=spacing)
    texture = 1 + 0.1 * random_field(brain.shape, spacing, 12.0, rng)
    images = {'tumor': made.tumor_mask.astype(np.float32)}
    for name, data, fluid in (('t1w', made.t1w, 120), ('flair', made.flair, 60)):
        images[name] = data
        around = np.select([away <= end for end in (2, 9, 14)], [fluid, 40, 900], 0) * texture
        noise = np.abs(rng.normal(0, 6, brain.shape))
        images[f'{name}_head'] = np.where(brain, data, around) + noise
    return {
        name: nb.Nifti1Image(data.astype(np.float32), coarse[0].affine)
        for name, data in images.items()
    }


def store(image, row, path):
    """Write an image as a row of the matrix says."""
    if row.orientation == 'oblique':
        image = nb.Nifti1Image(np.asanyarray(image.dataobj), TURN @ image.affine)
    else:
        turn = nb.orientations.axcodes2ornt(row.orientation)
        image = image.as_reoriented(turn)  # from RAS
    data = np.asanyarray(image.dataobj)
    if row.dtype == 'uint8':
        data = np.rint(data * (255 / data.max()))
    if row.dtype == 'nan':
        data = data.copy()
        data[:2], data[-1], data[:, :1] = np.nan, np.inf, -np.inf
        middle = tuple(length // 2 for length in data.shape)
        data[middle] = np.nan
    kind = {'uint8': np.uint8, 'float64': np.float64, 'nan': np.float32}.get(row.dtype, np.int16)
    image = nb.Nifti1Image(data.astype(np.float64), image.affine)
    image.set_data_dtype(kind)
    image.header.set_slope_inter(0.07 if row.dtype == 'scaled' else 1, 0)
    if kind == np.int16 and row.dtype != 'scaled':
        image = nb.Nifti1Image(np.rint(data).astype(np.int16), image.affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture(scope='module')
def template(coarse, tmp_path_factory):
    """The packaged template at 2 mm, its atlas four quarters."""
    folder = tmp_path_factory.mktemp('template') / 'tpl-Coarse'
    folder.mkdir()
    t1w, gm, wm, mask = coarse
    brain = mask.get_fdata() >= 0.5
    where = nb.affines.apply_affine(mask.affine, np.moveaxis(np.indices(brain.shape), 0, -1))
    quarters = (1 + (where[..., 0] > 0) + 2 * (where[..., 1] > -18)) * brain
    csf = brain * np.clip(1 - gm.get_fdata() - wm.get_fdata(), 0, 1)
    stem = 'tpl-Coarse_res-01'
    for name, data in {
        'desc-brain_T1w': t1w.get_fdata() * brain,
        'desc-brain_mask': brain,
        'label-GM_probseg': gm.get_fdata() * brain,
        'label-WM_probseg': wm.get_fdata() * brain,
        'label-CSF_probseg': csf,
        'atlas-Quarters_dseg': quarters,
    }.items():
        nb.Nifti1Image(data.astype(np.float32), mask.affine).to_filename(
            folder / f'{stem}_{name}.nii.gz'
        )
    (folder / f'{stem}_atlas-Quarters_dseg.tsv').write_text(
        'index\tname\n1\tback_L\n2\tback_R\n3\tfront_L\n4\tfront_R\n'
    )
    return folder


@pytest.fixture(scope='module')
def anat(patient, template, on_voxels, tmp_path_factory, request):
    """A function that gives the outputs' folder and stem of a row; rows asked for (-k) are run."""
    asked = {
        value
        for item in request.session.items
        if item.path == request.path
        for value in item.callspec.params.values()
    }
    asked |= {REFERENCES[ROWS[value].shown if value in ROWS else value] for value in asked}
    folder = tmp_path_factory.mktemp('matrix')
    raw = folder / 'raw'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "matrix", "BIDSVersion": "1.10.0"}')
    for name in asked & set(ROWS):
        row = ROWS[name]
        stem = raw / f'sub-{name}' / 'anat' / f'sub-{name}'
        suffix = '_head' if row.shown == 'head' else ''
        for image in ('T1w',) if row.shown == 'alone' else ('T1w', 'FLAIR'):
            stored = on_voxels(patient[image.lower() + suffix], row.zooms)
            store(stored, row, stem.with_name(f'{stem.name}_{image}.nii.gz'))
    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', raw, folder / 'out', 'participant']
    command += ['-w', folder / 'work', '--template', template, '--sloppy', '--device', 'cpu']
    command += ['--nprocs', '2', '--omp-nthreads', '1', '--random-seed', '1']
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def give(name):
        return folder / 'out' / f'sub-{name}' / 'anat', f'sub-{name}'

    return give


@pytest.fixture(scope='module')
def read(anat):
    """A function that reads an output of a row, its axes turned back to those of the reference."""

    def load(name, output):
        folder, stem = anat(name)
        image = nb.load(folder / f'{stem}_{output}.nii.gz')
        if ROWS[name].orientation == 'oblique':
            affine = np.linalg.inv(TURN) @ image.affine
            image = nb.Nifti1Image(np.asanyarray(image.dataobj), affine)
        return nb.as_closest_canonical(image)

    return load


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


MASKS = ('desc-brain_mask', 'label-tumor_mask', 'label-tumor_desc-dilated_mask')
LABELS = ('dseg', 'desc-inpainted_dseg', 'atlas-Quarters_dseg')
GREY = ('desc-preproc_T1w', 'desc-inpainted_T1w', 'label-GM_probseg', 'label-WM_probseg',
        'label-CSF_probseg')  # fmt: skip
SAME_VOXELS = [name for name in ROWS if ROWS[name].zooms == ROWS['flairRAS'].zooms]


@pytest.mark.parametrize('name', [n for n in SAME_VOXELS if n not in REFERENCES.values()])
def test_the_same_result(read, name, capsys):
    """Every output in native space, voxel by voxel, with that of the reference orientation.

    A sloppy registration differs a little where images are turned or rounded: what comes from it
    need agree less than masks.
    """
    reference = REFERENCES[ROWS[name].shown]
    words, wrong = [], []

    def note(what, value, least):
        words.append(f'{what} {value:.4f}')
        if not value >= least:
            wrong.append(f'{what} {value:.4f} < {least}')

    for output in MASKS:
        one, other = (read(each, output).get_fdata() > 0 for each in (name, reference))
        assert one.shape == other.shape and other.any()
        note(f'Dice {output}', dice(one, other), 0.98)
        note(f'volume {output}', 1 - abs(one.sum() / other.sum() - 1), 0.98)
    for output in LABELS:
        one, other = (read(each, output).get_fdata() for each in (name, reference))
        for label in np.unique(other)[1:]:
            registered = label != 7  # the tumour's label is no matter of the registration
            least = 0.7 if registered else 0.98
            note(f'Dice {output} {label:g}', dice(one == label, other == label), least)
            ratio = (one == label).sum() / (other == label).sum()
            least = 0.95 if registered else 0.98
            note(f'volume {output} {label:g}', 1 - abs(ratio - 1), least)
    brain = read(reference, 'desc-brain_mask').get_fdata() > 0
    for output in GREY:
        one, other = (read(each, output).get_fdata()[brain] for each in (name, reference))
        note(f'correlation {output}', np.corrcoef(one, other)[0, 1], 0.9)
    with capsys.disabled():
        print(f'\n{name}: ' + ', '.join(words))
    assert not wrong


@pytest.mark.parametrize('name', ['fine', 'thick'])
def test_other_voxels_see_the_same_tumor(read, name, capsys):
    """Another resolution is another image: the tumour is found where it is, of about its size.

    This patient is made of a template, which is smoother than a brain; sizes of real tumours
    differ less, see ``test_voxels.py``.
    """
    mask, reference = (read(each, 'label-tumor_mask') for each in (name, 'flairRAS'))
    volumes = [
        image.get_fdata().sum() * abs(np.linalg.det(image.affine)) for image in (mask, reference)
    ]
    moved = resample(mask, reference, order=1).get_fdata() >= 0.5
    overlap = dice(moved, reference.get_fdata() > 0)
    with capsys.disabled():
        print(f'\n{name}: Dice {overlap:.3f}, volume {volumes[0] / volumes[1]:.3f}')
    assert overlap > 0.85 and abs(volumes[0] / volumes[1] - 1) < 0.25


@pytest.mark.parametrize('name', ROWS)
def test_nothing_is_flipped(anat, read, name):
    """Left is left in labels and tables, and the tumour lies where it was put."""
    atlas = read(name, 'atlas-Quarters_dseg')
    labels = np.asanyarray(atlas.dataobj)
    for side, regions in ((-1, (1, 3)), (1, (2, 4))):
        where = nb.affines.apply_affine(atlas.affine, np.argwhere(np.isin(labels, regions)))
        assert np.mean(where[:, 0] * side > 0) > 0.8  # the patient is bent
    folder, stem = anat(name)
    found = pd.read_csv(folder / f'{stem}_desc-tumor_morph.tsv', sep='\t').iloc[0]
    folder, stem = anat(REFERENCES[ROWS[name].shown])
    expected = pd.read_csv(folder / f'{stem}_desc-tumor_morph.tsv', sep='\t').iloc[0]
    assert found['hemisphere'] == expected['hemisphere'] in ('L', 'R')
    for space in ('centroid', 'centroid_Coarse'):
        place, wanted = (row[[f'{space}_{axis}' for axis in 'xyz']] for row in (found, expected))
        if space == 'centroid' and ROWS[name].orientation == 'oblique':
            place = nb.affines.apply_affine(np.linalg.inv(TURN), np.asarray(place, float))
        assert np.linalg.norm(np.asarray(place, float) - np.asarray(wanted, float)) < 3


@pytest.mark.parametrize('shown', SHOWN)
def test_the_tumor_is_found(patient, read, shown):
    """What is compared above is a tumour, not nothing with nothing."""
    truth = patient['tumor'].get_fdata() > 0
    found = read(REFERENCES[shown], 'label-tumor_mask').get_fdata() > 0
    assert dice(found, truth) > (0.3 if shown == 'alone' else 0.6)
    brain = read(REFERENCES[shown], 'desc-brain_mask').get_fdata() > 0
    assert not (truth & ~brain).any()


@pytest.mark.parametrize('name', ROWS)
def test_only_the_hole_changes(anat, name):
    folder, stem = anat(name)
    before, after, hole = (
        np.asanyarray(nb.load(folder / f'{stem}_{output}.nii.gz').dataobj)
        for output in GREY[:2] + MASKS[2:]
    )
    np.testing.assert_array_equal(before[hole == 0], after[hole == 0])
