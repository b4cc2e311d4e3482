"""A process that is killed takes its own step along, no other, and not the run."""

import os
import time

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe

from tumorreg_wf.cli.engines import make_engine
from tumorreg_wf.failures import read_crash


def die(x):
    """End as the kernel ends a process when memory is short, a program of its own left behind."""
    import os
    import signal
    import subprocess

    process = subprocess.Popen(['sleep', '300'])
    with open('program', 'w') as stream:
        stream.write(str(process.pid))
    os.kill(os.getpid(), signal.SIGKILL)


def live(x):
    import time

    time.sleep(0.5)
    return x


@pytest.fixture
def build(tmp_path):
    def make(**functions):
        workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
        for name, function in functions.items():
            node = pe.Node(Function(['x'], ['y'], function=function), name=name)
            node.inputs.x = 1
            workflow.add_nodes([node])
        workflow.config['execution'] = {
            'crashdump_dir': str(tmp_path), 'crashfile_format': 'txt',
            'poll_sleep_duration': '0.01',
        }  # fmt: skip
        return workflow

    return make


def options(told):
    return {
        'n_procs': 2, 'mp_context': 'forkserver', 'raise_insufficient': False,
        'status_callback': lambda node, what: told.append((node.name, what)),
    }  # fmt: skip


def test_a_killed_process_fails_its_step_alone(build, tmp_path):
    """With Nipype's own plugin this test never ends."""
    told = []
    workflow = build(lives=live, dies=die, later=live)
    with pytest.raises(RuntimeError, match='killed from outside'):
        workflow.run(plugin=make_engine('MultiProc', options(told)))
    assert ('dies', 'exception') in told
    assert {name for name, what in told if what == 'end'} == {'lives', 'later'}
    (crash,) = tmp_path.glob('crash-*dies*.txt')
    failure = read_crash(crash)
    assert failure.reason == 'the process of this step was killed from outside'
    assert 'too little memory' in failure.advice
    program = int((tmp_path / 'wf' / 'dies' / 'program').read_text())
    until = time.monotonic() + 10
    while os.path.exists(f'/proc/{program}/exe'):
        assert time.monotonic() < until, 'the program of a killed process runs on'
        time.sleep(0.05)


def test_an_interrupted_run_leaves_no_process(build):
    def interrupt(node, what):
        if node.name == 'second' and what == 'start':
            raise KeyboardInterrupt

    workflow = build(first=live, second=live)
    engine = make_engine('MultiProc', options([]) | {'status_callback': interrupt})
    with pytest.raises(KeyboardInterrupt):
        workflow.run(plugin=engine)
    pids = [future.result(20) for future in engine.pool._pids if not future.exception(20)]
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(pid, 0)
                time.sleep(0.05)
