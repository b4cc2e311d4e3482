"""Processes that are killed, run out of memory, or are interrupted."""

import os
import resource
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

#: Steps in the order they run, none too short to be hit, and whose process is killed: Nipype's,
#: or that of a program.
KILLS = [
    ('conform_t1w', None),
    ('n4_t1w', 'N4BiasFieldCorrection'),
    ('segment', None),
    ('segment', 'segment'),
    ('inpaint', 'inpaint'),
    ('inpaint', None),
    ('registration_wf.register', 'antsRegistration'),
    ('registration_wf.register', None),
    ('warp_atlas', None),
    ('tables', None),
]


#: The same of a patient with FLAIR and mask.
KILLS_WITH_MASK = [('coregistration_wf.register', None)]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """One output and one work folder: each run goes on where the one before was killed."""
    folder = tmp_path_factory.mktemp('killed')
    return {'out': folder / 'out', 'work': folder / 'work'}


@pytest.mark.parametrize(
    ('label', 'step', 'program'),
    [*(('02', *kill) for kill in KILLS), *(('01', *kill) for kill in KILLS_WITH_MASK)],
)
def test_a_process_killed_fails_its_step_alone(start, check_gone, folders, label, step, program):
    run = start(masks=label == '01', labels=[label], **folders)
    run.step(step)
    kill_and_check(run, run.program(program) if program else run.worker(), check_gone)


def kill_and_check(run, victim, check_gone):
    """Kill a process; the run fails, says so, and leaves none behind."""
    (label,) = run.labels
    below = run.below()
    os.kill(victim, signal.SIGKILL)
    said = run.end(1)
    assert f'sub-{label} failed' in said and 'to do: ' in said, said
    assert 'too little memory' in said and 'same command then goes on' in said, said
    check_gone(below)
    assert '1 step failed' in (run.out / f'sub-{label}.html').read_text()


def test_what_others_do_not_wait_for_is_killed(start, check_gone):
    """SyN needs no tissues, and is done when the run ends."""
    run = start()
    run.step('tissues_wf.find')
    kill_and_check(run, run.program('tissues'), check_gone)
    start().end(0)


@pytest.mark.parametrize('label', ['01', '02'])
def test_after_all_kills_the_same_command_finishes(start, folders, label):
    if not (folders['out'] / f'sub-{label}.html').exists():
        pytest.skip('nothing was killed before: pick the kills as well')
    start(masks=label == '01', labels=[label], **folders).end(0)


@pytest.mark.parametrize(
    ('step', 'program', 'library', 'engine'),
    [
        ('inpaint', 'inpaint', 'libtorch_python', 'syn'),
        ('find', 'tissues', 'libtorch_python', 'syn'),
        ('registration_wf.register', 'antsRegistration', '/ants/lib', 'syn'),
        ('registration_wf.register', 'tumorreg_wf.greedy_program', '/picsl_greedy.', 'greedy'),
    ],
)
def test_out_of_memory(start, step, program, library, engine):
    run = start('--registration-engine', engine)
    run.step(step)
    pid = run.program(program, library)
    used = int(Path(f'/proc/{pid}/statm').read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used, used))
    assert 'too little memory' in run.end(1)
    start('--registration-engine', engine).end(0)


def results(work):
    return {path: path.stat().st_mtime_ns for path in work.rglob('result_*.pklz')}


def computed_again(before):
    """Steps whose results were there and were made anew; to store is cheap, and always done."""
    again = [path for path, when in before.items() if path.stat().st_mtime_ns != when]
    return [path for path in again if not path.parent.name.startswith('ds_')]


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_then_the_same_command_finishes(start, check_gone, tmp_path, signum):
    run = start()
    run.step('registration_wf.register')
    run.program('antsRegistration')
    below = run.below()
    os.kill(run.process.pid, signum)
    assert 'interrupted; the same command goes on from here' in run.end(1, seconds=60)
    check_gone(below)
    before = results(tmp_path / 'work')
    assert any(path.parent.name == 'inpaint' for path in before)
    start().end(0)
    assert computed_again(before) == []


@pytest.mark.parametrize('step', ['n4_t1w', 'registration_wf.register', 'label_tissues'])
def test_power_cut_then_the_same_command_finishes(start, check_gone, tmp_path, step):
    run = start()
    run.step(step)
    below = run.below()
    os.killpg(run.process.pid, signal.SIGKILL)
    run.end(-signal.SIGKILL)
    check_gone(below)
    before = results(tmp_path / 'work')
    start().end(0)
    assert before and computed_again(before) == []
