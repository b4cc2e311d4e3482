"""Real runs of a tiny patient, and means to break them; prints how many were survived."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.files import check_whole

COUNTED = ('passed', 'failed', 'error')


def pytest_terminal_summary(terminalreporter):
    counts = {
        kind: sum(
            'tests/faults/' in report.nodeid
            for report in terminalreporter.stats.get(kind, [])
            if hasattr(report, 'nodeid')
        )
        for kind in COUNTED
    }
    if any(counts.values()):
        tried = sum(counts.values())
        terminalreporter.write_line(f'faults: survived {counts["passed"]} / {tried} tried')


def descendants(pid):
    """Processes below one: pid by command line, and the parent of each, from /proc."""
    parents = {}
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            stat = (folder / 'stat').read_text()
            command = (folder / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(stat.rpartition(')')[2].split()[1]), command
    found, todo = {}, [pid]
    while todo:
        parent = todo.pop()
        for child, (its_parent, command) in parents.items():
            if its_parent == parent:
                found[child] = its_parent, command
                todo.append(child)
    return found


def listen_to_ctrl_c():
    """Undo what shells do to jobs in the background, in which these tests may run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Run:
    """A run that has been started, seen from outside."""

    def __init__(self, command, log, out, labels, **options):
        self.log, self.out, self.labels = log, out, labels
        self.old_logs = set(out.glob('logs/*.log'))
        with log.open('w') as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=listen_to_ctrl_c,
                **options,
            )

    @property
    def said(self):
        return self.log.read_text()

    def wait_for(self, look, what, seconds=300):
        """Look again and again until there is something; give it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := look():
                return found
            if self.process.poll() is not None:
                pytest.fail(f'the run ended before {what}:\n{self.said}')
            time.sleep(0.02)
        pytest.fail(f'no {what}:\n{self.said}')

    def step(self, name):
        """Wait until a step runs."""

        def look():
            logs = set(self.out.glob('logs/*.log')) - self.old_logs
            said = ' '.join(map(_read, logs))
            return f' {name} running' in said or f'.{name} running' in said

        self.wait_for(look, f'step {name}')

    def worker(self):
        """Process of Nipype's that runs the steps, stopped: a short step would end meanwhile."""

        def look():
            below = self.below()
            servers = [pid for pid, (_, command) in below.items() if 'forkserver' in command]
            return [pid for pid, (parent, _) in below.items() if parent in servers and stop(pid)]

        def stop(pid):
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                return False
            return True

        return self.wait_for(look, 'worker')[0]

    def program(self, name, library=''):
        """Process of a network or of ANTs, once it has loaded a library."""

        def look():
            return [
                pid
                for pid, (_, command) in self.below().items()
                if ' -m tumorreg_wf.' in command and f' {name} ' in command
                if not command.startswith('/bin/sh') and library in _read(f'/proc/{pid}/maps')
            ]

        return self.wait_for(look, f'program {name}')[-1]

    def below(self):
        """All processes it has started, as :func:`descendants` gives them."""
        return descendants(self.process.pid)

    def end(self, code, seconds=400):
        """Wait for the end; what is stored then is whole, and after exit code 0 complete."""
        try:
            assert self.process.wait(seconds) == code, self.said
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f'the run hangs:\n{self.said}')
        assert 'Traceback' not in self.said, self.said
        if code == 0:
            self.check_finished()
        for label in self.labels:
            check_readable(self.out / f'sub-{label}')
        return self.said

    def check_finished(self):
        """Every file is there and whole, and nothing else lies about."""
        for label in self.labels:
            names = {path.name for path in check_readable(self.out / f'sub-{label}')}
            assert [name for name in ENDINGS if f'sub-{label}_{name}' not in names] == []
            assert not [name for name in names if name.startswith('.part-')]
            page = (self.out / f'sub-{label}.html').read_text(encoding='utf-8')
            assert page.rstrip().endswith('</html>') and page.count('class="picture"') >= 5


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ''


@pytest.fixture(scope='session')
def check_gone():
    """Function that checks that processes have ended, or do so in a moment."""

    def check(pids, seconds=20):
        until = time.monotonic() + seconds
        while left := [pid for pid in pids if _read(f'/proc/{pid}/cmdline')]:
            assert time.monotonic() < until, [pids[pid] for pid in left]
            time.sleep(0.1)

    return check


@pytest.fixture(scope='session')
def tiny_weights(tmp_path_factory):
    """Untrained networks of a few channels: fast."""
    import torch

    from tumorreg_wf.models.networks import save_network
    from tumorreg_wf.models.partial_conv import PConvUNet3D
    from tumorreg_wf.models.unet import UNet
    from tumorreg_wf.models.unet3d import TissueUNet

    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    config = {'width': 4}
    networks = {'segmentation': UNet, 'inpainting': PConvUNet3D, 'tissues': TissueUNet}
    for task, network in networks.items():
        path = folder / f'{task}.safetensors'
        facts = {'name': 'tiny', 'task': task, 'config': config, 'spacing': 3.0}
        save_network(network(**config), path, **facts)
    return folder


@pytest.fixture
def start(bids_phantom, template_phantom, tiny_weights, tmp_path):
    """Function that starts the command, by default on sub-01 with its mask, in ``tmp_path``."""
    started = []

    def begin(
        *options,
        bids=bids_phantom,
        out=tmp_path / 'out',
        work=tmp_path / 'work',
        masks=True,
        weights=True,
        labels=('01',),
        before=(),
        **how,
    ):
        command = [*before, sys.executable, '-m', 'tumorreg_wf.cli.run']
        command += [bids, out, 'participant', '-w', work, '--participant-label', *labels]
        command += ['--template', template_phantom, '--sloppy', '--device', 'cpu']
        command += ['--nprocs', '1', '--omp-nthreads', '1']
        # greedy is done with a phantom before anything can be done to it
        command += ['--registration-engine', 'syn']
        for task in ('segmentation', 'inpainting', 'tissues') if weights else ():
            option = f'--{task.removesuffix("s")}-weights'
            command += [option, tiny_weights / f'{task}.safetensors']
        if masks:
            command += ['-d', bids / 'derivatives' / 'manual']
        log = tmp_path / f'log-{len(started)}'
        words = [*map(str, command), *map(str, options)]
        started.append(Run(words, log, Path(out), labels, **how))
        return started[-1]

    yield begin
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()


#: Endings of what a finished run has stored for sub-01, which has a mask and so no probability.
ENDINGS = """
desc-preproc_T1w.nii.gz desc-brain_mask.nii.gz label-tumor_mask.nii.gz dseg.tsv
label-tumor_desc-dilated_mask.nii.gz desc-inpainted_T1w.nii.gz dseg.nii.gz
from-Phantom_to-T1w_mode-image_xfm.h5 from-T1w_to-Phantom_mode-image_xfm.h5
label-GM_probseg.nii.gz label-WM_probseg.nii.gz label-CSF_probseg.nii.gz
desc-inpainted_dseg.nii.gz desc-inpainted_dseg.tsv atlas-Quarters_dseg.nii.gz
atlas-Quarters_dseg.tsv atlas-Quarters_desc-tumor_morph.tsv desc-tumor_morph.tsv
desc-qc_morph.tsv space-Phantom_desc-preproc_T1w.nii.gz space-Phantom_desc-brain_mask.nii.gz
space-Phantom_label-tumor_mask.nii.gz
""".split()


def check_readable(folder):
    """What is stored, logs aside, can be read to its end, whatever happened; give it."""
    logs = folder / 'log'
    stored = [path for path in folder.rglob('*') if path.is_file() and logs not in path.parents]
    for path in stored:
        if not path.name.startswith('.part-'):
            check_whole(path)
        if path.name.endswith('.nii.gz'):
            assert np.isfinite(nb.load(path).get_fdata()).all()
    return stored
