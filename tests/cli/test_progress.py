"""Progress of workflows of small nodes, run by Nipype itself."""

import io
import time
from pathlib import Path

import pytest
from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline import engine as pe

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.cli import progress as module
from tumorreg_wf.cli.console import Console
from tumorreg_wf.cli.progress import Progress, stage_of
from tumorreg_wf.failures import read_crash
from tumorreg_wf.reports import Record


def work(x, broken):
    if broken:
        raise ValueError('the T1w is upside down')
    return x


def subject_wf(name, broken=False):
    """inputnode -> conform_wf.read -> registration_wf.register -> quality"""

    def node(name, **inputs):
        function = Function(['x', 'broken'], ['x'], function=work)
        made = pe.Node(function, name=name)
        made.inputs.broken = inputs.pop('broken', False)
        return made

    stages = []
    for stage, step in (('conform_wf', 'read'), ('registration_wf', 'register')):
        workflow = pe.Workflow(name=stage)
        inputnode = pe.Node(IdentityInterface(['x']), name='inputnode')
        workflow.connect(inputnode, 'x', node(step, broken=broken and step == 'register'), 'x')
        stages.append(workflow)
    conform, register = stages
    conform.inputs.inputnode.x = 1
    whole = pe.Workflow(name=name)
    whole.connect(conform, 'read.x', register, 'inputnode.x')
    whole.connect(register, 'register.x', node('quality'), 'x')
    return whole


@pytest.fixture
def run(tmp_path):
    """A function that runs a workflow per participant and gives progress and what was said."""

    def go(labels, broken=(), plugin='Linear', verbose=0):
        anatomies = [Anatomy(label, None, Path(f'sub-{label}_T1w.nii.gz')) for label in labels]
        workflow = pe.Workflow(name='tumorreg_wf', base_dir=str(tmp_path / 'work'))
        workflow.add_nodes([subject_wf(f'sub_{label}_wf', label in broken) for label in labels])
        workflow.config['execution'] = {
            'crashdump_dir': str(tmp_path / 'crash'), 'crashfile_format': 'txt',
            'poll_sleep_duration': '0.01',
        }  # fmt: skip
        stream = io.StringIO()
        console = Console(verbose=verbose, stream=stream)
        progress = Progress(console, workflow, anatomies)
        arguments = {'status_callback': progress, 'n_procs': 1}
        try:
            workflow.run(plugin=plugin, plugin_args=arguments)
        except Exception:
            assert broken
        return progress, stream.getvalue()

    return go


def test_stages_in_plain_words_with_what_is_done(run):
    progress, said = run(['01', '02'])
    assert progress.finished == {'01', '02'} and not progress.failed
    assert 'sub-01: reading the images; 0 of 2 participants, 0 of 6 steps done' in said
    assert 'sub-01: registering the template; 0 of 2' in said
    assert 'sub-02: all steps done; 2 of 2 participants, 6 of 6 steps done' in said
    assert set(progress.timings['01']) == {
        'reading the images', 'registering the template', 'measuring the quality',
    }  # fmt: skip
    assert 'done (' not in said


def test_verbose_tells_each_step(run):
    _, said = run(['01'], verbose=1)
    assert 'sub-01: registration_wf.register running' in said
    assert 'sub-01: registration_wf.register done (0 s)' in said


@pytest.mark.parametrize('plugin', ['Linear', 'MultiProc'])
def test_what_was_done_before_is_no_progress_of_this_run(run, plugin):
    run(['01'])
    progress, said = run(['01'], plugin=plugin, verbose=1)
    assert 'registering the template' not in said
    assert 'registration_wf.register was done before' in said
    assert progress.finished == {'01'} and progress.seconds_left() is None


@pytest.mark.parametrize('plugin', ['Linear', 'MultiProc'])
def test_a_failure_is_told_and_counts_no_more(run, tmp_path, plugin):
    progress, said = run(['01', '02'], broken=['01'], plugin=plugin)
    assert 'sub-01: registering the template FAILED (registration_wf.register)' in said
    assert progress.failed == {'01'} and progress.finished == {'02'}
    assert '1 of 2 participants, 4 of 4 steps done' in said
    (crash,) = (tmp_path / 'crash').iterdir()
    failure = read_crash(crash)
    assert failure.reason == 'ValueError: the T1w is upside down'
    assert stage_of(failure.node) == 'registering the template'
    assert failure.crash_file == crash and 'same command' in failure.advice


class FakeNode:
    """A node that has taken some seconds."""

    def __init__(self, name, seconds):
        self.fullname = f'tumorreg_wf.{name}'
        runtime = type('Runtime', (), {'duration': seconds})
        self.result = type('Result', (), {'runtime': runtime})

    def is_cached(self):
        return False, False


def test_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(module, 'TYPICAL', {'conform_wf.read': 10, 'registration_wf.register': 40})
    workflow = pe.Workflow(name='tumorreg_wf')
    workflow.add_nodes([subject_wf('sub_01_wf'), subject_wf('sub_02_wf')])
    anatomies = [Anatomy(label, None, Path(f'sub-{label}_T1w.nii.gz')) for label in ('01', '02')]
    progress = Progress(Console(stream=io.StringIO()), workflow, anatomies)
    assert progress.seconds_left() is None

    def step(name, seconds):
        node = FakeNode(name, seconds)
        progress(node, 'start')
        now[0] += seconds
        progress(node, 'end')

    # half as fast as is typical, one step at a time
    step('sub_01_wf.conform_wf.read', 20)
    assert progress.seconds_left() == pytest.approx(80 + 2 + 20 + 80 + 2)
    step('sub_01_wf.registration_wf.register', 100)
    # what it took the first is expected of the second
    pace = 120 / 50
    assert progress.seconds_left() == pytest.approx(pace + 20 + 100 + pace)
    progress(FakeNode('sub_02_wf.conform_wf.read', 0), 'start')
    now[0] += 15
    assert progress.seconds_left() == pytest.approx(pace + 5 + 100 + pace)
    assert progress.status() == (
        'sub-02: reading the images; 0 of 2 participants, 2 of 6 steps done, about 2 min left'
    )


def test_in_a_queue_nothing_is_said_to_run():
    workflow = pe.Workflow(name='tumorreg_wf')
    workflow.add_nodes([subject_wf('sub_01_wf')])
    stream = io.StringIO()
    anatomy = Anatomy('01', None, Path('sub-01_T1w.nii.gz'))
    progress = Progress(Console(stream=stream), workflow, [anatomy], queued=True)
    progress(FakeNode('sub_01_wf.conform_wf.read', 0), 'start')
    assert 'sub-01: reading the images (submitted); 0 of 3 steps done' in stream.getvalue()
    assert progress.status().endswith('1 steps queued or running, 0 of 3 steps done')


def test_files_that_were_stored_and_are_gone(tmp_path):
    def store(folder):
        import os

        names = [os.path.join(folder, name) for name in ('kept', 'deleted', 'emptied')]
        for name in names:
            with open(name, 'w') as stream:
                stream.write('x')
        return names, os.path.join(folder, 'deleted.json')

    node = pe.Node(Function(['folder'], ['out_file', 'out_meta'], function=store), name='ds_x')
    node.inputs.folder = str(tmp_path)
    workflow = pe.Workflow(name='tumorreg_wf', base_dir=str(tmp_path / 'work'))
    anatomy_wf, stage = pe.Workflow(name='sub_01_wf'), pe.Workflow(name='derivatives_wf')
    stage.add_nodes([node])
    anatomy_wf.add_nodes([stage])
    workflow.add_nodes([anatomy_wf])
    anatomy = Anatomy('01', None, Path('sub-01_T1w.nii.gz'))
    progress = Progress(Console(stream=io.StringIO()), workflow, [anatomy])
    workflow.run(plugin='Linear', plugin_args={'status_callback': progress})
    (tmp_path / 'deleted').unlink()
    (tmp_path / 'emptied').write_text('')
    record = Record('run', files=[path.name for path in progress.stored['01']])
    assert [path.name for path in record.find_lost(tmp_path)] == [
        'deleted', 'emptied', 'deleted.json'
    ]  # fmt: skip
