"""tumorreg-evaluate: measure networks and registrations on data with known answers."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from tumorreg_wf import __version__
from tumorreg_wf.bids import REFERENCES
from tumorreg_wf.cli.parser import cores, device_name, positive, seed
from tumorreg_wf.cli.plugins import configure_nipype
from tumorreg_wf.cli.run import resolve_device
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import describe_error

MODALITIES = ('T1w+FLAIR', 'T1w')
METHODS = ('mean', 'biharmonic', 'mirror', 'paper', 'default')
ARMS = ('original', 'masked', 'recovered', 'recovered-masked', 'oracle')


def get_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = argparse.ArgumentParser(
        prog='tumorreg-evaluate',
        fromfile_prefix_chars='@',
        description='Measure networks and registrations on data with known answers. Written are '
        'a table (TSV), what was run (JSON), a summary (Markdown) and figures.',
    )
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    questions = parser.add_subparsers(dest='question', required=True)

    segmentation = questions.add_parser(
        'segmentation', help='is the tumour found?',
        description='Compare the tumours found with references.',
    )  # fmt: skip
    segmentation.add_argument(
        'data', type=Path, metavar='DATA',
        help='BIDS dataset of skull-stripped T1w and FLAIR, with references in '
        + REFERENCES.replace('%', '%%'),
    )  # fmt: skip
    segmentation.add_argument(
        '--no-tumor', type=Path, nargs='+', default=[], metavar='DATASET',
        help='BIDS datasets of people without a tumour: all that is found there is wrong, but '
        'for lesions of other kinds marked in '
        + REFERENCES.replace('tumor', 'lesion'),
    )  # fmt: skip
    segmentation.add_argument(
        '--modalities', nargs='+', choices=MODALITIES, default=MODALITIES[:1],
        help='images the network sees (default: T1w+FLAIR; T1w where there is no FLAIR)',
    )  # fmt: skip
    segmentation.add_argument(
        '--weights', nargs='+', default=[None], metavar='W',
        help='weights to measure: names, files or folders (default: the packaged ones)',
    )  # fmt: skip

    inpainting = questions.add_parser(
        'inpainting', help='is normal tissue recovered?',
        description='Cut holes of the shapes of tumours out of healthy brains, fill them with '
        'every method, and compare with what was there.',
    )  # fmt: skip
    inpainting.add_argument(
        'data', type=Path, metavar='HEALTHY',
        help='BIDS dataset of skull-stripped T1w without lesions',
    )  # fmt: skip
    inpainting.add_argument(
        '--shapes', type=Path, required=True, metavar='FOLDER',
        help='tumour label volumes that lend their shapes',
    )  # fmt: skip
    inpainting.add_argument(
        '--shape-range', type=positive, nargs=2, metavar=('FIRST', 'LAST'),
        help='use only these of the label volumes, by name, counted from 1',
    )  # fmt: skip
    inpainting.add_argument(
        '--scale', type=_scale, nargs='+', default=[1.0], metavar='S',
        help='sizes the shapes are brought to, such as 1 0.5 for their own size and half of it '
        '(default: 1)',
    )  # fmt: skip
    inpainting.add_argument(
        '--holes-per-subject', type=positive, default=1, metavar='N',
        help='holes in each participant at each scale, one at a time (default: 1)',
    )  # fmt: skip
    inpainting.add_argument(
        '--methods', nargs='+', choices=METHODS, default=METHODS, help='default: all'
    )
    inpainting.add_argument(
        '--weights', nargs='+', default=[], metavar='W', help='further weights: files or folders'
    )
    inpainting.add_argument('--random-seed', type=positive, default=1, metavar='S')

    registration = questions.add_parser(
        'registration', help='does the template fit?',
        description='Register the template to brains with a tumour in every way (arms), and '
        'compare the tissues it brings with the true ones, outside the dilated tumour and near '
        'it; and its warp with that of the same brain without the tumour (oracle).',
    )  # fmt: skip
    registration.add_argument(
        'data', type=Path, metavar='DATA',
        help='BIDS dataset of skull-stripped T1w, with tumour masks in '
        + REFERENCES.replace('%', '%%') + '; beside them, as tumorreg-simulate writes them, '
        'true tissues (sub-X_dseg.nii.gz; default: what is found in the T1w outside the tumour) '
        'and the T1w without the tumour (sub-X_desc-tumorfree_T1w.nii.gz; without it no oracle)',
    )  # fmt: skip
    registration.add_argument(
        '--arms', nargs='+', choices=ARMS, default=ARMS,
        help='original: the T1w as it is; masked: the same, the dilated tumour left out of the '
        'metric; recovered: the tumour replaced; recovered-masked: both; oracle: the T1w without '
        'the tumour (default: all)',
    )  # fmt: skip
    registration.add_argument(
        '--settings', default='greedy', metavar='NAME',
        help='engine and settings: greedy (default) or syn, with _sloppy or _precise after it, or '
        'a JSON file of that form',
    )  # fmt: skip
    registration.add_argument(
        '--shared-affine', action='store_true',
        help='start all arms from one affine, that of the masked arm, instead of one of their own',
    )  # fmt: skip
    registration.add_argument(
        '--weights', metavar='W', help='weights of the inpainting network (default: packaged)'
    )
    registration.add_argument(
        '--tissue-weights',
        metavar='W',
        help='weights of the network that finds tissues (default: packaged)',
    )
    registration.add_argument(
        '--nprocs', type=positive, default=cores(), metavar='N',
        help='processes at a time (default: all cores)',
    )  # fmt: skip
    registration.add_argument(
        '-w', '--work-dir', type=Path, default=Path('work'), metavar='PATH',
        help='folder for intermediate results; the same again goes on where a run stopped '
        '(default: ./work)',
    )  # fmt: skip
    registration.add_argument('--random-seed', type=seed, default=1, metavar='S')

    brain = questions.add_parser(
        'brain', help='is the brain found in a whole head?',
        description='Draw images of heads with tumours from label maps, find the brain in them, '
        'and compare with the label map; also, whether any of the tumour was cut off.',
    )  # fmt: skip
    brain.add_argument(
        'data', type=Path, metavar='LABELS',
        help='folder of label maps of whole heads (*.nii.gz), FreeSurfer indices in the brain',
    )  # fmt: skip
    brain.add_argument(
        '--shapes', type=Path, required=True, metavar='FOLDER',
        help='tumour label volumes that lend their shapes',
    )  # fmt: skip
    brain.add_argument(
        '--shape-range', type=positive, nargs=2, metavar=('FIRST', 'LAST'),
        help='use only these of the label volumes, by name, counted from 1',
    )  # fmt: skip
    brain.add_argument(
        '--label-maps', nargs='+', default=[], metavar='NAME',
        help='label maps to use, or @FILE with one on each line (default: all)',
    )  # fmt: skip
    brain.add_argument(
        '--images', type=positive, default=4, metavar='N',
        help='images of each label map and kind (default: 4)',
    )  # fmt: skip
    brain.add_argument(
        '--weights', nargs='+', default=[None], metavar='W',
        help='weights to measure: files or folders (default: the packaged ones)',
    )  # fmt: skip

    for question in (segmentation, inpainting, registration):
        question.add_argument(
            '--participant-label', nargs='+', default=[], metavar='LABEL',
            help='participants of the dataset, or @FILE with one on each line (default: all)',
        )  # fmt: skip
    for question in (segmentation, inpainting, registration, brain):
        question.add_argument('out', type=Path, metavar='OUT', help='folder for the results')
        question.add_argument(
            '--device', type=device_name, default='auto', metavar='{auto,cpu,cuda[:N]}',
            help='where the networks run (default: auto, a GPU where there is one)',
        )  # fmt: skip
    for question in (segmentation, inpainting, brain):
        question.add_argument(
            '--omp-nthreads', type=positive, metavar='N', help='CPU threads (default: all cores)'
        )
    registration.add_argument(
        '--omp-nthreads', type=positive, default=1, metavar='N',
        help='threads of one process (default: 1, with which results repeat bit for bit on a CPU)',
    )  # fmt: skip
    return parser


def _scale(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 2:
        raise argparse.ArgumentTypeError(f'{value}: a factor from 0.1 to 2 is needed')
    return number


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg-evaluate --help``."""
    os.environ['MPLBACKEND'] = 'Agg'  # that of a notebook may be unknown here
    argv = sys.argv[1:] if argv is None else argv
    opts = get_parser().parse_args(argv)
    try:
        if opts.out.exists() and not opts.out.is_dir():
            raise TumorregError(f'{opts.out}: this is a file. A folder for the results is needed.')
        _evaluate(opts, shlex.join(['tumorreg-evaluate', *argv]))
    except TumorregError as error:
        print(f'tumorreg-evaluate: {error}', file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, or one that went away
        print(f'tumorreg-evaluate: {describe_error(error)}.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('tumorreg-evaluate: interrupted.', file=sys.stderr)
        return 1
    print(opts.out.resolve())
    return 0


def _evaluate(opts: argparse.Namespace, command: str) -> None:
    common = {
        'weights': opts.weights,
        'device': resolve_device(opts.device),
        'command': command,
    }
    if opts.question != 'brain':
        common['participants'] = opts.participant_label
    if opts.question == 'registration':
        configure_nipype(opts.work_dir.absolute())
        from tumorreg_wf.evaluation.registration import evaluate_registration

        evaluate_registration(
            opts.data,
            opts.out,
            work_dir=opts.work_dir,
            arms=opts.arms,
            settings=opts.settings,
            shared_affine=opts.shared_affine,
            tissue_weights=opts.tissue_weights,
            seed=opts.random_seed,
            nprocs=opts.nprocs,
            omp_nthreads=opts.omp_nthreads,
            **common,
        )
        return

    import torch

    if opts.omp_nthreads:
        torch.set_num_threads(opts.omp_nthreads)
    if opts.question == 'segmentation':
        from tumorreg_wf.evaluation.segmentation import evaluate_segmentation

        evaluate_segmentation(
            opts.data, opts.out, no_tumor=opts.no_tumor, modalities=opts.modalities, **common
        )
    elif opts.question == 'brain':
        from tumorreg_wf.evaluation.brain import evaluate_brain

        evaluate_brain(
            opts.data,
            opts.out,
            shapes=opts.shapes,
            shape_range=opts.shape_range,
            label_maps=opts.label_maps,
            images=opts.images,
            **common,
        )
    else:
        from tumorreg_wf.evaluation.inpainting import evaluate_inpainting

        evaluate_inpainting(
            opts.data,
            opts.out,
            shapes=opts.shapes,
            shape_range=opts.shape_range,
            scales=opts.scale,
            holes_per_subject=opts.holes_per_subject,
            methods=opts.methods,
            seed=opts.random_seed,
            **common,
        )


if __name__ == '__main__':
    sys.exit(main())
