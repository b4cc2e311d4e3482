"""The whole run on ellipsoid brains, and what it says to wrong use."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.bids import open_layout
from tumorreg_wf.cli.run import main
from tumorreg_wf.weights import PACKAGED


def tumorreg(*arguments, **options):
    """Run the command as a user does."""
    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', *map(str, arguments)]
    command += ['--device', 'cpu']
    return subprocess.run(command, capture_output=True, text=True, timeout=550, **options)


@pytest.fixture(scope='module')
def finished(bids_phantom, template_phantom, tmp_path_factory):
    """A finished run of both participants: its arguments and what it printed."""
    folder = tmp_path_factory.mktemp('run')
    arguments = [
        *(bids_phantom, folder / 'out', 'participant', '-w', folder / 'work', '--sloppy'),
        *('--template', template_phantom, '-d', bids_phantom / 'derivatives' / 'manual'),
        *('--nprocs', '2', '--omp-nthreads', '1'),
    ]
    done = tumorreg(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / 'out', folder / 'work', arguments, done


def load(path):
    return np.asanyarray(nb.load(path).dataobj)


NAMES = """
desc-preproc_T1w.nii.gz desc-preproc_T1w.json desc-brain_mask.nii.gz label-tumor_mask.nii.gz
label-tumor_desc-dilated_mask.nii.gz desc-inpainted_T1w.nii.gz dseg.nii.gz dseg.tsv
from-Phantom_to-T1w_mode-image_xfm.h5 from-T1w_to-Phantom_mode-image_xfm.h5
label-GM_probseg.nii.gz label-WM_probseg.nii.gz label-CSF_probseg.nii.gz
desc-inpainted_dseg.nii.gz atlas-Quarters_dseg.nii.gz atlas-Quarters_dseg.tsv
atlas-Quarters_desc-tumor_morph.tsv desc-tumor_morph.tsv desc-tumor_morph.json
desc-qc_morph.tsv desc-qc_morph.json
space-Phantom_desc-preproc_T1w.nii.gz space-Phantom_desc-brain_mask.nii.gz
space-Phantom_label-tumor_mask.nii.gz
""".split()


@pytest.mark.parametrize('label', ['01', '02'])
def test_every_output_is_there(finished, label):
    out = finished[0]
    anat = out / f'sub-{label}' / 'anat'
    missing = [name for name in NAMES if not (anat / f'sub-{label}_{name}').exists()]
    assert missing == []
    assert (out / f'sub-{label}.html').exists()
    # the U-Net ran only where no mask was given
    assert (anat / f'sub-{label}_label-tumor_probseg.nii.gz').exists() == (label == '02')
    description = json.loads((out / 'dataset_description.json').read_text())
    assert description['GeneratedBy'][0]['Version']
    assert (out / 'logs' / 'CITATION.md').read_text()


def test_images_lie_on_the_grid_of_the_t1w(finished, bids_phantom):
    source = nb.load(bids_phantom / 'sub-01/anat/sub-01_T1w.nii.gz')
    for path in (finished[0] / 'sub-01' / 'anat').glob('*.nii.gz'):
        if '_space-' not in path.name:
            image = nb.load(path)
            assert image.shape == source.shape, path.name
            np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)


def test_recovered_t1w_differs_in_the_hole_alone(finished):
    stem = finished[0] / 'sub-01' / 'anat' / 'sub-01'
    before, after, hole = (
        load(f'{stem}_{name}.nii.gz')
        for name in ('desc-preproc_T1w', 'desc-inpainted_T1w', 'label-tumor_desc-dilated_mask')
    )
    np.testing.assert_array_equal(before[hole == 0], after[hole == 0])
    assert (before[hole == 1] != after[hole == 1]).mean() > 0.9


def test_the_users_mask_comes_out(finished, bids_phantom):
    given = nb.load(bids_phantom / 'derivatives/manual/sub-01/anat/sub-01_label-lesion_roi.nii.gz')
    found = nb.load(finished[0] / 'sub-01/anat/sub-01_label-tumor_mask.nii.gz')
    assert nb.aff2axcodes(given.affine) != nb.aff2axcodes(found.affine)
    given, found_ras = nb.as_closest_canonical(given), nb.as_closest_canonical(found)
    np.testing.assert_array_equal(load_data(given), load_data(found_ras))
    dilated = load(finished[0] / 'sub-01/anat/sub-01_label-tumor_desc-dilated_mask.nii.gz')
    away = ndimage.distance_transform_edt(load_data(found) == 0, sampling=3.0)
    np.testing.assert_array_equal(dilated == 1, away <= 3)
    assert 'sub-01_label-lesion_roi.nii.gz' in (finished[0] / 'sub-01.html').read_text()


def load_data(image):
    return np.asanyarray(image.dataobj)


def test_the_atlas_fits_the_patient(finished, bids_phantom):
    anat = finished[0] / 'sub-01' / 'anat'
    t1w = load(bids_phantom / 'sub-01/anat/sub-01_T1w.nii.gz')
    dseg, healthy = (
        load(anat / 'sub-01_dseg.nii.gz'),
        load(anat / 'sub-01_desc-inpainted_dseg.nii.gz'),
    )
    tumor = load(anat / 'sub-01_label-tumor_mask.nii.gz') == 1
    white = (t1w > 800) & ~tumor
    overlap = 2 * (white & (dseg == 2)).sum() / (white.sum() + (dseg == 2).sum())
    # the network sees voxels of 1 mm: borders of the phantom's, of 3 mm, are not quite theirs
    assert overlap > 0.8
    assert (dseg[tumor] == 7).all() and not (healthy == 7).any()
    # the tumour is front right by construction (x and y positive)
    atlas = load(anat / 'sub-01_atlas-Quarters_dseg.nii.gz')
    assert np.bincount(atlas[tumor]).argmax() == 4
    lines = (anat / 'sub-01_desc-tumor_morph.tsv').read_text().splitlines()
    row = dict(zip(lines[0].split('\t'), lines[1].split('\t'), strict=True))
    assert row['hemisphere'] == 'R'
    assert float(row['volume_mm3']) == pytest.approx(tumor.sum() * 27)
    assert float(row['centroid_x']) == pytest.approx(30, abs=1.5)


def test_bids_validator_finds_no_error(finished):
    validator = Path(sys.executable).with_name('bids-validator-deno')
    if not validator.exists():
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run(
        [validator, str(finished[0]), '--json'], capture_output=True, text=True, timeout=120
    )
    issues = json.loads(done.stdout)['issues']['issues']
    assert [issue for issue in issues if issue['severity'] == 'error'] == []


def results(work):
    return {path: path.stat().st_mtime_ns for path in work.rglob('result_*.pklz')}


def test_the_same_again_recomputes_nothing(finished):
    out, work, arguments, _ = finished
    before = results(work)
    (out / 'sub-01' / 'anat' / 'sub-01_dseg.nii.gz').unlink()
    done = tumorreg(*arguments)
    assert done.returncode == 0, done.stderr
    changed = [path for path, time in results(work).items() if before.get(path) != time]
    # sinks look whether their file is still there, and put it back
    assert [path for path in changed if not path.parent.name.startswith('ds_')] == []
    assert (out / 'sub-01' / 'anat' / 'sub-01_dseg.nii.gz').exists()


def test_methods_are_those_of_the_participant(finished):
    out = finished[0]
    given, found = ((out / f'sub-{label}.html').read_text() for label in ('01', '02'))
    assert 'The tumour mask was given' in given and 'The tumour mask was given' not in found
    assert 'was segmented' in found and 'was segmented' not in given


def test_what_only_an_earlier_run_wrote_goes(finished):
    out, _, arguments, _ = finished
    stale = [
        out / 'sub-01' / 'figures' / 'sub-01_desc-brain_T1w.svg',
        *(
            out / 'sub-01' / 'anat' / f'sub-01_{name}'
            for name in (
                'label-tumor_probseg.nii.gz',
                'space-Other_label-tumor_mask.nii.gz',
                'atlas-Other_dseg.nii.gz',
                'from-Other_to-T1w_mode-image_xfm.h5',
            )
        ),
    ]
    others = out / 'sub-01' / 'anat' / 'sub-01_acq-x_space-Phantom_desc-preproc_T1w.nii.gz'
    mine = out / 'sub-01' / 'anat' / 'sub-01_notes.txt'
    for path in (*stale, others, mine):
        path.write_text('of a run without this mask')
    kept = out / 'sub-02' / 'anat' / 'sub-02_label-tumor_probseg.nii.gz'
    done = tumorreg(*arguments)
    assert done.returncode == 0, done.stderr
    assert not any(path.exists() for path in stale) and kept.exists()
    assert others.exists() and mine.exists()
    others.unlink()
    mine.unlink()


def test_reports_only_tells_of_what_is_not_finished(finished, tmp_path, monkeypatch):
    out, _, arguments, _ = finished
    monkeypatch.chdir(tmp_path)
    Path('crash-20260101-somebody-else.txt').write_text('Node: theirs\nValueError: not ours\n')
    again = (*arguments, '--reports-only', '--registration-engine', 'syn')
    page, citation = out / 'sub-01.html', out / 'logs' / 'CITATION.md'
    before = page.read_text(), citation.read_text()
    assert tumorreg(*again).returncode == 0
    # as it was made, by the command that made it
    assert (page.read_text(), citation.read_text()) == before
    table = out / 'sub-01' / 'anat' / 'sub-01_desc-qc_morph.tsv'
    content = table.read_bytes()
    table.unlink()
    check_message(tumorreg(*again), 1, table.name, 'Run the participant again')
    table.write_bytes(content)
    record = out / 'logs' / 'sub-01.json'
    content = record.read_bytes()
    record.unlink()
    check_message(tumorreg(*again), 1, 'sub-01 failed: not finished')
    assert 'not ours' not in page.read_text()
    record.write_bytes(content)
    assert tumorreg(*again).returncode == 0


def test_an_empty_region_is_no_missing_tumour(finished):
    assert 'no tumour was found' not in finished[3].stdout + finished[3].stderr
    table = finished[0] / 'sub-01' / 'anat' / 'sub-01_atlas-Quarters_desc-tumor_morph.tsv'
    content = table.read_text()
    table.write_text('index\tname\tvolume_mm3\n1\tnone\t0.0\n')
    again = tumorreg(*finished[2], '--reports-only')
    assert 'no tumour was found' not in again.stdout + again.stderr
    table.write_text(content)


def test_other_weights_recompute_from_the_unet_on(finished, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    _, work, arguments, _ = finished
    source = PACKAGED / 'segmentation.safetensors'
    with safe_open(source, framework='numpy') as opened:
        metadata = opened.metadata() | {'name': 'other'}
    state = load_file(source)
    state['head.bias'] = state['head.bias'] + 0.5
    save_file(state, tmp_path / 'other.safetensors', metadata)
    before = results(work)
    done = tumorreg(*arguments, '--segmentation-weights', tmp_path)
    assert done.returncode == 0, done.stderr
    changed = {
        path.parent.name for path, time in results(work).items() if before.get(path) != time
    }
    assert 'segment' in changed and 'dilate' in changed
    assert changed.isdisjoint({'conform_t1w', 'n4_t1w', 'normalize_t1w'})


def test_native_ants_on_path_is_what_runs(tmp_path, monkeypatch):
    from tumorreg_wf.interfaces.ants import Registration

    assert 'tumorreg_wf.ants_program antsRegistration' in Registration().cmd
    program = tmp_path / 'antsRegistration'
    program.write_text('#!/bin/sh\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    assert Registration().cmd == 'antsRegistration'


def empty_dataset(root):
    root.mkdir()
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def check_message(done, code, *words):
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('tumorreg')]
    assert len(errors) == 1, done.stderr
    for word in words:
        assert word in errors[0]


def test_wrong_use(bids_phantom, tmp_path):
    out, work = tmp_path / 'out', tmp_path / 'work'
    options = ('participant', '-w', work)
    (tmp_path / 'plain').mkdir()
    check_message(tumorreg(tmp_path / 'plain', out, *options), 2, 'dataset_description.json')
    check_message(
        tumorreg(bids_phantom, out, *options, '--participant-label', 'nobody'), 2, 'nobody', '01'
    )
    inside = ('participant', '-w', bids_phantom / 'work')
    check_message(tumorreg(bids_phantom, out, *inside), 2, '--work-dir')
    assert not (bids_phantom / 'work').exists()
    link = tmp_path / 'link'
    link.symlink_to(bids_phantom)
    description = (bids_phantom / 'dataset_description.json').read_text()
    check_message(tumorreg(bids_phantom, link, *options), 2, 'the dataset itself')
    check_message(tumorreg(link, bids_phantom, *options), 2, 'the dataset itself')
    assert (bids_phantom / 'dataset_description.json').read_text() == description
    (bids_phantom / 'sub-01' / 'out').mkdir()
    check_message(
        tumorreg(bids_phantom, bids_phantom / 'sub-01' / 'out', *options), 2, 'participant'
    )
    (bids_phantom / 'sub-01' / 'out').rmdir()
    check_message(
        tumorreg(bids_phantom, out, 'participant', '-w', out / 'work'), 2, 'into the output folder'
    )
    inside = ('participant', '-w', link / 'work')
    check_message(tumorreg(bids_phantom, out, *inside), 2, '--work-dir')
    check_message(
        tumorreg(bids_phantom, out, 'participant', '-w', tmp_path / 'w[1]'), 2, '"[" will do'
    )
    theirs = empty_dataset(tmp_path / 'fmriprep')
    check_message(tumorreg(bids_phantom, theirs, *options), 2, 'another program')
    out.mkdir(exist_ok=True)
    check_message(tumorreg(bids_phantom, out, *options, '-d', out), 2, 'a folder of their own')
    filters = tmp_path / 'filters.json'
    filters.write_text('{"t1w": {"nonsense": 1}}')
    check_message(
        tumorreg(bids_phantom, out, *options, '--bids-filter-file', filters), 2, 'query for t1w'
    )
    assert not (out / 'logs').exists()
    blocked = tmp_path / 'blocked'
    blocked.write_text('a file, no folder')
    check_message(tumorreg(bids_phantom, blocked, *options), 2, str(blocked))
    check_message(tumorreg(bids_phantom, out, *options, '--output-spaces', 'MNI1'), 2, 'MNI1')
    check_message(
        tumorreg(bids_phantom, out, *options, '--segmentation-weights', bids_phantom),
        2,
        'safetensors',
    )


def test_no_room_for_the_template(bids_phantom, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'atlas.nii.gz')

    monkeypatch.setattr('tumorreg_wf.template.load_template', fail)
    arguments = bids_phantom, tmp_path / 'out', 'participant', '-w', tmp_path / 'work'
    assert main([*map(str, arguments), '--device', 'cpu']) == 1
    assert 'error: atlas.nii.gz: No space left on device.' in capsys.readouterr().err


def test_what_cannot_be_used_stops_its_participant_alone(bids_phantom, tmp_path):
    masks = empty_dataset(tmp_path / 'masks')
    (masks / 'sub-01' / 'anat').mkdir(parents=True)
    t1w = nb.load(bids_phantom / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz')
    empty = masks / 'sub-01' / 'anat' / 'sub-01_desc-brain_mask.nii.gz'
    nb.Nifti1Image(np.zeros(t1w.shape, np.uint8), t1w.affine).to_filename(empty)
    again = ('participant', '-w', tmp_path / 'work', '-d', masks, '--boilerplate-only')
    done = tumorreg(bids_phantom, tmp_path / 'out', *again)
    check_message(done, 1, 'sub-01 failed', 'this brain mask is empty')
    assert 'sub-02' in done.stdout


def test_reports_of_who_never_ran(bids_phantom, tmp_path):
    again = ('participant', '-w', tmp_path / 'work', '--participant-label', '01', '--reports-only')
    done = tumorreg(bids_phantom, tmp_path / 'out', *again)
    check_message(done, 1, 'sub-01 failed', 'not run yet')
    assert not (tmp_path / 'out' / 'sub-01.html').exists()


def test_no_t1w(tmp_path):
    root = empty_dataset(tmp_path / 'bids')
    anat = root / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (anat / 'sub-01_ce-gadolinium_T1w.nii.gz').write_bytes(b'')
    done = tumorreg(root, tmp_path / 'out', 'participant', '-w', tmp_path / 'work')
    check_message(done, 1, 'no T1w', 'sub-01_ce-gadolinium_T1w.nii.gz')
    again = ('participant', '-w', tmp_path / 'work', '--reports-only')
    done = tumorreg(root, tmp_path / 'out', *again)
    check_message(done, 1, 'no T1w', 'sub-01_ce-gadolinium_T1w.nii.gz')
    assert not (tmp_path / 'out' / 'logs' / 'CITATION.md').exists()
    assert not (tmp_path / 'out' / 'logs' / 'sub-01.json').exists()


def test_no_such_session(tmp_path):
    root = empty_dataset(tmp_path / 'bids')
    for session in ('01', '02'):
        anat = root / 'sub-01' / f'ses-{session}' / 'anat'
        anat.mkdir(parents=True)
        (anat / f'sub-01_ses-{session}_T1w.nii.gz').write_bytes(b'')
        (anat / f'sub-01_ses-{session}_ce-gad_T1w.nii.gz').write_bytes(b'')  # not the reason
    done = tumorreg(
        *(root, tmp_path / 'out', 'participant', '-w', tmp_path / 'work'),
        *('--session-label', '1'),
    )
    check_message(done, 1, 'of session 1 was found', 'There are: 01, 02')


def test_a_mask_of_another_name_is_missed(bids_phantom, tmp_path):
    anat = empty_dataset(tmp_path / 'masks') / 'sub-02' / 'anat'
    anat.mkdir(parents=True)
    shutil.copy(next(bids_phantom.rglob('*_roi.nii.gz')), anat / 'sub-02_label-tumour_mask.nii.gz')
    done = tumorreg(
        *(bids_phantom, tmp_path / 'out', 'participant', '-w', tmp_path / 'work'),
        *('--participant-label', '02', '--boilerplate-only', '-d', f'hand={tmp_path / "masks"}'),
    )
    assert done.returncode == 0, done.stderr
    assert 'sub-02_label-tumour_mask.nii.gz' in done.stdout + done.stderr
    assert str(tmp_path / 'out' / 'logs' / 'CITATION.md') in done.stdout
    # what else is there is not of this run
    assert not (tmp_path / 'out' / 'dataset_description.json').exists()


def test_masks_are_in_a_folder_below(bids_phantom, tmp_path):
    masks = tmp_path / 'derivatives' / 'hand'
    (masks / 'sub-02').mkdir(parents=True)
    for folder in (masks, masks.parent):
        (folder / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    done = tumorreg(
        *(bids_phantom, tmp_path / 'out', 'participant', '-w', tmp_path / 'work'),
        *('--participant-label', '02', '--boilerplate-only', '-d', masks.parent),
    )
    assert f'Is it {masks} that was meant?' in done.stdout + done.stderr


def test_a_t1w_newer_than_the_database(bids_phantom, tmp_path):
    root = shutil.copytree(bids_phantom, tmp_path / 'bids')
    open_layout(root, [], tmp_path / 'database').connection_manager.session.close()
    anat = root / 'sub-07' / 'anat'
    anat.mkdir(parents=True)
    shutil.copy(root / 'sub-02/anat/sub-02_T1w.nii.gz', anat / 'sub-07_T1w.nii.gz')
    done = tumorreg(
        *(root, tmp_path / 'out', 'participant', '-w', tmp_path / 'work'),
        *('--participant-label', '07', '--bids-database-dir', tmp_path / 'database'),
    )
    check_message(done, 1, 'sub-07_T1w.nii.gz is not taken: it is newer than the database')


def test_a_folder_with_html_in_its_name(tmp_path):
    root, out = empty_dataset(tmp_path / 'bids'), tmp_path / 'out'
    odd = 'sub-<script>alert(1)</script>'.replace('/', '')
    for name in (odd, 'sub-01'):
        (root / name).mkdir()
    done = tumorreg(root, out, 'participant', '-w', tmp_path / 'work')
    check_message(done, 1, 'T1w')
    assert f'{odd}: not looked at' in done.stdout
    assert [page.name for page in out.glob('*.html')] == ['sub-01.html']


def test_corrupt_image_fails_its_participant_alone(bids_phantom, tmp_path):
    root = empty_dataset(tmp_path / 'bids')
    for label in ('01', '02'):
        target = root / f'sub-{label}' / 'anat' / f'sub-{label}_T1w.nii.gz'
        target.parent.mkdir(parents=True)
        shutil.copy(bids_phantom / 'sub-02/anat/sub-02_T1w.nii.gz', target)
    bad = root / 'sub-01/anat/sub-01_T1w.nii.gz'
    bad.write_bytes(bad.read_bytes()[:5000])
    done = tumorreg(
        root, tmp_path / 'out', 'participant', '-w', tmp_path / 'work', '--boilerplate-only'
    )
    check_message(done, 1, 'sub-01', bad.name)
