"""The command line of ``tumorreg``; options are fMRIPrep's wherever it has one."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

from tumorreg_wf import __version__
from tumorreg_wf.defaults import DEFAULT_TARGETS, DILATION
from tumorreg_wf.settings import Settings

#: What the largest step takes, GB; see docs/hpc.md.
LEAST_MEMORY = 2

REGISTRATION_ENGINES = tuple(DEFAULT_TARGETS)
REGISTRATION_TARGETS = ('recovered-masked', 'recovered', 'original', 'masked')


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; bad values end in ``parser.error``, exit code 2."""
    parser = argparse.ArgumentParser(
        prog='tumorreg',
        description='Find the tumour in T1w (and FLAIR) images of a BIDS dataset, replace it by '
        'plausible normal tissue, register an atlas to the brain, and write tissues, '
        'labels, transforms, tables and a report as BIDS derivatives. Not a medical device.',
    )
    parser.add_argument('bids_dir', type=Path, help='root of the BIDS dataset')
    parser.add_argument('output_dir', type=Path, help='folder for the derivatives')
    parser.add_argument(
        'analysis_level', choices=['participant', 'group'],
        help='participant: process images; group: put finished participants together in one '
        'table, a map of the tumours and a report',
    )  # fmt: skip
    parser.add_argument('--version', action='version', version=f'tumorreg {__version__}')
    parser.add_argument(
        '-v',
        '--verbose',
        action='count',
        default=0,
        help='say each step; -vv shows all that Nipype says',
    )

    bids = parser.add_argument_group('what to process')
    bids.add_argument(
        '--participant-label', '--participant_label', nargs='+', default=[], metavar='LABEL',
        help='participants, with or without sub-; default: all',
    )  # fmt: skip
    bids.add_argument(
        '--session-label', nargs='+', default=[], metavar='LABEL',
        help='sessions, with or without ses-; default: all',
    )  # fmt: skip
    bids.add_argument(
        '--bids-filter-file', type=_filters, default={}, metavar='FILE',
        help='JSON file with pybids queries for t1w, flair, tumor (mask) and brain (mask)',
    )  # fmt: skip
    bids.add_argument(
        '-d', '--derivatives', nargs='+', type=_derivatives, default=[], metavar='[NAME=]PATH',
        help='derivatives with masks to use: label-{tumor,lesion}_{mask,roi} takes the place of '
        'the U-Net, desc-brain_mask that of brain extraction',
    )  # fmt: skip
    bids.add_argument(
        '--bids-database-dir', type=Path, metavar='PATH',
        help='folder of a pybids database of tumorreg, made there if it does not exist',
    )  # fmt: skip
    bids.add_argument(
        '--skip-bids-validation', '--skip_bids_validation', action='store_true',
        help='do not check dataset_description.json',
    )  # fmt: skip

    how = parser.add_argument_group('how to process')
    how.add_argument(
        '--template', metavar='PATH_OR_NAME',
        help='folder in the layout of TemplateFlow, or one of its names (needs a network); '
        'default: the MNI152NLin2009aSym inside nilearn',
    )  # fmt: skip
    how.add_argument(
        '--atlas', type=Path, metavar='FILE',
        help='label image in the space of the template, its look-up table (.tsv) beside it; '
        'default: the first of the template, or territories of Dosenbach 2010 in MNI space',
    )  # fmt: skip
    how.add_argument(
        '--output-spaces', nargs='+', metavar='SPACE',
        help='where to write T1w, brain and tumour mask besides the T1w itself: T1w (nothing '
        'more) or the name of the template (default); anat is T1w',
    )  # fmt: skip
    how.add_argument(
        '--skull-strip-t1w', choices=['auto', 'skip', 'force'], default='auto',
        help='auto: find the brain in a T1w that shows a whole head (default); skip: take every '
        'T1w as stripped; force: find the brain in every T1w. A brain mask that is given counts '
        'in any case',
    )  # fmt: skip
    how.add_argument(
        '--tumor-dilation', type=_not_negative, default=DILATION, metavar='MM',
        help='distance to grow the tumour mask before it is filled (default: %(default)g)',
    )  # fmt: skip
    how.add_argument(
        '--brain-weights', type=Path, metavar='PATH',
        help='weights of the brain extraction network: a file or folder written by '
        'tumorreg-train (default: the packaged ones)',
    )  # fmt: skip
    how.add_argument(
        '--segmentation-weights', type=Path, metavar='PATH',
        help="weights of the U-Net: 'paper' for a network as in the original method, or a file or "
        'folder written by tumorreg-train (default: the packaged ones)',
    )  # fmt: skip
    how.add_argument(
        '--inpainting-weights', type=Path, metavar='PATH',
        help="weights of the inpainting network: 'paper' for a network as in the original method, "
        'or a file or folder written by tumorreg-train (default: the packaged ones)',
    )  # fmt: skip
    how.add_argument(
        '--tissue-weights', type=Path, metavar='PATH',
        help='weights of the network that finds tissues: a file or folder written by '
        'tumorreg-train (default: the packaged ones)',
    )  # fmt: skip
    how.add_argument(
        '--registration-target', choices=REGISTRATION_TARGETS,
        help='what the template is registered to: original, the T1w as it is, or its tissues as '
        'they show through the tumour (default with greedy); masked, the same with the dilated '
        'tumour left out of the metric; recovered, the T1w with the tumour replaced; '
        'recovered-masked, both (default with syn)',
    )  # fmt: skip
    how.add_argument(
        '--random-seed', type=seed, metavar='SEED',
        help='seed of the registrations; with --omp-nthreads 1 a run repeats bit for bit',
    )  # fmt: skip
    how.add_argument(
        '--registration-engine', choices=REGISTRATION_ENGINES, default=REGISTRATION_ENGINES[0],
        help='greedy, by maps of tissues (default), or syn: SyN of ANTs, by the T1w, slower',
    )  # fmt: skip
    effort = how.add_mutually_exclusive_group()
    effort.add_argument(
        '--sloppy', dest='effort', action='store_const', const='_sloppy', default='',
        help='coarse registration, for trying things out',
    )  # fmt: skip
    effort.add_argument(
        '--precise', dest='effort', action='store_const', const='_precise',
        help='registration with more steps at full resolution, which takes longer',
    )  # fmt: skip

    resources = parser.add_argument_group('resources')
    resources.add_argument(
        '--nprocs', '--nthreads', '--n-cpus', '--n_cpus', type=positive, default=cores(),
        metavar='N', help='processes at a time (default: all cores this process may use)',
    )  # fmt: skip
    resources.add_argument(
        '--omp-nthreads', type=positive, metavar='N',
        help='threads of one process, nprocs at most (default: nprocs, 8 at most)',
    )  # fmt: skip
    resources.add_argument(
        '--mem', '--mem-mb', '--mem_mb', type=_gigabytes, metavar='SIZE',
        help='memory the run may use: 8G, 8000M, or a number of MB',
    )  # fmt: skip
    resources.add_argument(
        '--device', type=device_name, default='auto', metavar='{auto,cpu,cuda[:N]}',
        help='where the networks run (default: auto, a GPU where there is one)',
    )  # fmt: skip
    resources.add_argument(
        '--use-plugin', '--nipype-plugin-file', type=Path, metavar='FILE',
        help='YAML file with plugin (SLURM, SGE, PBS, Dask, MultiProc...) and plugin_args of '
        'Nipype; docs/hpc.md has examples',
    )  # fmt: skip
    resources.add_argument(
        '-w', '--work-dir', type=Path, default=Path('work'), metavar='PATH',
        help='folder for intermediate results; the same again goes on where a run stopped '
        '(default: ./work)',
    )  # fmt: skip
    resources.add_argument(
        '--stop-on-first-crash', action='store_true', help='stop all at the first failure'
    )
    resources.add_argument(
        '--boilerplate-only',
        '--boilerplate_only',
        action='store_true',
        help='only write logs/CITATION.md',
    )
    resources.add_argument(
        '--reports-only', action='store_true', help='only write the reports of the last runs anew'
    )
    return parser


def make_settings(opts: argparse.Namespace, device: str, *, elsewhere: bool = False) -> Settings:
    """Turn parsed options into settings, ``device`` being the one resolved from auto.

    Steps that run ``elsewhere`` have other cores than this process.
    """
    nthreads = opts.omp_nthreads or min(opts.nprocs, 8)
    return Settings(
        bids_dir=absolute(opts.bids_dir),
        out_dir=absolute(opts.output_dir),
        work_dir=absolute(opts.work_dir),
        participants=tuple(label.removeprefix('sub-') for label in opts.participant_label),
        sessions=tuple(label.removeprefix('ses-') for label in opts.session_label),
        bids_filters=opts.bids_filter_file,
        derivatives=tuple(opts.derivatives),
        bids_database_dir=_absolute_or_none(opts.bids_database_dir),
        template=opts.template,
        atlas=_absolute_or_none(opts.atlas),
        output_spaces=_spaces(opts.output_spaces),
        skull_strip=opts.skull_strip_t1w,
        tumor_dilation=opts.tumor_dilation,
        brain_weights=opts.brain_weights,
        segmentation_weights=opts.segmentation_weights,
        inpainting_weights=opts.inpainting_weights,
        tissue_weights=opts.tissue_weights,
        registration_target=opts.registration_target or DEFAULT_TARGETS[opts.registration_engine],
        registration_settings=opts.registration_engine + opts.effort,
        device=device,
        nprocs=opts.nprocs,
        omp_nthreads=nthreads if elsewhere else min(nthreads, opts.nprocs),
        mem_gb=opts.mem,
        plugin_file=_absolute_or_none(opts.use_plugin),
        random_seed=opts.random_seed,
        stop_on_first_crash=opts.stop_on_first_crash,
    )


def absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # links stay links: datalad's datasets are made of them


def _absolute_or_none(path: Path | None) -> Path | None:
    return None if path is None else absolute(path)


def cores() -> int:
    """Count the cores a scheduler leaves to this process."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    )


def _folder(value: str) -> Path:
    path = absolute(value)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f'{value}: no such folder')
    return path


def _derivatives(value: str) -> Path:
    """Take fMRIPrep's NAME=PATH, too; the name is of no use here."""
    name, _, path = value.partition('=')
    return _folder(path if path and '/' not in name and not Path(value).exists() else value)


def _spaces(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple('T1w' if v == 'anat' else v for v in values)


def _gigabytes(value: str) -> float:
    """Read an amount of memory as fMRIPrep does: MB where no unit is given."""
    found = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([MGT]?)B?', value, re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f'{value}: give 8G, 8000M, or a number of MB')
    gigabytes = float(found[1]) * {'': 1e-3, 'M': 1e-3, 'G': 1, 'T': 1e3}[found[2].upper()]
    if gigabytes < LEAST_MEMORY:
        raise argparse.ArgumentTypeError(
            f'{value}: that is {1000 * gigabytes:g} MB, and {LEAST_MEMORY} GB are needed (for '
            'gigabytes write 8G)'
        )
    return gigabytes


def _filters(value: str) -> dict:
    try:
        filters = json.loads(Path(value).read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f'{value}: cannot be read as JSON ({error})') from None
    known = {'t1w', 'flair', 'tumor', 'brain'}
    if not isinstance(filters, dict) or not set(filters) <= known:
        raise argparse.ArgumentTypeError(
            f'{value}: an object with queries for {", ".join(sorted(known))} is needed'
        )
    return filters


def positive(value: str) -> int:
    """Argument type: a whole number from 1."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f'{value}: a whole number from 1 is needed')
    return int(value)


def seed(value: str) -> int:
    """Argument type: a seed as ANTs and greedy take it."""
    if positive(value) >= 2**31:
        raise argparse.ArgumentTypeError(f'{value}: a whole number below 2^31 is needed')
    return int(value)


def _not_negative(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 100:
        raise argparse.ArgumentTypeError(f'{value}: a distance in mm, 0 to 100, is needed')
    return number


def device_name(value: str) -> str:
    """Argument type: the name of a torch device, or auto."""
    name, _, number = value.partition(':')
    if value not in ('auto', 'cpu', 'cuda') and not (name == 'cuda' and number.isdecimal()):
        raise argparse.ArgumentTypeError(f'{value}: auto, cpu, cuda or cuda:N is needed')
    return value
