"""tumorreg-simulate on a small stand-in for the template."""

import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.cli import simulate
from tumorreg_wf.training import brains
from tumorreg_wf.training.datasets import read_patients


@pytest.fixture
def small_template(monkeypatch):
    """An ellipsoid brain in place of the MNI152 template."""
    shape = (44, 50, 42)
    grid = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in shape), indexing='ij')
    radius = np.sqrt(sum(axis**2 for axis in grid)).astype(np.float32)
    wm = ((radius > 0.2) & (radius < 0.75)).astype(np.float32)
    gm = ((radius >= 0.75) & (radius < 0.9)).astype(np.float32)
    mask = radius < 1
    t1w = np.where(mask, 0.3 + 0.3 * gm + 0.6 * wm, 0).astype(np.float32)
    affine = np.diag((3.5, 3.5, 3.5, 1))
    affine[:3, 3] = -77, -87, -73
    images = tuple(nb.Nifti1Image(a.astype(np.float32), affine) for a in (t1w, gm, wm, mask))
    monkeypatch.setattr(brains, 'packaged_images', lambda: images)
    return affine


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Folders of a healthy T1w, an anatomical label map and a tumour shape, brains of 56 mm."""
    root = tmp_path_factory.mktemp('sources')
    axes = np.moveaxis(np.indices((70, 70, 70)), 0, -1) - 34.5
    radius = np.sqrt((axes**2).sum(-1))
    labels = np.select([radius < 5, radius < 21, radius < 25, radius < 28], [4, 2, 3, 24], 0)
    labels[35:] = np.where(labels[35:] == 2, 41, labels[35:])
    labels[radius > 32] = 515
    noise = np.random.default_rng(0).normal(0, 3, radius.shape)
    white = np.isin(labels, (2, 41))
    grey = np.where(white, 90, np.array([0, 0, 90, 65, 25])[np.where(labels > 4, 4, labels)])
    t1w = np.where(radius < 28, grey + noise, 0)
    tumor = np.select([radius < 5, radius < 7, radius < 11], [2, 3, 1], 0)
    left = np.diag((-1.0, 1, 1, 1))
    left[0, 3] = 70
    for name, data, kind in (
        ('healthy/sub-01/anat/sub-01_T1w', t1w, np.float32),
        ('anatomies/one', labels, np.int16),
        ('shapes/one', tumor, np.uint8),
    ):
        path = root / f'{name}.nii.gz'
        path.parent.mkdir(parents=True)
        nb.Nifti1Image(data.astype(kind), left).to_filename(path)
    (root / 'healthy' / 'dataset_description.json').write_text(
        '{"Name": "healthy", "BIDSVersion": "1.10.0"}'
    )
    return root


@pytest.fixture(scope='module')
def varied(sources, tmp_path_factory):
    """Patients of both kinds: sub-sim01 from a T1w, sub-sim02 from an anatomy."""
    out = tmp_path_factory.mktemp('out') / 'sim'
    folders = [str(sources / name) for name in ('healthy', 'anatomies', 'shapes')]
    arguments = zip(('--healthy', '--anatomies', '--shapes'), folders, strict=True)
    flat = [word for pair in arguments for word in pair]
    assert simulate.main([str(out), '--n-subjects', '2', *flat]) == 0
    return out


def read(path):
    image = nb.load(path)
    return np.asarray(image.dataobj), image


def test_writes_patient_and_truth(small_template, tmp_path, capsys):
    out = tmp_path / 'a' / 'sim'
    assert simulate.main([str(out), '--n-subjects', '2']) == 0
    printed = capsys.readouterr().out.split('\n')
    assert [line[:9] for line in printed[:2]] == ['sub-sim01', 'sub-sim02']
    assert printed[2] == str(out)

    truth = out / 'derivatives' / 'truth'
    assert json.loads((out / 'dataset_description.json').read_text())['DatasetType'] == 'raw'
    described = json.loads((truth / 'dataset_description.json').read_text())
    assert described['DatasetType'] == 'derivative'
    assert described['GeneratedBy'][0]['Name'] == 'tumorreg-simulate'
    assert (out / 'participants.tsv').read_text().split() == [
        'participant_id',
        'sub-sim01',
        'sub-sim02',
    ]

    t1w, image = read(out / 'sub-sim02/anat/sub-sim02_T1w.nii.gz')
    flair, _ = read(out / 'sub-sim02/anat/sub-sim02_FLAIR.nii.gz')
    stem = truth / 'sub-sim02' / 'anat'
    free, _ = read(stem / 'sub-sim02_desc-tumorfree_T1w.nii.gz')
    mask, mask_image = read(stem / 'sub-sim02_label-tumor_mask.nii.gz')
    labels, _ = read(stem / 'sub-sim02_label-tumor_dseg.nii.gz')
    tissues, _ = read(stem / 'sub-sim02_dseg.nii.gz')
    for any_image in (image, mask_image):
        np.testing.assert_allclose(any_image.affine, small_template)
    assert t1w.dtype == flair.dtype == free.dtype == np.int16
    csf, gm, wm = (np.median(free[tissues == label]) for label in (3, 1, 2))
    assert csf < gm < wm and 500 < wm < 900
    assert np.mean(np.abs(free[tissues == 2] - wm) > 0.2 * wm) < 0.05  # deformed alike
    np.testing.assert_array_equal(mask > 0, labels > 0)
    np.testing.assert_array_equal(t1w[mask == 0], free[mask == 0])
    assert np.mean(t1w[mask > 0] != free[mask > 0]) > 0.9
    assert not flair[tissues == 0].any()
    flair_free, _ = read(stem / 'sub-sim02_desc-tumorfree_FLAIR.nii.gz')
    np.testing.assert_array_equal(flair[mask == 0], flair_free[mask == 0])
    assert np.mean(flair[mask > 0] != flair_free[mask > 0]) > 0.9
    legend = (stem / 'sub-sim02_label-tumor_dseg.tsv').read_text().split('\n')
    assert legend[2] == '1\tOedema' and 'core' in legend[3] and 'rim' in legend[4]
    moved, moved_image = read(stem / 'sub-sim02_desc-masseffect_xfm.nii.gz')
    assert moved.shape == (*t1w.shape, 3)
    assert 1 < np.linalg.norm(moved, axis=-1).max() < 7
    assert 'mm' in json.loads((stem / 'sub-sim02_desc-masseffect_xfm.json').read_text())['Units']
    for path in out.rglob('*.nii.gz'):
        assert path.with_name(path.name.replace('.nii.gz', '.json')).exists()
    assert (stem / 'sub-sim02_dseg.tsv').read_text().split('\n')[1:5] == [
        '0\tBackground',
        '1\tGM',
        '2\tWM',
        '3\tCSF',
    ]


def test_same_seed_same_bytes_and_every_subject_is_another(small_template, tmp_path):
    names = 'sub-sim{0}/anat/sub-sim{0}_T1w.nii.gz'
    for folder, seed, count in (('a', '7', '1'), ('b', '7', '2'), ('c', '8', '1')):
        arguments = [str(tmp_path / folder), '--random-seed', seed, '--n-subjects', count]
        assert simulate.main(arguments) == 0
    one = (tmp_path / 'a' / names.format('01')).read_bytes()
    assert one == (tmp_path / 'b' / names.format('01')).read_bytes()
    assert one != (tmp_path / 'b' / names.format('02')).read_bytes()
    assert one != (tmp_path / 'c' / names.format('01')).read_bytes()


def test_patients_from_t1w_and_from_anatomies(varied):
    cases = read_patients(varied, spacing=1.0)
    assert [case.name for case in cases] == ['sub-sim01', 'sub-sim02']
    for case in cases:
        name = case.name
        truth = varied / 'derivatives' / 'truth' / name / 'anat'
        t1w, image = read(varied / name / 'anat' / f'{name}_T1w.nii.gz')
        free, _ = read(truth / f'{name}_desc-tumorfree_T1w.nii.gz')
        tissues, _ = read(truth / f'{name}_dseg.nii.gz')
        mask, _ = read(truth / f'{name}_label-tumor_mask.nii.gz')
        assert nb.aff2axcodes(image.affine) == ('R', 'A', 'S')
        np.testing.assert_array_equal(t1w[mask == 0], free[mask == 0])
        medians = [np.median(free[(tissues == label) & (free > 0)]) for label in (3, 1, 2)]
        assert medians == sorted(medians)
        # the shape has 5.6 ml; some of it is cut away
        assert 0.3 < mask.sum() / 1000 < 6
        assert case.tumor.any() and case.flair is not None
        # where the brain was in the scanner is where it is now
        centre = nb.affines.apply_affine(image.affine, np.argwhere(tissues > 0).mean(0))
        np.testing.assert_allclose(centre, [35.5, 34.5, 34.5], atol=8)


def test_any_t1w_is_brought_to_one_unit_and_varied(sources, monkeypatch):
    def look(t1w, tissues, *_, wild=False):
        return np.median(t1w[tissues == 2]), wild

    monkeypatch.setattr(brains, 'simulate_patient', look)
    path, shape = sources / 'healthy/sub-01/anat/sub-01_T1w.nii.gz', sources / 'shapes/one.nii.gz'
    (white, wild), _ = brains.patient_from_t1w(path, np.random.default_rng(0), [shape])
    assert white == pytest.approx(700) and wild


def test_the_written_displacement_is_the_one_that_was_used(small_template, tmp_path):
    assert simulate.main([str(tmp_path / 'sim')]) == 0
    stem = tmp_path / 'sim/derivatives/truth/sub-sim01/anat/sub-sim01'
    moved = nb.load(f'{stem}_desc-masseffect_xfm.nii.gz').get_fdata(dtype=np.float32)
    patient, _ = brains.patient_from_template(np.random.default_rng((1, 1)))
    np.testing.assert_allclose(moved, patient.displacement, atol=0.0051)


def test_bids_validator_finds_no_error(small_template, tmp_path):
    beside = Path(sys.executable).parent / 'bids-validator-deno'
    program = shutil.which('bids-validator-deno') or shutil.which(beside)
    if program is None:
        pytest.skip('bids-validator-deno is not installed')
    out = tmp_path / 'sim'
    assert simulate.main([str(out)]) == 0
    for dataset in (out, out / 'derivatives' / 'truth'):
        command = [program, str(dataset), '--ignoreWarnings']
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ('option', 'content', 'message'),
    [
        ('--healthy', None, 'no such folder'),
        ('--healthy', 'dataset_description.json', 'no sub-X/anat'),
        ('--anatomies', None, 'no label volumes'),
        ('--shapes', None, 'no label volumes'),
    ],
)
def test_sources_that_are_not_there(tmp_path, capsys, option, content, message):
    source = tmp_path / 'source'
    if content:
        source.mkdir()
        (source / content).write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    out = tmp_path / 'out'
    assert simulate.main([str(out), option, str(source)]) == 1
    error = capsys.readouterr().err
    assert str(source) in error and message in error
    assert not out.exists()


def test_an_anatomy_without_brain_labels(tmp_path, capsys):
    skull = nb.Nifti1Image(np.full((20, 20, 20), 515, np.int16), np.eye(4))
    skull.to_filename(tmp_path / 'skull.nii.gz')
    assert simulate.main([str(tmp_path / 'out'), '--anatomies', str(tmp_path)]) == 1
    assert 'FreeSurfer' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('option', 'message'),
    [('--anatomies', 'are for --shapes'), ('--healthy', 'Strip the skull first')],
)
def test_nothing_is_left_of_what_could_not_be_made(sources, tmp_path, capsys, option, message):
    """Tumours in place of anatomies; a whole head, after a brain that would do."""
    source = sources / 'shapes'
    if option == '--healthy':
        source = shutil.copytree(sources / 'healthy', tmp_path / 'healthy')
        head = nb.load(sources / 'healthy/sub-01/anat/sub-01_T1w.nii.gz')
        rng = np.random.default_rng(1)
        data = head.get_fdata() + rng.uniform(1, 5, head.shape)
        path = source / 'sub-02/anat/sub-02_T1w.nii.gz'
        path.parent.mkdir(parents=True)
        nb.Nifti1Image(data.astype(np.float32), head.affine).to_filename(path)
    out = tmp_path / 'out'
    argv = [str(out), '--n-subjects', '2', option, str(source)]
    assert simulate.main(argv) == 1
    assert message in capsys.readouterr().err
    assert not any(out.iterdir())


@pytest.mark.parametrize(
    ('error', 'words'),
    [
        (KeyboardInterrupt(), 'interrupted; nothing was kept'),
        (OSError(errno.ENOSPC, 'No space left on device'), 'No space left'),
    ],
)
def test_of_a_run_that_was_stopped_nothing_is_kept(
    small_template, tmp_path, monkeypatch, capsys, error, words
):
    def stop(*_):
        raise error

    monkeypatch.setattr(simulate, 'write_patient', stop)
    assert simulate.main([str(tmp_path / 'out')]) == 1
    assert words in capsys.readouterr().err
    assert not any((tmp_path / 'out').iterdir())


def test_every_patient_has_a_tumour(small_template, tmp_path, monkeypatch, capsys):
    given, make = [0, 0, 1], simulate.patient_from_template

    def sometimes(rng, shapes):
        patient, affine = make(rng, shapes)
        return replace(patient, tumor_mask=patient.tumor_mask & bool(given.pop(0))), affine

    monkeypatch.setattr(simulate, 'patient_from_template', sometimes)
    assert simulate.main([str(tmp_path / 'out')]) == 0 and not given
    mask, _ = read(
        tmp_path / 'out/derivatives/truth/sub-sim01/anat/sub-sim01_label-tumor_mask.nii.gz'
    )
    assert mask.any()
    given += [0] * simulate.TRIES
    assert simulate.main([str(tmp_path / 'other')]) == 1
    assert 'nothing is left' in capsys.readouterr().err


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    (tmp_path / 'notes.txt').write_text('mine')
    assert simulate.main([str(tmp_path)]) == 1
    assert 'not empty' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    for out in (tmp_path / 'file', tmp_path / 'file' / 'sim'):
        assert simulate.main([str(out)]) == 1
        message = capsys.readouterr().err
        assert str(out) in message and 'cannot be written' in message


@pytest.mark.parametrize(
    'arguments', [[], ['out', '--n-subjects', '0'], ['out', '--random-seed', '-1'], ['out', '-x']]
)
def test_wrong_arguments_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        simulate.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err
