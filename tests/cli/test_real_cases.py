"""Two real glioma cases from end to end; minutes each."""

import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

DATA = Path(__file__).parents[3] / 'shared' / 'data' / 'glioma'
CASES = ('gli00000', 'du7294')


@pytest.fixture(scope='module')
def outputs(tmp_path_factory):
    if not DATA.is_dir():
        pytest.skip(f'real cases are not here: {DATA}')
    folder = tmp_path_factory.mktemp('real')
    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', DATA, folder / 'out', 'participant']
    command += ['-w', folder / 'work', '--participant-label', *CASES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'out'


def load(path):
    return np.asanyarray(nb.load(path).dataobj)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_the_tumor_is_found(outputs, case):
    reference = next((DATA / 'derivatives/reference' / f'sub-{case}' / 'anat').glob('*.nii.gz'))
    truth = load(reference) > 0
    found = load(outputs / f'sub-{case}/anat/sub-{case}_label-tumor_mask.nii.gz') > 0
    assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_the_atlas_lies_on_the_patient(outputs, case):
    anat = outputs / f'sub-{case}' / 'anat'
    t1w, grey, white, fluid, tumor = (
        load(anat / f'sub-{case}_{name}.nii.gz')
        for name in (
            'desc-preproc_T1w', 'label-GM_probseg', 'label-WM_probseg', 'label-CSF_probseg',
            'label-tumor_mask',
        )
    )  # fmt: skip
    healthy = tumor == 0
    means = [np.median(t1w[(tissue > 0.9) & healthy]) for tissue in (fluid, grey, white)]
    assert means == sorted(means)
    # a map shifted by 6 mm fits the grey values worse
    for axis in range(3):
        moved = np.roll(white, 6, axis)
        assert contrast(t1w, white, healthy) > contrast(t1w, moved, healthy)


def contrast(t1w, tissue, where):
    brain = (t1w > 0) & where
    return np.corrcoef(t1w[brain], tissue[brain])[0, 1]


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_only_the_dilated_mask_is_changed(outputs, case):
    anat = outputs / f'sub-{case}' / 'anat'
    before, after, hole = (
        load(anat / f'sub-{case}_{name}.nii.gz')
        for name in ('desc-preproc_T1w', 'desc-inpainted_T1w', 'label-tumor_desc-dilated_mask')
    )
    np.testing.assert_array_equal(before[hole == 0], after[hole == 0])
    assert (before[hole == 1] != after[hole == 1]).any()
