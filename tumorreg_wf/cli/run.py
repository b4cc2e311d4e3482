"""tumorreg: the BIDS-App."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tumorreg_wf import __version__
from tumorreg_wf.bids import Anatomy, check_dataset, find_participants
from tumorreg_wf.cli.console import Console
from tumorreg_wf.cli.failures import Failure, read_crash, tell_failures, write_failure
from tumorreg_wf.cli.group import find_group, run_group
from tumorreg_wf.cli.inputs import find_input
from tumorreg_wf.cli.parser import absolute, get_parser, make_settings
from tumorreg_wf.cli.plugins import (
    DEFAULT_PLUGIN,
    SUBMIT_ONLY,
    configure_nipype,
    plugin_options,
    read_plugin,
    runs_elsewhere,
)
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import describe_error, hold, remove_parts, write_text
from tumorreg_wf.settings import Settings

if TYPE_CHECKING:
    from tumorreg_wf.cli.progress import Progress
    from tumorreg_wf.template import Template

FAILED, WRONG_ARGUMENTS, SUBMITTED = 1, 2, 3

NOT_FINISHED = Failure('not finished. The same command goes on from there.')


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg --help``.

    Returns
    -------
    code : 0 if every subject and every report succeeded, 2 for wrong arguments, 3 if all was
        submitted to a queue that nobody waits for, else 1.
    """
    parser = get_parser()
    opts = parser.parse_args(argv)
    code = WRONG_ARGUMENTS
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
            plugin, plugin_args = DEFAULT_PLUGIN
            if opts.use_plugin is not None:
                plugin, plugin_args = read_plugin(absolute(opts.use_plugin))
                opts.nprocs = min(opts.nprocs, plugin_args.get('n_procs', opts.nprocs))
            device = resolve_device(opts.device, elsewhere=runs_elsewhere(plugin))
            settings = make_settings(opts, device, elsewhere=runs_elsewhere(plugin))
            participants = _check_arguments(settings, opts)
            template = _find_template(settings)
            run = partial(_run_alone, settings, participants, template, opts, plugin, plugin_args)
        code = FAILED
        with stopped_by_sigterm():
            return run()
    except TumorregError as error:
        print(f'tumorreg: error: {error}', file=sys.stderr)
        return code
    except OSError as error:  # a full disk, or one that went away
        print(f'tumorreg: error: {describe_error(error)}.', file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print('tumorreg: interrupted; the same command goes on from here.', file=sys.stderr)
        return FAILED


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, as schedulers and containers send it, do what Ctrl-C does."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    if settings.bids_dir in (settings.work_dir, *settings.work_dir.parents):
        raise TumorregError(
            f'{settings.work_dir}: intermediate results cannot go into the dataset. Give another '
            '--work-dir.'
        )
    participants = find_participants(settings.bids_dir, settings.participants)
    find_weights('brain', settings.brain_weights)
    find_weights('segmentation', settings.segmentation_weights)
    find_weights('inpainting', settings.inpainting_weights)
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


def _find_template(settings: Settings) -> Template:
    """Get the template ready, and check that outputs are wanted in its space or the T1w's."""
    from tumorreg_wf.template import load_template

    template = load_template(
        settings.template, settings.work_dir / 'templates', atlas=settings.atlas
    )
    for space in settings.output_spaces or ():
        if space not in ('T1w', template.name):
            raise TumorregError(
                f'--output-spaces {space}: only T1w and the template ({template.name}) are known.'
            )
    return template


def resolve_device(device: str, *, elsewhere: bool = False) -> str:
    """Turn auto into the device there is; refuse a GPU that torch does not see.

    Steps that run ``elsewhere``, on other machines, find other GPUs there.
    """
    if device == 'cpu':
        return device
    number = int(device.partition(':')[2] or 0)
    if elsewhere and device != 'auto':
        return f'cuda:{number}'
    import torch

    count = torch.cuda.device_count()
    if device == 'auto':
        return 'cuda:0' if count else 'cpu'
    if number >= count:
        raise TumorregError(
            f'--device {device}: {count} GPUs are visible to torch. Use --device cpu, or check '
            'the driver, CUDA_VISIBLE_DEVICES, and --nv or --gpus of the container.'
        )
    return f'cuda:{number}'


def _run_alone(settings: Settings, participants: list[str], *rest) -> int:
    """Run while no other run is at these participants, in neither folder."""
    logs = settings.out_dir / 'logs'
    logs.mkdir(exist_ok=True)
    with hold(logs, participants), hold(settings.work_dir, participants):
        for participant in participants:
            remove_parts(settings.out_dir / f'sub-{participant}')
        return _run(settings, participants, *rest)


def _run(
    settings: Settings,
    participants: list[str],
    template: Template,
    opts: argparse.Namespace,
    plugin: str,
    plugin_args: dict,
) -> int:
    run_uuid = f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}'
    logs = settings.out_dir / 'logs'
    console = Console(logs / f'{run_uuid}.log', opts.verbose)
    console.detail(f'tumorreg {__version__}: {shlex.join(sys.argv)}')
    queued = runs_elsewhere(plugin)
    configure_nipype(
        settings.work_dir,
        verbose=opts.verbose,
        stop_on_first_crash=settings.stop_on_first_crash,
        queued=queued,
    )
    from tumorreg_wf.cli.engines import make_engine
    from tumorreg_wf.cli.progress import Progress
    from tumorreg_wf.reports import write_citation
    from tumorreg_wf.workflows.base import crash_folder, init_tumorreg_wf
    from tumorreg_wf.workflows.outputs import write_dataset_files

    def tell(failures: Mapping[str, Failure]) -> int:
        folders = (settings.out_dir, settings.work_dir)
        tell_failures(failures, participants, folders, console)
        return FAILED if failures else 0

    anatomies, failures = find_input(settings, participants, console)
    write_dataset_files(settings.out_dir, bids_dir=settings.bids_dir, command=' '.join(sys.argv))
    for participant, failure in failures.items():
        write_failure(crash_folder(settings.out_dir, participant, run_uuid), failure.reason)
    methods, own_methods, timings = 'Nothing was processed.', {}, {}
    if anatomies:
        workflow = init_tumorreg_wf(settings, anatomies, template, run_uuid)
        methods, own_methods = workflow.visit_desc(), _describe_each(workflow, anatomies)
    citation = write_citation(settings.out_dir, methods)
    if opts.boilerplate_only:
        console.say(f'Methods: {citation}')
        return tell(failures)

    if anatomies and not opts.reports_only:
        write_text(logs / f'{run_uuid}.json', settings.to_json())
        progress = Progress(console, workflow, anatomies, queued=queued)
        timings = progress.timings
        if plugin in SUBMIT_ONLY:
            workflow.run(plugin=make_engine(plugin, plugin_args))
            console.say(
                f'All steps are submitted; {plugin} does not wait for them. Once the queue is '
                'empty, the same command without --use-plugin checks them, runs what is missing, '
                'and writes the reports.'
            )
            return tell(failures) or SUBMITTED
        if queued:
            for node in workflow._get_all_nodes():  # to copy a file is not worth a job
                node.run_without_submitting = node.name.startswith('ds_')
        try:
            options = plugin_options(settings, plugin, plugin_args)
            engine = make_engine(plugin, {**options, 'status_callback': progress})
            with console.live(progress.status):
                workflow.run(plugin=engine)
        except Exception as error:  # Nipype's, after it has tried all it could
            if progress.finished | progress.failed != {a.subject for a in anatomies}:
                reason = (str(error).strip().splitlines() or [''])[-1]
                console.error([f'{plugin} stopped early: {type(error).__name__}: {reason}'])
                console.detail(traceback.format_exc())
        for anatomy in anatomies:
            if anatomy.subject not in progress.finished:
                failures.setdefault(anatomy.subject, NOT_FINISHED)
            elif lost := progress.find_lost(anatomy.subject):
                failures[anatomy.subject] = Failure(f'{lost[0]}: stored, but gone again.')
        _remove_stale(settings.out_dir, anatomies, progress)
    if opts.reports_only:
        for anatomy in anatomies:
            if not _is_complete(settings.out_dir, anatomy):
                failures.setdefault(anatomy.subject, NOT_FINISHED)
    failures = _write_reports(
        settings,
        participants,
        run_uuid,
        timings,
        own_methods,
        failures,
        console,
        anew=opts.reports_only,
    )
    return tell(failures)


def _describe_each(workflow, anatomies: list[Anatomy]) -> dict[str, str]:
    """Methods in words, by participant: masks and images differ."""
    from tumorreg_wf.workflows.base import workflow_name

    found: dict[str, dict[str, None]] = defaultdict(dict)
    for anatomy in anatomies:
        found[anatomy.subject][workflow.get_node(workflow_name(anatomy)).visit_desc()] = None
    return {subject: ''.join(texts) for subject, texts in found.items()}


def _remove_stale(out_dir: Path, anatomies: list[Anatomy], progress: Progress) -> None:
    """Delete what only an earlier run with other masks wrote: nobody may take it for current."""
    for anatomy in anatomies:
        if anatomy.subject not in progress.finished:
            continue
        folder, stored = out_dir / f'sub-{anatomy.subject}', set(progress.stored[anatomy.subject])
        for path in (
            *folder.glob(f'figures/{anatomy.label}_desc-*'),
            *folder.rglob(f'anat/{anatomy.label}_label-tumor_probseg.*'),
        ):
            if path not in stored:
                path.unlink()


def _is_complete(out_dir: Path, anatomy: Anatomy) -> bool:
    """Whether a T1w has the tables that are written last."""
    return any((out_dir / f'sub-{anatomy.subject}').rglob(f'{anatomy.label}_desc-qc_morph.tsv'))


def _write_reports(
    settings: Settings,
    participants: list[str],
    run_uuid: str,
    timings: Mapping[str, Mapping[str, float]],
    methods: Mapping[str, str],
    known: dict[str, Failure],
    console: Console,
    *,
    anew: bool = False,
) -> dict[str, Failure]:
    """Write a report per participant; give those that failed, with the reason."""
    from tumorreg_wf.reports import generate_report
    from tumorreg_wf.workflows.base import crash_folder

    failures = dict(known)
    for participant in participants:
        folder = crash_folder(settings.out_dir, participant, run_uuid)
        if anew and known.get(participant) is NOT_FINISHED:  # it failed in an earlier run
            folder = max(folder.parent.glob('*'), default=folder)
        crashes = sorted(folder.glob('crash-*'))
        if crashes and known.get(participant) in (None, NOT_FINISHED):
            failures[participant] = read_crash(crashes[0])
        try:
            report = generate_report(
                settings.out_dir,
                participant,
                run_uuid=run_uuid,
                timings=timings.get(participant, {}),
                errors=crashes,
                methods_md=methods.get(participant, 'Nothing was processed.'),
            )
            console.say(f'Report: {report}')
        except Exception as error:  # a report that fails must not hide the other subjects
            failures.setdefault(participant, Failure(f'the report could not be written: {error}'))
        _warn_of_empty_masks(settings.out_dir / f'sub-{participant}', console)
    return failures


def _warn_of_empty_masks(folder: Path, console: Console) -> None:
    for table in sorted(folder.rglob('*_desc-tumor_morph.tsv')):
        names, values = (line.split('\t') for line in table.read_text().splitlines()[:2])
        if dict(zip(names, values, strict=True)).get('volume_mm3') in ('0', '0.0'):
            console.warn(
                f'{table.name.partition("_desc-")[0]}: no tumour was found and nothing replaced. '
                'Look at the report; give a mask with -d if there is one.'
            )


if __name__ == '__main__':
    sys.exit(main())
