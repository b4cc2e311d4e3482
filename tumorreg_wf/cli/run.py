"""tumorreg: the BIDS-App."""

from __future__ import annotations

import argparse
import configparser
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tumorreg_wf.bids import (
    Anatomy,
    check_dataset,
    collect_anatomies,
    find_participants,
    open_layout,
)
from tumorreg_wf.cli.group import find_group, run_group
from tumorreg_wf.cli.parser import absolute, get_parser, make_settings
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.settings import Settings

if TYPE_CHECKING:
    from tumorreg_wf.cli.progress import Progress

WRONG_ARGUMENTS, FAILED = 2, 1


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg --help``.

    Returns
    -------
    code : 0 if every subject and every report succeeded, 2 for wrong arguments, else 1.
    """
    parser = get_parser()
    opts = parser.parse_args(argv)
    try:
        if opts.analysis_level == 'group':
            group = (
                absolute(opts.bids_dir),
                absolute(opts.output_dir),
                [label.removeprefix('sub-') for label in opts.participant_label],
                [label.removeprefix('ses-') for label in opts.session_label],
            )
            run = partial(run_group, *group, find_group(*group))
        else:
            settings = make_settings(opts, resolve_device(opts.device))
            run = partial(_run, settings, _check_arguments(settings, opts), opts)
    except TumorregError as error:
        print(f'tumorreg: error: {error}', file=sys.stderr)
        return WRONG_ARGUMENTS
    try:
        return run()
    except TumorregError as error:
        print(f'tumorreg: error: {error}', file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print('tumorreg: interrupted; the same command goes on from here.', file=sys.stderr)
        return FAILED


def _check_arguments(settings: Settings, opts: argparse.Namespace) -> list[str]:
    """Check what can be checked before anything is written; give the participants."""
    from tumorreg_wf.weights import find_weights

    if opts.skip_bids_validation:
        if not settings.bids_dir.is_dir():
            raise TumorregError(f'{settings.bids_dir}: no such folder.')
    else:
        check_dataset(settings.bids_dir)
    if settings.out_dir == settings.bids_dir:
        raise TumorregError(
            f'{settings.out_dir}: derivatives cannot go into the dataset itself. '
            f'Use for instance {settings.bids_dir / "derivatives" / "tumorreg"}.'
        )
    participants = find_participants(settings.bids_dir, settings.participants)
    find_weights('segmentation', settings.segmentation_weights)
    find_weights('inpainting', settings.inpainting_weights)
    if settings.plugin_file is not None and not settings.plugin_file.is_file():
        raise TumorregError(f'{settings.plugin_file}: no such file.')
    for option, folder in (('output_dir', settings.out_dir), ('--work-dir', settings.work_dir)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise TumorregError(
                f'{folder}: nothing can be written here ({error.strerror}). Give another {option}.'
            ) from None
    return participants


def resolve_device(device: str) -> str:
    """Turn auto into the device there is; refuse a GPU that torch does not see."""
    if device == 'cpu':
        return device
    import torch

    count = torch.cuda.device_count()
    if device == 'auto':
        return 'cuda:0' if count else 'cpu'
    number = int(device.partition(':')[2] or 0)
    if number >= count:
        raise TumorregError(
            f'--device {device}: {count} GPUs are visible to torch. Use --device cpu, or check '
            'the driver, CUDA_VISIBLE_DEVICES, and --nv or --gpus of the container.'
        )
    return f'cuda:{number}'


def _run(settings: Settings, participants: list[str], opts: argparse.Namespace) -> int:
    configure_nipype(
        settings.work_dir, verbose=opts.verbose, stop_on_first_crash=settings.stop_on_first_crash
    )
    from tumorreg_wf.cli.progress import Progress
    from tumorreg_wf.reports import write_citation
    from tumorreg_wf.template import load_template
    from tumorreg_wf.workflows.base import crash_folder, init_tumorreg_wf
    from tumorreg_wf.workflows.outputs import write_dataset_files

    anatomies, failures = _find_input(settings, participants)
    run_uuid = f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}'
    write_dataset_files(settings.out_dir, bids_dir=settings.bids_dir, command=' '.join(sys.argv))
    for participant, message in failures.items():
        _write_failure(crash_folder(settings.out_dir, participant, run_uuid), message)
    methods = 'Nothing was processed.'
    if anatomies:
        template = load_template(settings.template, settings.work_dir / 'templates')
        _check_spaces(settings, template.name)
        workflow = init_tumorreg_wf(settings, anatomies, template, run_uuid)
        methods = workflow.visit_desc()
    write_citation(settings.out_dir, methods)
    if opts.boilerplate_only:
        return _tell(failures)

    progress = Progress(anatomies)
    if anatomies and not opts.reports_only:
        (settings.out_dir / 'logs').mkdir(exist_ok=True)
        (settings.out_dir / 'logs' / f'{run_uuid}.json').write_text(settings.to_json())
        try:
            # workers start from a process that has imported all they need
            multiprocessing.set_forkserver_preload(['tumorreg_wf.workflows.base'])
            workflow.run(**_plugin(settings, progress))
        except RuntimeError as error:  # Nipype's, after it has tried all it could
            progress.say(str(error).splitlines()[0])

    failures = _write_reports(settings, participants, run_uuid, progress, methods, failures)
    for participant in {a.subject for a in anatomies} - progress.finished - set(failures):
        if not opts.reports_only:
            failures[participant] = 'not finished.'
    return _tell(failures)


def _write_reports(
    settings: Settings,
    participants: list[str],
    run_uuid: str,
    progress: Progress,
    methods: str,
    known: dict[str, str],
) -> dict[str, str]:
    """Write a report per participant; give those that failed, with the reason."""
    from tumorreg_wf.reports import generate_report
    from tumorreg_wf.workflows.base import crash_folder

    failures = dict(known)
    for participant in participants:
        crashes = sorted(crash_folder(settings.out_dir, participant, run_uuid).glob('crash-*'))
        for crash in crashes:
            failures.setdefault(participant, f'{_last_line(crash)} (details: {crash})')
        try:
            report = generate_report(
                settings.out_dir,
                participant,
                run_uuid=run_uuid,
                timings=progress.timings[participant],
                errors=crashes,
                methods_md=methods,
            )
            print(f'Report: {report}')
        except Exception as error:  # a report that fails must not hide the other subjects
            failures.setdefault(participant, f'the report could not be written: {error}')
    return failures


def _check_spaces(settings: Settings, template_name: str) -> None:
    for space in settings.output_spaces or ():
        if space not in ('T1w', template_name):
            raise TumorregError(
                f'--output-spaces {space}: only T1w and the template ({template_name}) are known.'
            )


def _tell(failures: dict[str, str]) -> int:
    for participant, message in failures.items():
        print(f'tumorreg: sub-{participant} failed: {message}', file=sys.stderr)
    return FAILED if failures else 0


def _find_input(
    settings: Settings, participants: list[str]
) -> tuple[list[Anatomy], dict[str, str]]:
    """Collect and check the images; participants that cannot be processed, with the reason."""
    layout = open_layout(settings.bids_dir, participants, settings.bids_database_dir)
    derivatives = [open_layout(folder, participants) for folder in settings.derivatives]
    anatomies: list[Anatomy] = []
    failures: dict[str, str] = {}
    for participant in participants:
        try:
            found = collect_anatomies(
                layout,
                participant,
                sessions=settings.sessions,
                filters=settings.bids_filters,
                derivatives=derivatives,
            )
            if not found:
                where = f' of session {", ".join(settings.sessions)}' if settings.sessions else ''
                raise TumorregError(f'no T1w image (without contrast agent){where} was found.')
            for anatomy in found:
                _check_images(anatomy, settings)
            anatomies += found
        except TumorregError as error:
            failures[participant] = str(error)
    return anatomies, failures


def _check_images(anatomy: Anatomy, settings: Settings) -> None:
    """Read every image once: better a message now than a crash in an hour."""
    from tumorreg_wf.images import load_image, voxel_spacing
    from tumorreg_wf.intensity import require_content, require_stripped

    t1w = load_image(anatomy.t1w)
    if anatomy.flair is not None:
        require_content(load_image(anatomy.flair).get_fdata(dtype='float32'), anatomy.flair)
    for path in (anatomy.tumor_mask, anatomy.brain_mask):
        if path is not None:
            load_image(path)
    data = t1w.get_fdata(dtype='float32')
    require_content(data, anatomy.t1w)
    if anatomy.brain_mask is None and settings.skull_strip == 'auto':
        require_stripped(data, voxel_spacing(t1w), anatomy.t1w)


def configure_nipype(
    work_dir: Path, *, verbose: int = 0, stop_on_first_crash: bool = False
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
                'stop_on_first_crash': str(stop_on_first_crash).lower(),
                'poll_sleep_duration': '0.2',
            },
        }
    )
    with (folder / 'nipype.cfg').open('w') as stream:
        parser.write(stream)
    os.environ.update(NIPYPE_CONFIG_DIR=str(folder), NIPYPE_NO_ET='1', NO_ET='1')

    from nipype import config
    from nipype import logging as nipype_logging

    # where a caller has imported Nipype already
    config.update_config({name: dict(parser[name]) for name in parser.sections()})
    for name in ('workflow', 'interface', 'utils'):
        nipype_logging.getLogger(f'nipype.{name}').setLevel(level)


def _plugin(settings: Settings, progress) -> dict:
    """Arguments of Nipype's run: the plugin file's, or MultiProc."""
    plugin = 'MultiProc'
    arguments: dict = {
        'n_procs': settings.nprocs,
        'raise_insufficient': False,
        'mp_context': 'forkserver',
    }
    if settings.mem_gb is not None:
        arguments['memory_gb'] = settings.mem_gb
    if settings.plugin_file is not None:
        import yaml

        loaded = yaml.safe_load(settings.plugin_file.read_text())
        if not isinstance(loaded, dict) or 'plugin' not in loaded:
            raise TumorregError(f'{settings.plugin_file}: the key "plugin" is missing.')
        plugin, arguments = loaded['plugin'], dict(loaded.get('plugin_args') or {})
    return {'plugin': plugin, 'plugin_args': {**arguments, 'status_callback': progress}}


def _write_failure(folder: Path, message: str) -> None:
    """Leave what stopped a participant before any node ran where the report looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'crash-input.txt').write_text(f'Node: input\n\n{message}\n', encoding='utf-8')


def _last_line(crash: Path) -> str:
    lines = [line for line in crash.read_text(errors='replace').splitlines() if line.strip()]
    for line in reversed(lines):
        if 'Error' in line and ': ' in line:
            return line.strip().removeprefix('tumorreg_wf.errors.TumorregError: ')
    return lines[-1].strip() if lines else 'unknown error'


if __name__ == '__main__':
    sys.exit(main())
