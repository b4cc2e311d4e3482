"""The networks as a program: files in, files out.

``python -m tumorreg_wf.models.runner strip|segment|inpaint|tissues --help``
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from tumorreg_wf.errors import REFUSED, TumorregError
from tumorreg_wf.images import load_image, load_on_grid, save_like
from tumorreg_wf.weights import find_weights

#: What the network of each command is for.
TASKS = {
    'strip': 'brain', 'segment': 'segmentation', 'inpaint': 'inpainting', 'tissues': 'tissues',
}  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """Build the program's parser."""
    parser = argparse.ArgumentParser(prog='python -m tumorreg_wf.models.runner')
    commands = parser.add_subparsers(dest='command', required=True)
    strip = commands.add_parser('strip', help='find the brain in a whole head')
    strip.add_argument('--tumor')
    strip.add_argument('--out-mask', required=True)
    segment = commands.add_parser('segment', help='find the tumour')
    segment.add_argument('--flair')
    segment.add_argument('--out-probseg', required=True)
    segment.add_argument('--out-mask', required=True)
    inpaint = commands.add_parser('inpaint', help='replace what is in a mask by normal tissue')
    inpaint.add_argument('--hole', required=True)
    inpaint.add_argument('--out', required=True)
    tissues = commands.add_parser('tissues', help='tell grey matter, white matter and CSF apart')
    tissues.add_argument('--hole')
    tissues.add_argument('--out-gm', required=True)
    tissues.add_argument('--out-wm', required=True)
    tissues.add_argument('--out-csf', required=True)
    for command in (segment, inpaint, tissues):
        command.add_argument('--brain', required=True)
    for command in (strip, segment, inpaint, tissues):
        command.add_argument('--t1w', required=True)
        command.add_argument('--weights', required=True)
        command.add_argument('--sha256', required=True)
        command.add_argument('--device', default='cpu')
        command.add_argument('--threads', type=int, default=1)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program; bad input ends in a message, and the exit code :data:`REFUSED`."""
    opts = get_parser().parse_args(argv)
    try:
        _run(opts)
    except TumorregError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


def _run(opts: argparse.Namespace) -> None:
    import torch

    from tumorreg_wf.models import extraction, inpainting, networks, segmentation, tissues

    torch.set_num_threads(opts.threads)
    weights = find_weights(TASKS[opts.command], opts.weights)
    if weights.sha256 != opts.sha256:
        raise TumorregError(f'{opts.weights}: these weights changed since the run was planned.')
    network = networks.load_network(weights, opts.device)
    t1w = load_image(opts.t1w)
    how = {'spacing': weights.spacing, 'device': opts.device}
    if opts.command == 'strip':
        tumor = None if opts.tumor is None else load_on_grid(opts.tumor, t1w)
        _, mask = extraction.extract_brain(network, t1w, tumor, **how)
        extraction.require_brain(mask, t1w)
        save_like(mask, t1w, opts.out_mask)
        return
    brain = load_on_grid(opts.brain, t1w)
    if opts.command == 'segment':
        flair = None if opts.flair is None else load_on_grid(opts.flair, t1w)
        probability, mask = segmentation.segment(network, t1w, flair, brain, **how)
        save_like(probability, t1w, opts.out_probseg)
        save_like(mask.astype(np.uint8), t1w, opts.out_mask)
    elif opts.command == 'inpaint':
        hole = load_on_grid(opts.hole, t1w)
        recovered = inpainting.inpaint(network, t1w, hole, brain, **how)
        save_like(recovered, t1w, opts.out)
    else:
        hole = None if opts.hole is None else load_on_grid(opts.hole, t1w)
        maps = tissues.find_tissues(network, t1w, brain, hole, **how)
        for data, path in zip(maps, (opts.out_gm, opts.out_wm, opts.out_csf), strict=True):
            save_like(data, t1w, path)


if __name__ == '__main__':
    sys.exit(main())
