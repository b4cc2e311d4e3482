"""tumorreg-train: train a network and write a weights folder."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from tumorreg_wf import __version__
from tumorreg_wf.errors import TumorregError

#: In-plane size of training slices, mm: a whole brain for segmentation, a hole's
#: surroundings for inpainting.
FIELD_OF_VIEW = {'segmentation': (160, 192), 'inpainting': (128, 128)}


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
    parser.add_argument('--architecture', help='UNet; PConvUNet (default) or PConvNet')
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

    from tumorreg_wf.models.inference import ARCHITECTURES, load_network, save_network
    from tumorreg_wf.training import datasets, losses
    from tumorreg_wf.training.loop import train
    from tumorreg_wf.weights import read_weights

    torch.manual_seed(opts.random_seed)
    if opts.architecture is None:
        opts.architecture = {'segmentation': 'UNet', 'inpainting': 'PConvUNet'}[opts.task]
    config = {'width': opts.width}
    network = ARCHITECTURES[opts.architecture](**config)
    if opts.start_from is not None:
        network.load_state_dict(load_file(read_weights(opts.start_from).path))
    network.to(opts.device, memory_format=torch.channels_last)

    patients = datasets.read_patients(opts.data, spacing=opts.spacing, exclude=opts.exclude)
    if not patients:
        raise TumorregError(f'{opts.data}: no patients with reference labels here.')
    healthy, shapes = [], [patient.tumor.astype('uint8') for patient in patients]
    if opts.healthy is not None:
        healthy = datasets.read_healthy(opts.healthy, spacing=opts.spacing, exclude=opts.exclude)
    if opts.shapes is not None:
        shapes = datasets.read_shapes(
            opts.shapes, spacing=opts.spacing, only=slice(opts.n_shapes)
        )
    print(f'{len(patients)} patients, {len(healthy)} healthy brains, {len(shapes)} shapes')
    simulated = datasets.simulate_cases(
        healthy, shapes, opts.simulated, spacing=opts.spacing, seed=opts.random_seed
    )

    size = tuple(int(length / opts.spacing) for length in FIELD_OF_VIEW[opts.task])
    if opts.task == 'segmentation':
        batches = datasets.SegmentationSlices(patients, simulated, size=size, batch=opts.batch)

        def loss(network, images, targets):
            return losses.segmentation_loss(network(images), targets)
    else:
        batches = datasets.InpaintingSlices(
            patients + healthy, shapes, spacing=opts.spacing, size=size, batch=opts.batch
        )
        features = None
        if opts.features is not None:
            lender = load_network(read_weights(opts.features), opts.device).requires_grad_(False)

            def features(x):
                return lender.features(torch.cat([x, torch.zeros_like(x)], 1))[:3]

        def loss(network, truth, mask, valid):
            return losses.inpainting_loss(network(truth, mask), truth, mask, valid, features)

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
    save_network(
        network, opts.out / f'{opts.task}.safetensors', name=opts.name, task=opts.task, **facts
    )
    card = {
        'name': opts.name,
        'task': opts.task,
        'architecture': opts.architecture,
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


if __name__ == '__main__':
    sys.exit(main())
