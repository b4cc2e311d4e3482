"""tumorreg: the BIDS-App."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tumorreg_wf import __version__
from tumorreg_wf.bids import (
    Anatomy,
    check_dataset,
    check_filters,
    find_participants,
    is_own_output,
)
from tumorreg_wf.cli.console import Console
from tumorreg_wf.cli.failures import tell_failures, write_failure
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
from tumorreg_wf.failures import INPUT, Failure, read_crash
from tumorreg_wf.files import describe_error, hold, remove_parts, write_text
from tumorreg_wf.settings import Settings

if TYPE_CHECKING:
    from tumorreg_wf.cli.progress import Progress
    from tumorreg_wf.reports import Record
    from tumorreg_wf.template import Template
    from tumorreg_wf.weights import Weights

FAILED, WRONG_ARGUMENTS, SUBMITTED = 1, 2, 3

#: Outputs that some settings make and others do not, after the T1w's name.
SOMETIMES = ('label-tumor_probseg.*', 'space-*', 'atlas-*', 'from-*_xfm.*')

NOT_RUN = Failure('not run yet. Leave out --reports-only.')
NOT_FINISHED = Failure('not finished. The same command goes on from there.')


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg --help``.

    Returns
    -------
    code : 0 if every subject and every report succeeded, 2 for wrong arguments, 3 if all was
        submitted to a queue that nobody waits for, else 1.
    """
    os.environ['MPLBACKEND'] = 'Agg'  # that of a notebook may be unknown here
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
            if opts.reports_only:
                start = partial(_write_reports_anew, settings, participants)
            else:
                engine = (plugin, plugin_args)
                start = partial(_run, settings, participants, template, opts, *engine)
            run = partial(_run_alone, settings, participants, opts.verbose, start)
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
    out_dir, bids_dir, work_dir = settings.out_dir, settings.bids_dir, settings.work_dir.resolve()
    if _is_same(out_dir, bids_dir):
        raise TumorregError(
            f'{settings.out_dir}: derivatives cannot go into the dataset itself. '
            f'Use for instance {settings.bids_dir / "derivatives" / "tumorreg"}.'
        )
    if any(
        _is_same(folder.parent, bids_dir) and folder.name.startswith('sub-')
        for folder in (out_dir, *out_dir.parents)
    ):
        raise TumorregError(
            f'{settings.out_dir}: derivatives cannot go into the folder of a participant. '
            f'Use for instance {settings.bids_dir / "derivatives" / "tumorreg"}.'
        )
    if (out_dir / 'dataset_description.json').exists() and not is_own_output(out_dir):
        raise TumorregError(
            f'{settings.out_dir}: its dataset_description.json is not of tumorreg, and files of '
            f'another program may be overwritten here. Use for instance {out_dir / "tumorreg"}.'
        )
    if any(_is_same(out_dir, folder) for folder in settings.derivatives):
        raise TumorregError(
            f'-d {settings.out_dir}: the output folder cannot lend masks, they would be '
            'overwritten. Put corrected masks into a folder of their own.'
        )
    check_filters(settings.bids_filters)
    for whose, folder in (('the dataset', bids_dir), ('the output folder', out_dir)):
        if any(_is_same(parent, folder) for parent in (work_dir, *work_dir.parents)):
            raise TumorregError(
                f'{settings.work_dir}: intermediate results cannot go into {whose}. Give another '
                '--work-dir.'
            )
    if '[' in str(settings.work_dir):  # Nipype looks for its files by patterns
        raise TumorregError(
            f'{settings.work_dir}: no path with "[" will do. Give another --work-dir.'
        )
    participants = find_participants(settings.bids_dir, settings.participants)
    find_weights('brain', settings.brain_weights)
    find_weights('segmentation', settings.segmentation_weights)
    find_weights('inpainting', settings.inpainting_weights)
    find_weights('tissues', settings.tissue_weights)
    folders = [('output_dir', settings.out_dir), ('--work-dir', settings.work_dir)]
    if settings.bids_database_dir is not None:
        folders.append(('--bids-database-dir', settings.bids_database_dir))
    for option, folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise TumorregError(
                f'{folder}: nothing can be written here ({error.strerror}). Give another {option}.'
            ) from None
    return participants


def _is_same(folder: Path, other: Path) -> bool:
    """Whether two names, through links or mounts, stand for one folder; neither need exist."""
    if folder.resolve() == other.resolve():
        return True
    return folder.exists() and other.exists() and folder.samefile(other)


def _find_template(settings: Settings) -> Template:
    """Get the template ready, and check that outputs are wanted in its space or the T1w's."""
    from tumorreg_wf.template import load_template
    from tumorreg_wf.weights import find_weights

    weights = find_weights('tissues', settings.tissue_weights)
    template = load_template(
        settings.template,
        settings.work_dir / 'templates',
        atlas=settings.atlas,
        find_tissues=partial(_find_template_tissues, settings, weights),
        found_by=weights.sha256,
    )
    for space in settings.output_spaces or ():
        if space not in ('T1w', template.name):
            raise TumorregError(
                f'--output-spaces {space}: only T1w and the template ({template.name}) are known. '
                'Another one is chosen with --template.'
            )
    return template


def _find_template_tissues(
    settings: Settings, weights: Weights, t1w: Path, brain_mask: Path, folder: Path
) -> list[Path]:
    """Find the tissues of a template that comes without maps of them."""
    from tumorreg_wf.workflows.tissues import find_tissues

    print(f'{settings.template}: no maps of tissues; they are found now, once.', flush=True)
    try:
        return find_tissues(
            t1w, brain_mask, folder, weights=weights, omp_nthreads=settings.omp_nthreads
        )
    except RuntimeError as error:
        raise TumorregError(
            f'{settings.template}: the tissues of this template could not be found: {error}'
        ) from None


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


def _run_alone(
    settings: Settings, participants: list[str], verbose: int, start: Callable[[Console], int]
) -> int:
    """Start while no other run is at these participants, in neither folder."""
    run_uuid = f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}'
    logs = settings.out_dir / 'logs'
    logs.mkdir(exist_ok=True)
    with hold(logs, participants), hold(settings.work_dir, participants):
        for participant in participants:
            remove_parts(settings.out_dir, participant)
        console = Console(logs / f'{run_uuid}.log', verbose)
        console.detail(f'tumorreg {__version__}: {shlex.join(sys.argv)}')
        with console.noting_errors():
            return start(console)


def _run(
    settings: Settings,
    participants: list[str],
    template: Template,
    opts: argparse.Namespace,
    plugin: str,
    plugin_args: dict,
    console: Console,
) -> int:
    queued = runs_elsewhere(plugin)
    configure_nipype(
        settings.work_dir,
        verbose=opts.verbose,
        stop_on_first_crash=settings.stop_on_first_crash,
        queued=queued,
    )
    from tumorreg_wf.cli.engines import make_engine
    from tumorreg_wf.cli.progress import Progress
    from tumorreg_wf.reports import Record, read_record, write_citation, write_record
    from tumorreg_wf.reports.record import record_file
    from tumorreg_wf.workflows.base import crash_folder, init_tumorreg_wf
    from tumorreg_wf.workflows.outputs import write_dataset_files

    run = console.name
    anatomies, failures = find_input(settings, participants, console)
    for participant, failure in failures.items():
        write_failure(crash_folder(settings.out_dir, participant, run), failure.reason)
    records = {label: Record(run) for label in participants}
    if anatomies:
        workflow = init_tumorreg_wf(settings, anatomies, template, run)
        described = _describe_each(workflow, anatomies)
        for label, methods in described.items():
            commands = dict.fromkeys(methods, shlex.join(sys.argv))
            records[label] = replace(records[label], methods=methods, commands=commands)
        texts = {t1w: text for own in described.values() for t1w, text in own.items()}
        citation = write_citation(settings.out_dir, texts)
        if opts.boilerplate_only:
            console.say(f'Methods: {citation}')
    if opts.boilerplate_only:
        return _tell(failures, settings, participants, console)

    write_dataset_files(settings.out_dir, bids_dir=settings.bids_dir, command=shlex.join(sys.argv))
    others: dict[str, Record] = {}
    for label, record in records.items():  # whoever finishes gets a new one
        earlier = read_record(settings.out_dir, label) or Record(run)
        others[label] = earlier.without(record.methods, settings.out_dir)
        if others[label].files:
            write_record(settings.out_dir, label, others[label])
        else:
            record_file(settings.out_dir, label).unlink(missing_ok=True)
    if anatomies:
        write_text(settings.out_dir / 'logs' / f'{run}.json', settings.to_json())
        progress = Progress(console, workflow, anatomies, queued=queued)
        if plugin in SUBMIT_ONLY:
            workflow.run(plugin=make_engine(plugin, plugin_args))
            console.say(
                f'All steps are submitted; {plugin} does not wait for them. Once the queue is '
                'empty, the same command without --use-plugin checks them, runs what is missing, '
                'and writes the reports.'
            )
            return _tell(failures, settings, participants, console) or SUBMITTED
        if queued:
            for node in workflow._get_all_nodes():  # to copy a file is not worth a job
                node.run_without_submitting |= node.name.startswith('ds_')
        unfinished = NOT_FINISHED
        try:
            options = plugin_options(settings, plugin, plugin_args)
            engine = make_engine(plugin, {**options, 'status_callback': progress})
            with console.live(progress.status):
                workflow.run(plugin=engine)
        except Exception as error:  # Nipype's, after it has tried all it could
            if progress.finished | progress.failed != {a.subject for a in anatomies}:
                reason = (str(error).strip().splitlines() or [''])[-1]
                stopped = f'{plugin} stopped early: {type(error).__name__}: {reason}'
                console.error([stopped])
                console.detail(traceback.format_exc())
                unfinished = Failure(f'not finished, for {stopped.rstrip(".")}.')
        _remove_stale(settings.out_dir, anatomies, progress)
        for label in dict.fromkeys(anatomy.subject for anatomy in anatomies):
            stored = [
                path.relative_to(settings.out_dir).as_posix() for path in progress.stored[label]
            ]
            records[label] = record = replace(
                records[label],
                commands=others[label].commands | records[label].commands,
                methods=others[label].methods | records[label].methods,
                timings=dict(progress.timings[label]),
                files=others[label].files + stored,
            )
            if label not in progress.finished:
                failures.setdefault(label, unfinished)
            elif lost := record.find_lost(settings.out_dir):
                failures[label] = Failure(f'{lost[0]}: stored, but gone again.')
            elif label not in failures:
                write_record(settings.out_dir, label, record)
    crashes = {
        label: sorted(crash_folder(settings.out_dir, label, run).glob('crash-*'))
        for label in participants
    }
    failures = _write_reports(settings.out_dir, records, crashes, failures, console)
    return _tell(failures, settings, participants, console)


def _tell(
    failures: Mapping[str, Failure], settings: Settings, participants: list[str], console: Console
) -> int:
    """Say what failed; the exit code."""
    tell_failures(failures, participants, (settings.out_dir, settings.work_dir), console)
    return FAILED if failures else 0


def _describe_each(workflow, anatomies: list[Anatomy]) -> dict[str, dict[str, str]]:
    """Methods in words, by participant and T1w: masks and images differ."""
    from tumorreg_wf.workflows.base import workflow_name

    found: dict[str, dict[str, str]] = defaultdict(dict)
    for anatomy in anatomies:
        text = workflow.get_node(workflow_name(anatomy)).visit_desc()
        found[anatomy.subject][anatomy.label] = text
    return found


def _remove_stale(out_dir: Path, anatomies: list[Anatomy], progress: Progress) -> None:
    """Delete what only an earlier run wrote, with other masks or another template.

    Nobody may take it for current.
    """
    for anatomy in anatomies:
        if anatomy.subject not in progress.finished:
            continue
        folder, stored = out_dir / f'sub-{anatomy.subject}', set(progress.stored[anatomy.subject])
        for path in (
            *folder.glob(f'figures/{anatomy.label}_desc-*'),
            *(path for kind in SOMETIMES for path in folder.rglob(f'anat/{anatomy.label}_{kind}')),
        ):
            if path not in stored:
                path.unlink()


def _write_reports_anew(settings: Settings, participants: list[str], console: Console) -> int:
    """Write the reports of the participants' last runs; it fails if one did not finish."""
    from tumorreg_wf.reports import Record, read_record
    from tumorreg_wf.workflows.base import crash_folder

    records: dict[str, Record] = {}
    crashes: dict[str, list[Path]] = {}
    failures: dict[str, Failure] = {}
    for label in participants:
        if not (settings.out_dir / f'sub-{label}').exists():
            failures[label] = NOT_RUN
            continue
        record = read_record(settings.out_dir, label)
        if record is None or not record.finished:
            record = record or Record(console.name)
            failures[label] = NOT_FINISHED
            runs = crash_folder(settings.out_dir, label, console.name).parent.glob('*')
            last = max(runs, default=None)
            crashes[label] = [] if last is None else sorted(last.glob('crash-*'))
        elif lost := record.find_lost(settings.out_dir):
            failures[label] = Failure(f'{lost[0]}: gone. Run the participant again.')
        records[label] = record
    failures = _write_reports(settings.out_dir, records, crashes, failures, console)
    return _tell(failures, settings, participants, console)


def _write_reports(
    out_dir: Path,
    records: Mapping[str, Record],
    crashes: Mapping[str, list[Path]],
    known: Mapping[str, Failure],
    console: Console,
) -> dict[str, Failure]:
    """Write a report per participant; give those that failed, with the reason."""
    from tumorreg_wf.reports import generate_report

    failures = dict(known)
    for label, record in records.items():
        errors = crashes.get(label, [])
        # what a step said explains most; what was said of the input may be known already
        if errors and (errors[0].name != INPUT or known.get(label) in (None, NOT_FINISHED)):
            failures[label] = read_crash(errors[0])
        try:
            report = generate_report(
                out_dir, label, record, failure=failures.get(label), errors=errors
            )
            console.say(f'Report: {report}')
            _warn_of_empty_masks(out_dir / f'sub-{label}', console)
        except Exception as error:  # a report that fails must not hide the other subjects
            failures.setdefault(label, Failure(f'the report could not be written: {error}'))
    return failures


def _warn_of_empty_masks(folder: Path, console: Console) -> None:
    for table in sorted(folder.rglob('sub-*_desc-tumor_morph.tsv')):
        if '_atlas-' in table.name:
            continue  # regions without tumour are none of concern
        names, values = (line.split('\t') for line in table.read_text().splitlines()[:2])
        if dict(zip(names, values, strict=True)).get('volume_mm3') in ('0', '0.0'):
            console.warn(
                f'{table.name.partition("_desc-")[0]}: no tumour was found, or the mask given has '
                'none in the brain; nothing was replaced. Look at the report.'
            )


if __name__ == '__main__':
    sys.exit(main())
