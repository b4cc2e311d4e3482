"""``tumorreg-simulate OUT``: a BIDS dataset of simulated glioma patients, and the truth."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tumorreg_wf import __version__
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import describe_error
from tumorreg_wf.shapes import find_shapes
from tumorreg_wf.training.brains import (
    find_healthy,
    patient_from_anatomy,
    patient_from_t1w,
    patient_from_template,
)
from tumorreg_wf.training.simulate import SimulatedPatient
from tumorreg_wf.training.truth import write_dataset_files, write_patient

#: Patients drawn before one with a tumour is given up.
TRIES = 20


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 where the user's input was wrong."""
    args = get_parser().parse_args(argv)
    try:
        brains = find_brains(args)
        shapes = [] if args.shapes is None else find_shapes(args.shapes)
        _prepare_folder(args.out_dir)
        try:
            _write_patients(args, brains, shapes)
        except (TumorregError, OSError, KeyboardInterrupt):  # nobody may take a part for all of it
            for path in args.out_dir.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise
    except TumorregError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, or one that went away
        print(f'tumorreg-simulate: {describe_error(error)}.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('tumorreg-simulate: interrupted; nothing was kept.', file=sys.stderr)
        return 1
    print(args.out_dir.resolve())
    return 0


def _write_patients(args: argparse.Namespace, brains: list[Callable], shapes: list[Path]) -> None:
    subjects = [f'sub-sim{number:02d}' for number in range(1, args.n_subjects + 1)]
    write_dataset_files(args.out_dir, subjects)
    for number, subject in enumerate(subjects, 1):
        print(f'{subject} ({number} of {len(subjects)})', flush=True)
        rng = np.random.default_rng((args.random_seed, number))
        patient, affine = _draw_patient(brains[(number - 1) % len(brains)], rng, shapes)
        write_patient(args.out_dir, subject, patient, affine)


def _draw_patient(
    brain: Callable, rng: np.random.Generator, shapes: list[Path]
) -> tuple[SimulatedPatient, np.ndarray]:
    """Make a patient that has a tumour: what lies outside the brain or cannot be seen has gone."""
    for _ in range(TRIES):
        patient, affine = brain(rng=rng, shapes=shapes)
        if patient.tumor_mask.any():
            return patient, affine
    raise TumorregError(
        'Of the tumours nothing is left in this brain. Are the label volumes of --shapes tumours '
        'of more than a few voxels?'
    )


def get_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""

    def at_least(smallest: int):
        def integer(text: str) -> int:
            if int(text) < smallest:
                raise ValueError
            return int(text)

        return integer

    parser = argparse.ArgumentParser(
        prog='tumorreg-simulate',
        description='Write a BIDS dataset of simulated glioma patients, and the truth about them.',
    )
    parser.add_argument('out_dir', metavar='OUT', type=Path, help='a new or empty folder')
    parser.add_argument(
        '--n-subjects', metavar='N', type=at_least(1), default=1, help='default: %(default)s'
    )
    parser.add_argument(
        '--random-seed',
        metavar='S',
        type=at_least(0),
        default=1,
        help='the same seed gives the same patients; default: %(default)s',
    )
    parser.add_argument(
        '--healthy',
        metavar='BIDS',
        type=Path,
        help='put tumours into the skull-stripped T1w images of this dataset, not into the MNI152 '
        'template; contrast, tumours, scanners and what looks like a tumour then vary widely',
    )
    parser.add_argument(
        '--anatomies',
        metavar='FOLDER',
        type=Path,
        help='the same with images made up from these anatomical label maps (*.nii.gz, FreeSurfer '
        'indices); with --healthy, patients are made from either in turn',
    )
    parser.add_argument(
        '--shapes',
        metavar='FOLDER',
        type=Path,
        help='use the tumours of these label volumes (*.nii.gz; 1 oedema, 2 core, 3 rim) instead '
        'of growing some',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


def find_brains(args: argparse.Namespace) -> list[Callable]:
    """What makes patients from each of the brains, in the order in which they are used."""
    kinds = []
    if args.healthy is not None:
        kinds.append([partial(patient_from_t1w, path) for path in find_healthy(args.healthy)])
    if args.anatomies is not None:
        kinds.append([partial(patient_from_anatomy, path) for path in find_shapes(args.anatomies)])
    if not kinds:
        return [patient_from_template]
    rounds = max(len(kind) for kind in kinds)
    return [kind[i % len(kind)] for i in range(rounds) for kind in kinds]


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
        if not occupied:
            (folder / 'README.md').touch()
    except OSError as error:
        raise TumorregError(
            f'{folder}: cannot be written ({error.strerror}). Name a folder you may write to.'
        ) from None
    if occupied:
        raise TumorregError(f'{folder}: is not empty. Name a new folder, or empty this one.')


if __name__ == '__main__':
    sys.exit(main())
