"""The command line of tumorreg-train."""

from __future__ import annotations

import argparse
from pathlib import Path

from tumorreg_wf import __version__
from tumorreg_wf.bids import find_participants
from tumorreg_wf.cli.parser import device_name, positive
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.shapes import find_shapes, name_of
from tumorreg_wf.training.recipes import PAPER, RECIPES
from tumorreg_wf.weights import NAME

#: A network is judged about as often as this in a training.
VALIDATIONS = 20

#: A GPU waits for no more threads than this to prepare its batches.
MOST_WORKERS = 8


#: Tasks that learn from label maps of heads rather than from images.
FROM_LABEL_MAPS = ('brain', 'tissues')


class _Parser(argparse.ArgumentParser):
    """Reads arguments also from files, ``@FILE``: words, and comments after ``#``."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return arg_line.partition('#')[0].split()


def _name(value: str) -> str:
    """Argument type: a name for weights."""
    if not NAME.fullmatch(value):
        raise argparse.ArgumentTypeError(f'{value}: letters, digits, blanks and ".+-_()" alone')
    return value


def _defaults(field: str) -> str:
    """Say what networks have by default: the most common, and who has another."""
    found = {
        recipe.architecture: f'{getattr(recipe, field):g}'
        for recipes in RECIPES.values()
        for recipe in recipes
    }
    common = max(found.values(), key=list(found.values()).count)
    others = [f'{name}: {value}' for name, value in found.items() if value != common]
    return '; '.join([common, *others])


def get_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = _Parser(
        prog='tumorreg-train',
        usage='%(prog)s {segmentation,inpainting,brain,tissues} DATA --out FOLDER [options]',
        description='Train the network that finds tumours, replaces them, finds the brain or its '
        'tissues. The result is a folder for --segmentation-weights, --inpainting-weights, '
        '--brain-weights or --tissue-weights of tumorreg. The same command again '
        'goes on from the last checkpoint. @FILE stands for the words in a file.',
        fromfile_prefix_chars='@',
    )
    parser.add_argument('task', choices=list(RECIPES))
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')

    data = parser.add_argument_group('data')
    data.add_argument(
        'data', type=Path, metavar='DATA',
        help='BIDS dataset of skull-stripped patients with sub-X_T1w and sub-X_FLAIR, and whole-'
        'tumour labels in derivatives/*/sub-X/anat/*_label-tumor_{dseg,mask}.nii.gz; brain and '
        'tissues: a folder of label maps of whole heads, FreeSurfer indices in the brain',
    )  # fmt: skip
    data.add_argument(
        '--healthy', type=Path, metavar='DATASET',
        help='BIDS dataset of skull-stripped T1w without lesions',
    )  # fmt: skip
    data.add_argument(
        '--simulated', type=Path, metavar='DATASET',
        help='BIDS dataset of simulated patients, as tumorreg-simulate writes it (segmentation)',
    )  # fmt: skip
    data.add_argument(
        '--shapes', type=Path, metavar='FOLDER',
        help='tumour label volumes that lend their shapes to holes (inpainting; default: the '
        "patients' own) or to tumours (brain and tissues; default: none)",
    )  # fmt: skip
    data.add_argument(
        '--n-shapes', type=positive, metavar='N', help='use only the first N label volumes'
    )
    data.add_argument(
        '--exclude',
        nargs='+',
        default=[],
        metavar='LABEL',
        help='participants or label maps to leave out',
    )
    data.add_argument(
        '--spacing', type=_more_than_0, metavar='MM',
        help=f'voxel edge (default: {_defaults("spacing")})',
    )  # fmt: skip

    training = parser.add_argument_group('training')
    training.add_argument(
        '--preset', choices=['paper'],
        help='settings of the original method: UNet with cross-entropy, or PConvNet with losses '
        '(3) to (9); Adam, first 2e-4, then 5e-5; batches of 6. Options below change them',
    )  # fmt: skip
    training.add_argument(
        '--architecture',
        help='; '.join(
            f'{task}: {", ".join(recipe.architecture for recipe in recipes)}'
            for task, recipes in RECIPES.items()
        )
        + ' (default: the first)',
    )
    training.add_argument('--width', type=positive, metavar='N', help='channels, first level')
    training.add_argument(
        '--steps', type=_from_0, metavar='N',
        help=f'default: {_defaults("steps")}; --preset paper: {PAPER["inpainting"].steps}',
    )  # fmt: skip
    training.add_argument(
        '--batch', type=positive, metavar='N', help='slices, cubes or images of a head in a batch'
    )
    training.add_argument(
        '--learning-rate',
        type=_more_than_0,
        metavar='R',
        help='at first; falls along a half cosine (--preset paper: constant, then 5e-5)',
    )
    training.add_argument('--start-from', type=Path, metavar='W', help='weights to begin with')
    training.add_argument(
        '--features', type=Path, metavar='W',
        help='feature network of losses (5) to (7), for networks over slices: VGG-16 of '
        'torchvision (.pth, .safetensors), or segmentation weights of a UNet',
    )  # fmt: skip
    training.add_argument('--random-seed', type=_from_0, default=1, metavar='S')

    validation = parser.add_argument_group('validation')
    validation.add_argument(
        '--validate', nargs='+', default=[], metavar='LABEL',
        help='participants kept out of training to judge the network by; the best is written',
    )  # fmt: skip
    validation.add_argument(
        '--validate-every', type=positive, metavar='STEPS',
        help=f'default: {VALIDATIONS} times in all',
    )  # fmt: skip
    validation.add_argument(
        '--patience', type=positive, metavar='N',
        help='stop when N validations bring nothing better (default: never)',
    )  # fmt: skip

    running = parser.add_argument_group('running')
    running.add_argument(
        '--out', type=Path, required=True, metavar='FOLDER', help='for weights and logs'
    )
    running.add_argument(
        '--name', type=_name, default='user', help='name written into the weights'
    )
    running.add_argument(
        '--device', type=device_name, default='auto', metavar='{auto,cpu,cuda[:N]}',
        help='default: auto, a GPU where there is one',
    )  # fmt: skip
    running.add_argument(
        '--omp-nthreads', type=positive, metavar='N',
        help='CPU threads (default: all cores); trainings repeat bit for bit with as many',
    )  # fmt: skip
    running.add_argument(
        '--workers', type=_from_0, metavar='N',
        help='threads that prepare batches ahead (default: 0; for heads and tissues on a GPU one '
        f'per core and {MOST_WORKERS} at most)',
    )  # fmt: skip
    return parser


def _from_0(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f'{value}: a whole number from 0 is needed')
    return int(value)


def _more_than_0(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1000:
        raise argparse.ArgumentTypeError(f'{value}: a number above 0 is needed')
    return number


def check_options(opts: argparse.Namespace) -> None:
    """Refuse options without effect, and participants that do not exist."""
    if opts.task == 'segmentation' and (opts.shapes or opts.features):
        raise TumorregError(f'--shapes and --features are not for {opts.task}.')
    if opts.task == 'inpainting' and opts.simulated:
        raise TumorregError('--simulated is for segmentation.')
    if opts.task in FROM_LABEL_MAPS and (opts.healthy or opts.simulated or opts.features):
        raise TumorregError(f'--healthy, --simulated and --features are not for {opts.task}.')
    if opts.task == 'tissues' and opts.spacing not in (None, 1):
        raise TumorregError('--spacing: label maps are drawn, and tissues learnt, at 1 mm.')
    for folder in (opts.data, opts.healthy, opts.simulated):
        if folder is not None and folder.exists() and opts.out.resolve() == folder.resolve():
            raise TumorregError(f'--out {opts.out}: weights cannot go into the data.')
    if opts.n_shapes and not opts.shapes:
        raise TumorregError('--n-shapes needs --shapes.')
    if (opts.patience or opts.validate_every) and not opts.validate:
        raise TumorregError('--patience and --validate-every need --validate.')
    prefix = '' if opts.task in FROM_LABEL_MAPS else 'sub-'  # of names of files it is a part
    opts.exclude, opts.validate = (
        sorted({label.removeprefix(prefix) for label in labels})
        for labels in (opts.exclude, opts.validate)
    )
    folders = [folder for folder in (opts.data, opts.healthy) if folder is not None]
    if opts.task in FROM_LABEL_MAPS:
        present = {name_of(path) for path in find_shapes(opts.data)}
    else:
        present = {label for folder in folders for label in find_participants(folder, [])}
    for option, labels in (('--exclude', opts.exclude), ('--validate', opts.validate)):
        if missing := [label for label in labels if label not in present]:
            raise TumorregError(
                f'{option} {" ".join(missing)}: no such participant or label map in '
                f'{" or ".join(map(str, folders))}.'
            )
