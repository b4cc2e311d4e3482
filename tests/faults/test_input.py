"""Images and weights that are damaged, and what a run must not reach for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tumorreg_wf

pytestmark = pytest.mark.faults

FIVE = ['01', '02', '03', '04', '05']


def test_one_bad_patient_among_five(start, tmp_path, bids_phantom):
    """Its T1w is cut short."""
    bids = tmp_path / 'bids'
    shutil.copytree(bids_phantom, bids)
    for root in (bids, bids / 'derivatives' / 'manual'):
        for label in FIVE[1:]:
            folder = root / f'sub-{label}'
            shutil.rmtree(folder, ignore_errors=True)
            for source in (root / 'sub-01').rglob('*sub-01_[lT]*.nii.gz'):
                target = folder / 'anat' / source.name.replace('sub-01', f'sub-{label}')
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    bad = bids / 'sub-03' / 'anat' / 'sub-03_T1w.nii.gz'
    bad.write_bytes(bad.read_bytes()[:20_000])
    run = start(bids=bids, labels=FIVE)
    said = run.end(1, seconds=900)
    assert '1 of 5 participants failed' in said
    assert f'sub-03 failed: {bad}: this is not a readable NIfTI image' in said
    assert str(bad) in (tmp_path / 'out' / 'sub-03.html').read_text()
    run.labels = [label for label in FIVE if label != '03']
    run.check_finished()


@pytest.mark.parametrize('damage', ['cut', 'altered'])
def test_packaged_weights_are_damaged(start, tmp_path, damage):
    package = tmp_path / 'site' / 'tumorreg_wf'
    shutil.copytree(Path(tumorreg_wf.__file__).parent, package)
    for path in (package / 'data' / 'weights').glob('*.safetensors'):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content if damage == 'altered' else content[: len(content) // 2])
    environment = os.environ | {'PYTHONPATH': str(package.parent)}
    said = start(env=environment, weights=False, cwd=tmp_path).end(2)
    assert {'cut': 'not a weights file', 'altered': 'weights were altered'}[damage] in said
    assert str(package) in said
    assert not (tmp_path / 'out').exists()


def test_weights_are_exchanged_while_a_run_goes_on(start, tmp_path, tiny_weights):
    shutil.copytree(tiny_weights, tmp_path / 'weights')
    weights = tmp_path / 'weights' / 'inpainting.safetensors'
    run = start('--inpainting-weights', weights)
    run.step('n4_t1w')
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert 'these weights changed since the run was planned' in run.end(1)


WATCH = """
import os, socket, sys

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'socket.bind'):
        if event != 'socket.getaddrinfo' and arguments[0].family == socket.AF_UNIX:
            return
        with open(os.environ['REACHED_FOR'], 'a') as stream:
            stream.write(f'{event} {arguments[1:]} {sys.argv}\\n')

sys.addaudithook(watch)
"""


def test_no_network(start, tmp_path):
    """None is there, and nobody reaches for it: neither the run nor what it starts."""
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'sitecustomize.py').write_text(WATCH)
    path = os.pathsep.join([str(tmp_path / 'site'), os.environ.get('PYTHONPATH', '')])
    reached = tmp_path / 'reached'
    environment = os.environ | {'PYTHONPATH': path, 'REACHED_FOR': str(reached)}
    code = 'import socket; socket.socket().connect_ex(("127.0.0.1", 9))'
    subprocess.run([sys.executable, '-c', code], env=environment, check=True)
    assert 'socket.connect' in reached.read_text()  # the watch works
    reached.unlink()
    alone = ['unshare', '-n'] if os.geteuid() == 0 else ['unshare', '-rn']
    start(masks=False, before=alone, env=environment).end(0)
    assert not reached.exists(), reached.read_text()
