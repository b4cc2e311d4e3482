"""Disks that are full or read-only, folders that are damaged, shared, or oddly named."""

import os
import shutil
import subprocess
import time

import h5py
import nibabel as nb
import pytest

pytestmark = pytest.mark.faults

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='mounts a disk: root is needed')


@pytest.fixture
def disk(tmp_path):
    """Function that mounts a small disk, or mounts it again with other options."""
    mounted = []

    def mount(name, options):
        folder = tmp_path / name
        if folder in mounted:
            options = f'remount,{options}'
        folder.mkdir(exist_ok=True)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'faults', folder], check=True)
        mounted.append(folder)
        return folder

    yield mount
    for folder in set(mounted):
        subprocess.run(['umount', '--lazy', folder], check=True)


@needs_root
@pytest.mark.parametrize(('kind', 'size'), [('out', '300k'), ('work', '1500k')])
def test_disk_full(start, disk, kind, size):
    folder = disk(kind, f'size={size}')
    said = start(**{kind: folder}).end(1)
    # the reason may be another: what could not be written is missed later on
    assert f'{folder}: only 0 MB are left on its disk' in said and 'free some space' in said, said
    disk(kind, 'size=100m')
    start(**{kind: folder}).end(0)


@needs_root
def test_output_folder_read_only(start, disk):
    out = disk('out', 'ro')
    said = start(out=out).end(2)
    assert f'{out}: nothing can be written here' in said and 'Give another output_dir' in said
    disk('out', 'rw')
    start(out=out).end(0)


def test_two_runs_at_once_of_two_patients(start, bids_phantom, tmp_path):
    first = start(labels=['01'])
    second = start(labels=['02'])
    first.end(0)
    second.end(0)


def test_two_runs_at_once_of_one_patient(start, tmp_path):
    first = start()
    first.step('n4_t1w')
    for work in ('work', 'other'):
        said = start(work=tmp_path / work).end(1)
        assert 'another run is at sub-01 here. Wait until it has ended' in said
    said = start(out=tmp_path / 'elsewhere').end(1)
    assert f'{tmp_path / "work"}: another run is at sub-01' in said
    first.end(0)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(path):
    path.write_bytes(b'\0' * path.stat().st_size)


def read_all(folder):
    """Contents of tables, images and transforms; files of HDF5 hold the time they were made."""
    return {path.name: read(path) for path in folder.iterdir() if path.suffix != '.json'}


def read(path):
    if path.name.endswith('.nii.gz'):
        return nb.load(path).get_fdata().tobytes()
    if path.suffix != '.h5':
        return path.read_bytes()
    with h5py.File(path) as file:
        stages = file['TransformGroup'].values()
        return [stage[key][()].tobytes() for stage in stages for key in stage if 'Param' in key]


DAMAGES = [
    ('n4_t1w/*.nii.gz', cut),
    ('inpaint/*.nii.gz', spoil),
    ('register/*.h5', cut),
    ('inpaint/result_*.pklz', cut),
    ('register/result_*.pklz', spoil),
    ('n4_t1w/_node.pklz', cut),
    ('n4_t1w/_inputs.pklz', spoil),
    ('n4_t1w/_0x*.json', spoil),
    ('tables/*.tsv', spoil),
]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folders for the output and the work of a finished run; Nipype knows them by their paths."""
    folder = tmp_path_factory.mktemp('finished')
    return {'out': folder / 'out', 'work': folder / 'work'}


REPEATED = ('--random-seed', '1')


def finish(start, folders):
    if not folders['work'].exists():
        start(*REPEATED, **folders).end(0)
    return folders['out'], folders['work']


@pytest.mark.parametrize(('name', 'damage'), DAMAGES)
def test_damaged_work_folder(start, finished, tmp_path, name, damage):
    """It is mended, or the last lines say what to delete."""
    out, work = finish(start, finished)
    wanted = read_all(out / 'sub-01' / 'anat')
    shutil.copytree(work, tmp_path / 'sound', symlinks=True)
    try:
        damaged = list(work.rglob(name))
        assert damaged
        for path in damaged:
            damage(path)
        run = start(*REPEATED, **finished)
        code = run.process.wait(900)
        said = run.end(code)
        assert code == 0 or 'delete the work folder' in said, said
        found = read_all(out / 'sub-01' / 'anat')
        assert [name for name in wanted if found.get(name) != wanted[name]] == []
    finally:
        shutil.rmtree(work)
        shutil.copytree(tmp_path / 'sound', work, symlinks=True)


def test_once_a_damaged_work_folder_is_deleted(start, finished):
    out, work = finish(start, finished)
    wanted = read_all(out / 'sub-01' / 'anat')
    shutil.rmtree(work)
    finish(start, finished)
    assert read_all(out / 'sub-01' / 'anat') == wanted


def test_clocks_that_differ(start, tmp_path, bids_phantom):
    """Images and work folder from a machine whose clock is a day ahead, then one behind."""
    bids = tmp_path / 'bids'
    shutil.copytree(bids_phantom, bids)
    shift(bids, 86400)
    run = start(bids=bids)
    run.step('registration_wf.register')
    os.kill(run.process.pid, 2)
    run.end(1)
    for hours in (24, -48):
        shift(tmp_path, hours * 3600)
        start(bids=bids).end(0)


def shift(folder, seconds):
    for path in folder.rglob('*'):
        when = time.time() + seconds
        os.utime(path, (when, when), follow_symlinks=False)


def test_odd_names_of_folders(start, tmp_path, bids_phantom):
    folder = tmp_path / "Eigene Daten; $(touch x) 'ä' 数据 <b>&"
    bids = folder / 'dataset é'
    shutil.copytree(bids_phantom, bids)
    start(bids=bids, out=folder / 'out 1', work=folder / 'work 2', cwd=folder).end(0)
    assert not (folder / 'x').exists()
    page = (folder / 'out 1' / 'sub-01.html').read_text(encoding='utf-8')
    assert '<b>&' not in page and '&lt;b&gt;&amp;' in page


ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ('HOME', 'TEMPLATEFLOW_HOME')}


@pytest.mark.parametrize('home', [{}, {'HOME': '/proc/no/such/home'}])
def test_home_unset_or_not_there(start, home):
    start(env=ENVIRONMENT | home).end(0)


@needs_root
def test_home_read_only(start, disk):
    start(env=ENVIRONMENT | {'HOME': str(disk('home', 'ro'))}).end(0)


@needs_root
def test_little_room_in_tmp(start, disk):
    """1 GB for images with a thousand times the voxels of the phantom: here 1 MB."""
    start(env=os.environ | {'TMPDIR': str(disk('tmp', 'size=1m'))}).end(0)
