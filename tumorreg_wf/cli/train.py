"""tumorreg-train: train a network and write a weights folder."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tumorreg_wf import __version__
from tumorreg_wf.errors import TumorregError

if TYPE_CHECKING:
    from torch import Tensor

#: Networks for each task, the default first.
ARCHITECTURES = {'segmentation': ('UNet',), 'inpainting': ('PConvUNet', 'PConvNet')}

#: In-plane size of training slices, mm: a whole brain for segmentation, a hole's
#: surroundings for inpainting.
FIELD_OF_VIEW = {'segmentation': (160, 192), 'inpainting': (128, 128)}

#: Sizes of slices, pixels, are multiples of what the networks halve down.
SIZE_MULTIPLE = {'segmentation': 8, 'inpainting': 32}


def get_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = argparse.ArgumentParser(
        prog='tumorreg-train',
        description='Train the segmentation or the inpainting network. The result is a folder '
        'for --segmentation-weights or --inpainting-weights of tumorreg. The same command '
        'again goes on from the last checkpoint.',
    )
    parser.add_argument('task', choices=['segmentation', 'inpainting'])
    parser.add_argument(
        'data',
        type=Path,
        help='BIDS dataset of skull-stripped patients with sub-X_T1w and sub-X_FLAIR, and whole-'
        'tumour labels in derivatives/*/sub-X/anat/*_label-tumor_{dseg,mask}.nii.gz',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for weights and logs')
    parser.add_argument('--name', default='user', help='name written into the weights')
    parser.add_argument(
        '--healthy', type=Path, help='BIDS dataset of skull-stripped T1w without lesions'
    )
    parser.add_argument(
        '--shapes', type=Path, help='folder of tumour label volumes (1 oedema, 2 core, 3 rim)'
    )
    parser.add_argument('--n-shapes', type=int, help='use only the first N label volumes')
    parser.add_argument('--simulated', type=int, default=0, help='simulated patients to add')
    parser.add_argument('--exclude', nargs='+', default=[], help='participants to leave out')
    parser.add_argument(
        '--architecture', help='segmentation: UNet; inpainting: PConvUNet (default) or PConvNet'
    )
    parser.add_argument('--width', type=int, default=16, help='channels of the first level')
    parser.add_argument('--spacing', type=float, default=1.0, help='voxel edge, mm')
    parser.add_argument('--steps', type=int, default=10000)
    parser.add_argument('--batch', type=int, default=8, help='slices in a batch')
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--start-from', type=Path, help='weights to begin with')
    parser.add_argument('--features', type=Path, help='segmentation weights that lend the feature '
                        'network of the perceptual and style losses')  # fmt: skip
    parser.add_argument('--random-seed', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg-train --help``."""
    opts = get_parser().parse_args(argv)
    try:
        _train(opts, shlex.join(['tumorreg-train', *(argv or sys.argv[1:])]))
    except TumorregError as error:
        print(f'tumorreg-train: {error}', file=sys.stderr)
        return 1
    return 0


def _train(opts: argparse.Namespace, command: str) -> None:
    import torch
    from safetensors.torch import load_file

    from tumorreg_wf.models import inference
    from tumorreg_wf.training import datasets, losses
    from tumorreg_wf.training.loop import train
    from tumorreg_wf.weights import find_weights

    torch.manual_seed(opts.random_seed)
    architecture = opts.architecture or ARCHITECTURES[opts.task][0]
    if architecture not in ARCHITECTURES[opts.task]:
        raise TumorregError(
            f'--architecture {architecture}: {opts.task} takes '
            f'{" or ".join(ARCHITECTURES[opts.task])}.'
        )
    if opts.simulated and opts.healthy is None:
        raise TumorregError('--simulated needs --healthy: brains to put the tumours in.')
    config = {'width': opts.width}
    network = inference.ARCHITECTURES[architecture](**config)
    if opts.start_from is not None:
        start = find_weights(opts.task, opts.start_from)
        if (start.architecture, start.config) != (architecture, config):
            raise TumorregError(
                f'{start.path}: weights of {start.architecture} {start.config}, which do not fit '
                f'{architecture} {config}.'
            )
        network.load_state_dict(load_file(start.path))
    network.to(opts.device, memory_format=torch.channels_last)

    patients = datasets.read_patients(opts.data, spacing=opts.spacing, exclude=opts.exclude)
    if not patients:
        raise TumorregError(f'{opts.data}: no patients with reference labels here.')
    healthy, shapes = [], [patient.tumor.astype('uint8') for patient in patients]
    if opts.healthy is not None:
        healthy = datasets.read_healthy(opts.healthy, spacing=opts.spacing, exclude=opts.exclude)
    if opts.shapes is not None:
        shapes = datasets.read_shapes(opts.shapes, spacing=opts.spacing, only=slice(opts.n_shapes))
    print(f'{len(patients)} patients, {len(healthy)} healthy brains, {len(shapes)} shapes')
    simulated = datasets.simulate_cases(
        healthy, shapes, opts.simulated, spacing=opts.spacing, seed=opts.random_seed
    )

    multiple = SIZE_MULTIPLE[opts.task]
    height, width = (
        -(-int(length / opts.spacing) // multiple) * multiple
        for length in FIELD_OF_VIEW[opts.task]
    )
    size = (height, width)
    if opts.task == 'segmentation':
        batches = datasets.SegmentationSlices(patients, simulated, size=size, batch=opts.batch)

        def loss(network, *batch):
            images, targets = batch
            return losses.segmentation_loss(network(images), targets)
    else:
        batches = datasets.InpaintingSlices(
            patients + healthy, shapes, spacing=opts.spacing, size=size, batch=opts.batch
        )
        features = None if opts.features is None else _feature_maps(opts.features, opts.device)

        channels = network.in_channels

        def loss(network, *batch):
            images, masks, truth, valid = batch
            output = network(images[:, :channels], masks[:, :channels])
            return losses.inpainting_loss(output, truth, masks[:, :1], valid, features)

    opts.out.mkdir(parents=True, exist_ok=True)
    train(
        network,
        batches,
        loss,
        steps=opts.steps,
        learning_rate=opts.learning_rate,
        out_dir=opts.out,
        seed=opts.random_seed,
        device=opts.device,
    )
    facts = {'config': config, 'spacing': opts.spacing}
    inference.save_network(
        network, opts.out / f'{opts.task}.safetensors', name=opts.name, task=opts.task, **facts
    )
    card = {
        'name': opts.name,
        'task': opts.task,
        'architecture': architecture,
        **facts,
        'tumorreg': __version__,
        'command': command,
        'patients': [case.name for case in patients],
        'healthy': [case.name for case in healthy],
        'shapes': len(shapes),
        'simulated': len(simulated),
        'steps': opts.steps,
        'random_seed': opts.random_seed,
    }
    (opts.out / 'model_card.json').write_text(json.dumps(card, indent=1) + '\n')


def _feature_maps(source: Path, device: str) -> Callable[[Tensor], list[Tensor]]:
    """The finer encoder levels of a segmentation network, fed with T1w alone."""
    import torch

    from tumorreg_wf.models.inference import load_network
    from tumorreg_wf.weights import find_weights

    lender = load_network(find_weights('segmentation', source), device).requires_grad_(False)
    return lambda x: lender.features(torch.cat([x, torch.zeros_like(x)], 1))[:3]


if __name__ == '__main__':
    sys.exit(main())
