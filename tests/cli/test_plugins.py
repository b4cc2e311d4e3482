from pathlib import Path

import pytest

from tumorreg_wf.cli.plugins import PLUGINS, plugin_options, read_plugin, runs_elsewhere
from tumorreg_wf.cli.run import main
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.failures import read_crash
from tumorreg_wf.settings import Settings


@pytest.fixture
def plugin_file(tmp_path):
    def write(text):
        path = tmp_path / 'plugin.yml'
        path.write_text(text)
        return path

    return write


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with all that submits jobs."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in filter(None, PLUGINS.values()):
        (folder / name).write_text('#!/bin/sh\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(folder))
    monkeypatch.setattr('tumorreg_wf.cli.plugins.find_spec', lambda name: name)


@pytest.mark.parametrize('name', PLUGINS)
def test_every_plugin_is_taken_by_name(plugin_file, programs, name):
    from nipype.pipeline import plugins

    path = plugin_file(f'plugin: {name}\nplugin_args: {{n_procs: 2}}\n')
    assert read_plugin(path) == (name, {'n_procs': 2})
    assert name == 'Dask' or hasattr(plugins, f'{name}Plugin')
    assert runs_elsewhere(name) == (name not in ('MultiProc', 'LegacyMultiProc', 'Linear'))


def test_arguments_may_be_left_out(plugin_file):
    assert read_plugin(plugin_file('plugin: Linear')) == ('Linear', {})


@pytest.mark.parametrize('plugin', ['MultiProc', 'LegacyMultiProc'])
def test_a_step_that_asks_for_more_than_there_is_runs_alone(plugin):
    """Nipype would stop the whole run before it begins."""
    settings = Settings(Path('in'), Path('out'), Path('work'), mem_gb=2)
    options = plugin_options(settings, plugin, {})
    assert options['raise_insufficient'] is False and options['memory_gb'] == 2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('plugin: [SLURM', 'no YAML .*line 1'),
        ('SLURM', 'the key "plugin" is missing. For instance: {plugin: SLURM'),
        ('plugin_args: {}', 'the key "plugin" is missing'),
        ('plugin: slurm', 'unknown plugin "slurm". Did you mean SLURM.* There are: MultiProc'),
        ('plugin: [SLURM]', 'unknown plugin'),
        ('plugin: Linear\nplugin_args: {n_procs: "4"}', "n_procs is '4'; it must be a whole"),
        ('plugin: Linear\nplugin_args: {n_procs: }', 'n_procs is None; it must be a whole'),
        (
            'plugin: Linear\nplugin_args: {memory_gb: lots}',
            "memory_gb is 'lots'; it must be a num",
        ),
        ('plugin: Linear\nplugin_args: {memory_gb: 0}', 'memory_gb is 0; it must be a number'),
        ('plugin: 3', 'unknown plugin "3". There are'),
        ('plugin: Linear\nplugin_arg: {}', 'unknown key plugin_arg'),
        ('plugin: Linear\nplugin_args: [1]', '"plugin_args" must hold names and values'),
    ],
)
def test_what_is_wrong_with_a_file_is_said(plugin_file, text, message):
    path = plugin_file(text)
    with pytest.raises(TumorregError, match=f'{path}: {message}'):
        read_plugin(path)


def test_what_a_plugin_needs_is_looked_for(plugin_file, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(TumorregError, match='needs the program sbatch, which is not on PATH'):
        read_plugin(plugin_file('plugin: SLURM'))
    monkeypatch.setattr('tumorreg_wf.cli.plugins.find_spec', lambda name: None)
    with pytest.raises(TumorregError, match='pip install "tumorreg\\[dask\\]"'):
        read_plugin(plugin_file('plugin: Dask'))


def test_the_command_refuses_a_bad_file(plugin_file, bids_phantom, tmp_path, capsys):
    arguments = [bids_phantom, tmp_path / 'out', 'participant', '--use-plugin']
    assert main([*map(str, arguments), str(plugin_file('plugin: Slum'))]) == 2
    error = capsys.readouterr().err
    assert error.startswith('tumorreg: error: ') and 'Did you mean SLURM' in error
    assert main([*map(str, arguments), str(tmp_path / 'nowhere.yml')]) == 2
    assert 'nowhere.yml: cannot be read' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_dask_runs_nodes_and_tells_of_failures(tmp_path):
    pytest.importorskip('distributed')
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine as pe

    from tumorreg_wf.cli.engines import make_engine

    def half(x):
        return 1 / x

    def build(x):
        workflow = pe.Workflow(name='halves', base_dir=str(tmp_path))
        first = pe.Node(Function(['x'], ['y'], function=half), name='first')
        second = pe.Node(Function(['x'], ['y'], function=half), name='second')
        first.inputs.x = x
        workflow.connect(first, 'y', second, 'x')
        workflow.config['execution'] = {'crashdump_dir': str(tmp_path), 'crashfile_format': 'txt'}
        return workflow

    told = []

    def callback(node, status):
        told.append((node.name, status))

    build(4).run(plugin=make_engine('Dask', {'status_callback': callback}))
    assert told == [('first', 'start'), ('first', 'end'), ('second', 'start'), ('second', 'end')]
    with pytest.raises(RuntimeError, match='ZeroDivisionError'):
        build(0).run(plugin=make_engine('Dask', {'status_callback': callback}))
    assert told[-1] == ('first', 'exception')
    assert list(tmp_path.glob('crash-*first*.txt'))


def test_a_job_that_leaves_no_result_stops_its_participant_alone(tmp_path):
    """As one that SLURM killed: here by a plugin whose jobs for one node are lost."""
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine as pe
    from nipype.pipeline import plugins

    from tumorreg_wf.cli.engines import make_engine

    def same(x):
        return x

    class LosingPlugin(plugins.base.SGELikeBatchManagerBase):
        def __init__(self, plugin_args):
            super().__init__('', plugin_args=plugin_args)

        def _submit_batchtask(self, scriptfile, node):
            if node.name != 'lost':
                node.run()
            self._pending[len(self._pending)] = node.output_dir()
            return len(self._pending) - 1

        def _is_pending(self, taskid):
            return False

        def _clear_task(self, taskid):
            pass

    told = []
    workflow = pe.Workflow(name='two', base_dir=str(tmp_path))
    for name in ('lost', 'kept'):
        node = pe.Node(Function(['x'], ['y'], function=same), name=name)
        node.inputs.x = 1
        workflow.add_nodes([node])
    workflow.config['execution'] = {
        'crashdump_dir': str(tmp_path), 'crashfile_format': 'txt', 'job_finished_timeout': '0.1',
        'poll_sleep_duration': '0.01',
    }  # fmt: skip
    plugins.LosingPlugin = LosingPlugin
    try:
        engine = make_engine('Losing', {'status_callback': lambda *what: told.append(what[1])})
        with pytest.raises(RuntimeError, match='finished or terminated'):
            workflow.run(plugin=engine)
    finally:
        del plugins.LosingPlugin
    assert sorted(told) == ['end', 'exception', 'start', 'start']
    (crash,) = tmp_path.glob('crash-*lost*.txt')
    assert 'The cluster ended the job' in read_crash(crash).advice
