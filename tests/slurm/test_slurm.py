"""tumorreg on a real SLURM: its plugin, and a job array; both killed in the middle and resumed.

`make slurm` runs it. It installs Debian's slurm-wlm and munge, which takes root, and starts a
cluster of one node on this machine (cluster.sh).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

pytestmark = pytest.mark.slurm

CLUSTER = Path(__file__).with_name('cluster.sh')
LABELS = ('01', '02', '03', '04')
PATIENCE = 3600


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """Environment with a SLURM that runs."""
    folder = tmp_path_factory.mktemp('slurm')
    if os.geteuid() != 0:
        pytest.skip('to start a SLURM takes root')
    done = subprocess.run([CLUSTER, 'install', folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f'SLURM could not be installed: {done.stderr[-300:]}')
    subprocess.run([CLUSTER, 'start', folder], check=True)
    environment = {**os.environ, 'SLURM_CONF': str(folder / 'slurm.conf'), 'OMP_NUM_THREADS': '1'}
    environment.pop('LOGNAME', None)  # Nipype needs it, and containers have none
    yield environment
    subprocess.run([CLUSTER, 'stop', folder], check=True)


@pytest.fixture(scope='module')
def patients(bids_phantom, tmp_path_factory):
    """Four patients of ellipsoids, each with a mask."""
    root = tmp_path_factory.mktemp('patients') / 'bids'
    mask = next(bids_phantom.glob('derivatives/manual/sub-01/anat/*'))
    for label in LABELS:
        anat = root / f'sub-{label}' / 'anat'
        anat.mkdir(parents=True)
        source = bids_phantom / 'sub-01' / 'anat' / 'sub-01_T1w.nii.gz'
        image = nb.load(source)
        noise = np.random.default_rng(int(label)).integers(0, 20, image.shape)
        data = np.asanyarray(image.dataobj)
        image = nb.Nifti1Image((data + noise * (data > 0)).astype(np.int16), image.affine)
        image.to_filename(anat / f'sub-{label}_T1w.nii.gz')
        shutil.copy(mask, anat / f'sub-{label}_label-lesion_roi.nii.gz')
    shutil.copy(bids_phantom / 'dataset_description.json', root)
    return root


@pytest.fixture
def command(patients, template_phantom, tmp_path):
    return [
        *(sys.executable, '-m', 'tumorreg_wf.cli.run', patients, tmp_path / 'out', 'participant'),
        *('-w', tmp_path / 'work', '--template', template_phantom, '--sloppy', '--device', 'cpu'),
        *('--nprocs', '1', '--omp-nthreads', '1', '--bids-database-dir', tmp_path / 'database'),
    ]


def wait_for(condition, what):
    """Wait until a condition holds, and give what it gave."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(1)
    raise TimeoutError(what)


def jobs(environment, *more):
    """Ids and names of the jobs in the queue."""
    done = subprocess.run(
        ['squeue', '--noheader', '--array', '--format=%i %j', *more],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return [line.split() for line in done.stdout.splitlines()]


def results(work):
    return {path: path.stat().st_mtime_ns for path in work.rglob('result_*.pklz')}


def check_outputs(out):
    for label in LABELS:
        assert (out / f'sub-{label}.html').exists()
        anat = out / f'sub-{label}' / 'anat'
        assert (anat / f'sub-{label}_desc-qc_morph.tsv').exists()
        atlas = nb.load(anat / f'sub-{label}_atlas-Quarters_dseg.nii.gz')
        assert len(np.unique(np.asanyarray(atlas.dataobj))) == 5


def note(name, **figures):
    """Print figures, and keep them where TUMORREG_FIGURES names a file."""
    line = json.dumps({'test': name, **figures})
    print(line)
    if path := os.environ.get('TUMORREG_FIGURES'):
        with Path(path).open('a') as stream:
            stream.write(line + '\n')


def test_plugin(slurm, command, tmp_path):
    """Every step is a job; one is cancelled, its participant fails, the same command resumes."""
    plugin = tmp_path / 'slurm.yml'
    plugin.write_text('plugin: SLURM\nplugin_args: {sbatch_args: "--cpus-per-task=1"}\n')
    command = [*map(str, command), '--use-plugin', str(plugin)]
    began = time.monotonic()
    run = subprocess.Popen(
        command, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def third():
        assert run.poll() is None, run.communicate()
        return [job for job, name in jobs(slurm, '--states=R') if 'sub_03' in name]

    job = wait_for(third, 'a job of sub-03')[0]
    subprocess.run(['scancel', job], env=slurm, check=True)
    said, errors = run.communicate(timeout=PATIENCE)
    first = time.monotonic() - began
    assert run.returncode == 1, said + errors
    assert 'Traceback' not in said + errors
    assert '(submitted)' in said and '3 of 4 participants' in said, said + errors
    lines = errors.strip().splitlines()
    assert lines[0].startswith('tumorreg: sub-03 failed') and f'({job})' in lines[0]
    assert Path(lines[1].split('details: ')[1]).is_file()
    assert 'The cluster ended the job' in lines[2] and 'same command' in lines[2]
    assert lines[3:] == ['1 of 4 participants failed.']

    before = results(tmp_path / 'work')
    began = time.monotonic()
    again = subprocess.run(command, env=slurm, capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 0, again.stdout + again.stderr
    check_outputs(tmp_path / 'out')
    after = results(tmp_path / 'work')
    changed = {path for path, at in before.items() if after.get(path) != at}
    assert not [path for path in changed if not path.parent.name.startswith('ds_')]
    note('plugin', first_s=first, resumed_s=time.monotonic() - began, steps=len(after))


def test_job_array(slurm, command, tmp_path):
    """A participant per task, one output and work folder, one database, which none has made yet.

    Two cores start two tasks at once. One task is cancelled and comes again.
    """
    script = tmp_path / 'array.sh'
    script.write_text(
        '#!/bin/bash\n'
        f'labels=({" ".join(LABELS)})\n'
        f'exec {" ".join(map(str, command))} '
        '--participant-label "${labels[$SLURM_ARRAY_TASK_ID]}"\n'
    )
    submit = ['sbatch', '--parsable', f'--output={tmp_path}/%a.txt', '--cpus-per-task=1']
    began = time.monotonic()
    done = subprocess.run(
        [*submit, '--array=0-3', script], env=slurm, capture_output=True, text=True, check=True
    )
    array = done.stdout.strip()
    work = tmp_path / 'work'
    # sub-02 runs beside sub-01 from the start on
    wait_for(lambda: list(work.glob('*/sub_02_wf/conform_wf/*/result_*.pklz')), 'sub-02')
    subprocess.run(['scancel', f'{array}_1'], env=slurm, check=True)
    wait_for(lambda: not jobs(slurm), 'the end of the array')
    first = time.monotonic() - began
    said = {label: (tmp_path / f'{i}.txt').read_text() for i, label in enumerate(LABELS)}
    for label in ('01', '03', '04'):
        assert f'Report: {tmp_path}/out/sub-{label}.html' in said[label], said[label]
    assert not (tmp_path / 'out' / 'sub-02.html').exists()

    before = results(work)
    began = time.monotonic()
    subprocess.run(
        [*submit, '--wait', '--array=1', script], env=slurm, check=True, timeout=PATIENCE
    )
    check_outputs(tmp_path / 'out')
    after = results(work)
    changed = {path for path, at in before.items() if after.get(path) != at}
    assert not [path for path in changed if not path.parent.name.startswith('ds_')]
    note('array', first_s=first, resumed_s=time.monotonic() - began, steps=len(after))
