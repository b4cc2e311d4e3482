"""The group level as a user runs it, on derivatives that are made up."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.cli.run import main
from tumorreg_wf.reports.record import Record, record_file, write_record
from tumorreg_wf.workflows.outputs import write_dataset_files


@pytest.fixture
def folders(tmp_path):
    """A dataset of three patients, two of them finished."""
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    for label in ('01', '02', '03'):
        (bids / f'sub-{label}' / 'anat').mkdir(parents=True)
        (bids / f'sub-{label}' / 'anat' / f'sub-{label}_T1w.nii.gz').touch()
    write_dataset_files(out, bids_dir=bids, command='tumorreg')
    (out / 'logs').mkdir()
    for label in ('01', '02'):
        stem = out / f'sub-{label}' / 'anat' / f'sub-{label}'
        stem.parent.mkdir(parents=True)
        tables = {
            'tumor': 'volume_mm3\themisphere\tn_regions\n500\tL\t3\n',
            'qc': 'similarity\tfold_fraction\thole_share\tseam_contrast\n0.9\t0\t0.01\t0.8\n',
        }
        for desc, text in tables.items():
            Path(f'{stem}_desc-{desc}_morph.tsv').write_text(text)
        mask = nb.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
        mask.set_qform(mask.affine, 4)
        mask.header.set_xyzt_units('mm')
        path = f'{stem}_space-MNI152NLin2009aSym_label-tumor_mask'
        mask.to_filename(f'{path}.nii.gz')
        Path(f'{path}.json').write_text(
            json.dumps({'Type': 'Lesion', 'Sources': ['bids:raw:x'], 'Manual': False})
        )
        write_record(out, label, Record('a run'))
    return bids, out


def test_group(folders, capsys):
    bids, out = folders
    before = {path for path in out.rglob('*') if path.is_file()}
    assert main([str(bids), str(out), 'group']) == 0
    written = {p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file()} - {
        path.relative_to(out).as_posix() for path in before
    }
    stem = 'tpl-MNI152NLin2009aSym/anat/tpl-MNI152NLin2009aSym_label-tumor_probseg'
    assert written == {
        *('group.html', 'group_desc-tumor_morph.tsv', 'group_desc-tumor_morph.json'),
        *(f'{stem}.nii.gz', f'{stem}.json'),
    }
    captured = capsys.readouterr()
    assert str(out / 'group.html') in captured.out
    assert captured.err.splitlines() == ['tumorreg: no derivatives: sub-03']


def test_results_of_an_earlier_run_are_named(folders, capsys):
    bids, out = folders
    record_file(out, '02').unlink()
    assert main([str(bids), str(out), 'group']) == 0
    said = capsys.readouterr().err
    assert 'last run not finished, results of an earlier one: sub-02' in said


def test_a_map_of_masks_that_are_gone_goes(folders):
    bids, out = folders
    assert main([str(bids), str(out), 'group']) == 0
    assert list(out.glob('tpl-*/anat/*'))
    for mask in out.glob('sub-*/anat/*_label-tumor_mask.*'):
        mask.unlink()
    assert main([str(bids), str(out), 'group']) == 0
    assert not list(out.glob('tpl-*/anat/*'))


def test_one_participant(folders, capsys):
    bids, out = folders
    arguments = [str(bids), str(out), 'group', '--participant-label', 'sub-02']
    assert main(arguments) == 0
    lines = (out / 'group_desc-tumor_morph.tsv').read_text().splitlines()
    assert [line.split('\t')[0] for line in lines] == ['participant_id', 'sub-02']
    assert capsys.readouterr().err == ''


def test_wrong_use(folders, tmp_path, capsys):
    bids, out = folders

    def message(*arguments):
        assert main([*map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert 'no such folder' in message(tmp_path / 'nowhere', out, 'group')
    assert 'no such folder' in message(bids, tmp_path / 'nowhere', 'group')
    (tmp_path / 'empty').mkdir()
    assert 'Run the participant level first' in message(bids, tmp_path / 'empty', 'group')
    assert 'no participant 77' in message(bids, out, 'group', '--participant-label', '77', '01')
    assert 'or check the labels' in message(bids, out, 'group', '--session-label', 'x')
    assert not (out / 'group.html').exists()


def test_masks_that_do_not_fit(folders, capsys):
    bids, out = folders
    mask = out / 'sub-02/anat/sub-02_space-MNI152NLin2009aSym_label-tumor_mask.nii.gz'
    nb.Nifti1Image(np.ones((4, 4, 5), np.uint8), np.eye(4)).to_filename(mask)
    assert main([str(bids), str(out), 'group']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(mask) in line and 'differs' in line
    assert not (out / 'group_desc-tumor_morph.tsv').exists()


def test_bids_validator_finds_no_error(folders):
    validator = Path(sys.executable).with_name('bids-validator-deno')
    if not validator.exists():
        pytest.skip('bids-validator-deno is not installed')
    bids, out = folders
    assert main([str(bids), str(out), 'group']) == 0
    done = subprocess.run(
        [validator, str(out), '--json'], capture_output=True, text=True, timeout=120
    )
    issues = json.loads(done.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []
