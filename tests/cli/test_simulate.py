"""tumorreg-simulate on a small stand-in for the template."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.cli import simulate


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
    monkeypatch.setattr(
        simulate, 'load_template', lambda: simulate.Brain(t1w, gm, wm, mask, affine)
    )
    return affine


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
    assert 500 < np.median(free[tissues == 2]) < 900
    np.testing.assert_array_equal(mask > 0, labels > 0)
    np.testing.assert_array_equal(t1w[mask == 0], free[mask == 0])
    assert np.mean(t1w[mask > 0] != free[mask > 0]) > 0.9
    assert not flair[tissues == 0].any()
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
