"""Nipype: its settings, and the plugin that starts the steps of a run."""

from __future__ import annotations

import configparser
import multiprocessing
import os
import shutil
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import write_aside
from tumorreg_wf.settings import Settings

#: Nipype's plugins by name, and Dask; with each the program it submits steps with.
PLUGINS = {
    'MultiProc': None,
    'LegacyMultiProc': None,
    'Linear': None,
    'Dask': None,
    'SLURM': 'sbatch',
    'SLURMGraph': 'sbatch',
    'SGE': 'qsub',
    'SGEGraph': 'qsub',
    'PBS': 'qsub',
    'PBSGraph': 'qsub',
    'LSF': 'bsub',
    'OAR': 'oarsub',
    'Condor': 'condor_qsub',
    'CondorDAGMan': 'condor_submit_dag',
}

#: Without --use-plugin.
DEFAULT_PLUGIN: tuple[str, dict] = ('MultiProc', {})

#: These submit all steps at once and look at none again.
SUBMIT_ONLY = ('SLURMGraph', 'SGEGraph', 'PBSGraph', 'CondorDAGMan')


def read_plugin(path: Path) -> tuple[str, dict]:
    """Read a plugin file: YAML with ``plugin``, a name, and ``plugin_args``, as fMRIPrep's.

    Returns
    -------
    plugin, arguments : a key of :data:`PLUGINS`, and what its constructor takes.

    Raises
    ------
    TumorregError
        If the file cannot be understood, or what the plugin needs is not here.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise TumorregError(f'{path}: cannot be read ({error.strerror}).') from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise TumorregError(f'{path}: no YAML ({" ".join(str(error).split())}).') from None
    if not isinstance(loaded, dict) or 'plugin' not in loaded:
        raise TumorregError(f'{path}: the key "plugin" is missing. {_example()}')
    if unknown := set(map(str, loaded)) - {'plugin', 'plugin_args'}:
        raise TumorregError(
            f'{path}: unknown key {", ".join(sorted(unknown))}; "plugin" and "plugin_args" are '
            f'known. {_example()}'
        )
    plugin, arguments = loaded['plugin'], loaded.get('plugin_args') or {}
    if not isinstance(plugin, str) or plugin not in PLUGINS:
        by_case = {name.lower(): name for name in PLUGINS}
        close = get_close_matches(str(plugin).lower(), by_case, n=1)
        hint = f'Did you mean {by_case[close[0]]}? ' if close else ''
        raise TumorregError(
            f'{path}: unknown plugin "{plugin}". {hint}There are: {", ".join(PLUGINS)}.'
        )
    if not isinstance(arguments, dict):
        raise TumorregError(f'{path}: "plugin_args" must hold names and values. {_example()}')
    count = arguments.get('n_procs', 1)
    if not isinstance(count, int) or count < 1:
        raise TumorregError(f'{path}: n_procs is {count!r}; it must be a whole number from 1 on.')
    memory = arguments.get('memory_gb', 1)
    if not isinstance(memory, int | float) or not memory > 0:
        raise TumorregError(f'{path}: memory_gb is {memory!r}; it must be a number above 0.')
    program = PLUGINS[plugin]
    if program is not None and shutil.which(program) is None:
        raise TumorregError(
            f'{path}: plugin {plugin} needs the program {program}, which is not on PATH. Start '
            'tumorreg where jobs are submitted, outside of a container; or give each '
            'participant a job of its own (docs/hpc.md).'
        )
    if plugin == 'Dask' and find_spec('distributed') is None:
        raise TumorregError(
            f'{path}: plugin Dask needs the package distributed: pip install "tumorreg[dask]".'
        )
    return plugin, arguments


def _example() -> str:
    return (
        'For instance: {plugin: SLURM, plugin_args: {sbatch_args: "--cpus-per-task=2 --mem=4G"}}'
    )


def runs_elsewhere(plugin: str) -> bool:
    """Tell whether the steps may run on other machines than this one."""
    return plugin == 'Dask' or PLUGINS[plugin] is not None


def configure_nipype(
    work_dir: Path,
    *,
    verbose: int = 0,
    stop_on_first_crash: bool = False,
    queued: bool = False,
) -> None:
    """Set up Nipype, for this process and those it starts, before it is imported.

    No telemetry, crash files as text, and no files of its own in HOME.
    """
    level = {0: 'CRITICAL', 1: 'ERROR'}.get(verbose, 'INFO')
    folder = work_dir / 'nipype'
    folder.mkdir(parents=True, exist_ok=True)
    parser = configparser.ConfigParser()
    parser.read_dict(
        {
            'logging': dict.fromkeys(('workflow_level', 'interface_level', 'utils_level'), level),
            'execution': {
                'crashfile_format': 'txt',
                'check_version': 'false',
                'create_report': 'false',
                'stop_on_first_crash': str(stop_on_first_crash).lower(),
                # each look at a queue is a call of squeue per step; and shared disks lag
                'poll_sleep_duration': '5' if queued else '0.2',
                'job_finished_timeout': '30',
            },
        }
    )
    # runs may share the folder
    with write_aside(folder / 'nipype.cfg') as part, part.open('w') as stream:
        parser.write(stream)
    os.environ.update(NIPYPE_CONFIG_DIR=str(folder), NIPYPE_NO_ET='1', NO_ET='1')
    # names jobs; not set in containers, where the user may have no name at all
    os.environ.setdefault('LOGNAME', os.environ.get('USER', 'tumorreg'))

    from nipype import config
    from nipype import logging as nipype_logging

    # where a caller has imported Nipype already
    config.update_config({name: dict(parser[name]) for name in parser.sections()})
    for name in ('workflow', 'interface', 'utils'):
        nipype_logging.getLogger(f'nipype.{name}').setLevel(level)


def plugin_options(settings: Settings, plugin: str, plugin_args: dict) -> dict:
    """Arguments of a plugin; those of the plugin file come before ours."""
    ours: dict = {}
    if plugin == 'MultiProc':
        # workers start from a process that has imported all they need
        multiprocessing.set_forkserver_preload(['tumorreg_wf.workflows.base'])
        ours = {'mp_context': 'forkserver'}
    if plugin in ('MultiProc', 'LegacyMultiProc'):
        ours['raise_insufficient'] = False
        if settings.mem_gb is not None:
            ours['memory_gb'] = settings.mem_gb
    if plugin in ('MultiProc', 'LegacyMultiProc', 'Dask'):
        ours['n_procs'] = settings.nprocs
    return {**ours, **plugin_args}
