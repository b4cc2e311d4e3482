"""A whole run on images and masks as odd as they come; minutes."""

import subprocess
import sys

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.images import load_image, resample, voxel_spacing

pytestmark = pytest.mark.slow

TURN = nb.eulerangles.euler2mat(0.2, -0.15, 0.3)
OBLIQUE_LPS = (TURN @ np.diag([-1, -1, 1]), (3, 3, 3), (56, 62, 54))
SHEARED_PIR = ([[0, 0, 1], [-1, 0.06, 0], [0, -1, 0]], (3, 3, 3), (60, 50, 54))
THICK_LAS = (np.diag([-1, 1, 1]), (2.5, 2.5, 6), (58, 68, 25))
#: Name of a T1w: session, and orientation, voxel size and shape of its grid.
PATIENTS = {
    'sub-01_ses-a': OBLIQUE_LPS,
    'sub-01_ses-b': SHEARED_PIR,
    'sub-02': THICK_LAS,
}


def on_grid(image, turn, zooms, shape, order=1, shift=(0, 0, 0)):
    """Sample an image on a grid about the world's origin; then say it lies elsewhere."""
    linear = np.asarray(turn) * zooms
    centre = linear @ (np.array(shape) - 1) / 2
    target = nb.Nifti1Image(np.zeros(shape, np.uint8), nb.affines.from_matvec(linear, -centre))
    data = np.asanyarray(resample(image, target, order=order).dataobj)
    return nb.Nifti1Image(data, nb.affines.from_matvec(linear, shift - centre))


@pytest.fixture(scope='module')
def run(bids_phantom, template_phantom, tmp_path_factory):
    """The datasets and outputs of a run that finished."""
    folder = tmp_path_factory.mktemp('odd')
    raw, objects, masks = folder / 'my data', folder / 'objects', folder / 'masks'
    for root in (raw, objects, masks):
        root.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "odd", "BIDSVersion": "1.10.0"}')

    def path(root, name):
        parts = name.split('_')
        found = root.joinpath(*[p for p in parts if p[:4] in ('sub-', 'ses-')], 'anat', name)
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    source = bids_phantom / 'sub-01' / 'anat'
    t1w, flair = (load_image(source / f'sub-01_{suffix}.nii.gz') for suffix in ('T1w', 'FLAIR'))
    mask = load_image(
        bids_phantom / 'derivatives/manual/sub-01/anat/sub-01_label-lesion_roi.nii.gz'
    )

    # scaled integers, oblique; FLAIR of thick slices in another place; labels on another grid
    image = on_grid(t1w, *PATIENTS['sub-01_ses-a'])
    image.set_data_dtype(np.int16)
    image.header.set_slope_inter(None, None)
    image.to_filename(path(raw, 'sub-01_ses-a_T1w.nii.gz'))
    image = on_grid(flair, *THICK_LAS, shift=(150, 40, -60))
    image.set_data_dtype(np.uint8)
    image.to_filename(path(raw, 'sub-01_ses-a_FLAIR.nii.gz'))
    labels = on_grid(mask, np.diag([1, -1, -1]), (2, 2, 2), (70, 80, 60), order=0)
    core = ndimage.binary_erosion(labels.get_fdata() > 0, iterations=3)
    labels = nb.Nifti1Image((labels.get_fdata() > 0) * (2.0 - core) * 2, labels.affine)
    labels.to_filename(path(masks, 'sub-01_ses-a_label-tumor_mask.nii.gz'))

    # one volume of a series, uncompressed, with NaN, and a sform that is sheared; nothing else
    image = on_grid(t1w, *PATIENTS['sub-01_ses-b'])
    data = image.get_fdata()
    data[20:23, 25, 25], data[:2], data[-2:] = np.nan, np.inf, np.nan
    nb.Nifti1Image(data[..., None], image.affine).to_filename(path(raw, 'sub-01_ses-b_T1w.nii'))

    # bytes in thick slices, by links; lesions finer than these; contrast-enhanced beside it
    image = on_grid(t1w, *PATIENTS['sub-02'])
    image = nb.Nifti1Image((image.get_fdata() / 6).astype(np.uint8), image.affine)
    image.to_filename(objects / 't1w.nii.gz')
    for name in ('sub-02_T1w.nii.gz', 'sub-02_ce-gadolinium_T1w.nii.gz'):
        path(raw, name).symlink_to(objects / 't1w.nii.gz')
    lesions = np.zeros((120, 140, 100), np.uint8)
    lesions[40:44, 60:64, 60:63] = lesions[70:72, 80:83, 52] = lesions[82:88, 50:55, 60:66] = 1
    nb.Nifti1Image(lesions, nb.affines.from_matvec(np.eye(3), [-60, -70, -50])).to_filename(
        path(raw, 'sub-02_label-lesion_roi.nii.gz')
    )

    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', raw, folder / 'out', 'participant']
    command += ['-w', folder / 'work', '-d', masks, '--template', template_phantom]
    # to tell tissues in ellipsoids is not what the network has learnt: by the T1w
    command += ['--registration-engine', 'syn']
    command += ['--sloppy', '--nprocs', '2', '--omp-nthreads', '1', '--device', 'cpu']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, raw, path


def outputs(run, name):
    folder, raw, path = run
    source = next(raw.rglob(f'{name}_T1w.nii*'))
    return source, path(folder / 'out', f'{name}_x').parent


def load(path):
    return np.asanyarray(nb.load(path).dataobj)


@pytest.mark.parametrize('name', PATIENTS)
def test_outputs_lie_on_the_native_grid(run, name):
    source, anat = outputs(run, name)
    grid = load_image(source)
    found = [path for path in anat.glob('*.nii.gz') if '_space-' not in path.name]
    assert len(found) >= 11
    for path in found:
        image = nb.load(path)
        assert image.shape == grid.shape, path.name
        for affine in (image.get_sform(), image.get_qform()):
            np.testing.assert_allclose(affine, grid.affine, atol=1e-3, err_msg=path.name)
        assert np.isfinite(image.get_fdata()).all(), path.name


@pytest.mark.parametrize('name', PATIENTS)
def test_tissues_lie_on_the_patient(run, name):
    source, anat = outputs(run, name)
    t1w, dseg = load_image(source).get_fdata(), load(anat / f'{name}_dseg.nii.gz')
    t1w = t1w / np.percentile(t1w[t1w > 0], 90)
    white = (t1w > 0.85) & (dseg != 7)
    assert 2 * (white & (dseg == 2)).sum() / (white.sum() + (dseg == 2).sum()) > 0.8


@pytest.mark.parametrize('name', PATIENTS)
def test_left_is_left(run, name):
    """The phantom's ellipsoids know no side, its atlas does: 1 and 3 left, 2 and 4 right."""
    _, anat = outputs(run, name)
    atlas = nb.load(anat / f'{name}_atlas-Quarters_dseg.nii.gz')
    labels = np.asanyarray(atlas.dataobj)
    for side, regions in ((-1, (1, 3)), (1, (2, 4))):
        where = nb.affines.apply_affine(atlas.affine, np.argwhere(np.isin(labels, regions)))
        assert np.mean(where[:, 0] * side > 0) > 0.9


def test_the_mask_of_the_first_session_is_where_it_was_drawn(run):
    _, anat = outputs(run, 'sub-01_ses-a')
    mask = nb.load(anat / 'sub-01_ses-a_label-tumor_mask.nii.gz')
    data = np.asanyarray(mask.dataobj)
    assert set(np.unique(data)) == {0, 1}
    where = nb.affines.apply_affine(mask.affine, np.moveaxis(np.indices(data.shape), 0, -1))
    ball = ((where - [30, 20, 10]) ** 2).sum(-1) < 12**2
    assert 2 * (ball & (data > 0)).sum() / (ball.sum() + data.sum()) > 0.85
    assert not list(anat.glob('*label-tumor_probseg*'))


def test_the_second_session_has_its_own_tumor(run):
    _, anat = outputs(run, 'sub-01_ses-b')
    assert (anat / 'sub-01_ses-b_label-tumor_probseg.nii.gz').exists()


def test_no_lesion_is_lost_between_thick_slices(run):
    _, anat = outputs(run, 'sub-02')
    mask = load(anat / 'sub-02_label-tumor_mask.nii.gz')
    assert ndimage.label(mask, np.ones((3, 3, 3)))[1] == 3


def test_only_the_hole_changes(run):
    for name in PATIENTS:
        _, anat = outputs(run, name)
        before, after, hole = (
            load(anat / f'{name}_{kind}.nii.gz')
            for kind in ('desc-preproc_T1w', 'desc-inpainted_T1w', 'label-tumor_desc-dilated_mask')
        )
        np.testing.assert_array_equal(before[hole == 0], after[hole == 0])


def test_the_flair_came_to_the_t1w(run):
    folder = run[0]
    source, _ = outputs(run, 'sub-01_ses-a')
    (found,) = folder.glob('work/*/sub_01_ses_a_wf/coregistration_wf/resample/*.nii.gz')
    flair = load_image(found)  # its axes have been turned
    brain = resample(load_image(source), flair, order=0).get_fdata() > 100
    inside = flair.get_fdata() > 50
    assert 2 * (inside & brain).sum() / (inside.sum() + brain.sum()) > 0.93
    lesion = np.argwhere(flair.get_fdata() > 1100)
    centre = nb.affines.apply_affine(flair.affine, lesion).mean(0)
    assert np.linalg.norm(centre - [30, 20, 10]) < voxel_spacing(flair).max() + 1


def test_reports_say_what_was_odd(run):
    one, two = (
        (run[0] / 'out' / f'sub-{label}.html').read_text(encoding='utf-8')
        for label in ('01', '02')
    )
    for note in ('sheared by', 'NaN or infinite', 'places it away from the T1w', '6 mm long'):
        assert note in one
    assert 'voxels are 6 mm long' in two and 'sub-02_label-lesion_roi.nii.gz' in two
