"""Register two images, or their tissues, with greedy, and write what ANTs reads.

``python -m tumorreg_wf.greedy_program --help``. Greedy (Yushkevich et al. 2016) comes as the
package picsl_greedy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import nibabel as nb
import numpy as np

#: Turns the world axes of NIfTI, R A S, into those of ITK, L P S, and back.
FLIP = np.diag([-1.0, -1, 1, 1])

#: Voxels along an axis that greedy needs at least, at each level.
THINNEST = 4


def get_parser() -> argparse.ArgumentParser:
    """Build the program's parser."""
    parser = argparse.ArgumentParser(prog='python -m tumorreg_wf.greedy_program')
    parser.add_argument('--fixed', required=True)
    parser.add_argument('--moving', required=True)
    parser.add_argument('--fixed-maps', nargs='+', default=[], help='of tissues, for that stage')
    parser.add_argument('--moving-maps', nargs='+', default=[], help='as many, in the same order')
    parser.add_argument('--fixed-mask', help='the metric is computed here alone')
    parser.add_argument(
        '--settings', type=json.loads, required=True,
        help='JSON: options of greedy for each stage, "affine" and then "deformable", or '
        '"tissues", which deforms by the maps; at least one',
    )  # fmt: skip
    parser.add_argument('--initial', help='composite of an affine alone, as this program writes')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--out', required=True, help='composite transform, moving to fixed image')
    parser.add_argument('--out-inverse', required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the program."""
    parser = get_parser()
    opts = parser.parse_args(argv)
    if 'tissues' in opts.settings and not opts.fixed_maps:
        parser.error('the stage tissues needs --fixed-maps and --moving-maps')
    with TemporaryDirectory(dir='.') as folder:
        # greedy takes one string and splits it at blanks: no path of the user's is in it
        folder = os.path.relpath(folder)
        images = _link_pairs([opts.fixed], [opts.moving], f'{folder}/image')
        # 0 would be a seed of the clock
        common = ['-d', '3', '-V', '0', '-threads', str(opts.threads)]
        common += ['-seed', str(opts.seed or 1)]
        if opts.fixed_mask:
            mask = f'{folder}/mask.nii.gz'
            _link(opts.fixed_mask, mask)
            common += ['-gm', mask]
        shape = nb.Nifti1Image.from_filename(opts.fixed).shape
        matrix, warp, inverse = (
            f'{folder}/{name}' for name in ('affine.mat', 'warp.nii', 'back.nii')
        )
        if 'affine' in opts.settings:
            options = fit_levels(opts.settings['affine'], shape)
            _greedy([*common, *images, '-a', options, '-o', matrix])
        else:
            np.savetxt(matrix, read_affine(opts.initial))
        affine = np.loadtxt(matrix)
        forth: list[np.ndarray | nb.Nifti1Image] = [affine]
        back: list[np.ndarray | nb.Nifti1Image] = [np.linalg.inv(affine)]
        deformation = opts.settings.get('deformable')
        if 'tissues' in opts.settings:
            deformation = opts.settings['tissues']
            images = _link_pairs(opts.fixed_maps, opts.moving_maps, f'{folder}/map')
        if deformation is not None:
            files_out = ['-o', warp, '-oinv', inverse]
            options = fit_levels(deformation, shape)
            _greedy([*common, *images, options, '-it', matrix, *files_out])
            forth.insert(0, nb.Nifti1Image.from_filename(warp))
            back.append(nb.Nifti1Image.from_filename(inverse))
        numbers = (step if isinstance(step, np.ndarray) else step.get_fdata() for step in forth)
        if not all(np.isfinite(one).all() for one in numbers):
            sys.exit('The images could not be registered: the transform is not a number.')
        write_composite(forth, opts.out)
        write_composite(back, opts.out_inverse)
    return 0


def fit_levels(options: str, shape: tuple[int, ...]) -> str:
    """Leave out levels at which an image would be thinner than greedy can smooth.

    Parameters
    ----------
    options : of a stage; the steps of each level follow ``-n``, the coarsest first.
    shape : voxels of the image.

    Returns
    -------
    options : with fewer levels; the coarsest that is left has the steps of those left out if they
        are more.
    """
    words = options.split()
    if '-n' not in words:
        return options
    place = words.index('-n') + 1
    steps = [int(number) for number in words[place].split('x')]
    while len(steps) > 1 and -(-min(shape) // 2 ** (len(steps) - 1)) < THINNEST:
        steps[:2] = [max(steps[:2])]
    words[place] = 'x'.join(map(str, steps))
    return ' '.join(words)


def _link_pairs(fixed: list[str], moving: list[str], stem: str) -> list[str]:
    """Link pairs of images; give greedy's options that name them."""
    options = []
    for number, pair in enumerate(zip(fixed, moving, strict=True)):
        paths = [f'{stem}-{number}-{role}.nii.gz' for role in ('fixed', 'moving')]
        for source, path in zip(pair, paths, strict=True):
            _link(source, path)
        options += ['-i', *paths]
    return options


def _link(source: str, path: str) -> None:
    """Give a NIfTI file, compressed or not, a path that ends with .nii.gz."""
    if source.endswith('.gz'):
        os.symlink(os.path.abspath(source), path)
    else:
        nb.Nifti1Image.from_filename(source).to_filename(path)


def _greedy(arguments: list[str]) -> None:
    from picsl_greedy import Greedy3D

    print('greedy', *arguments, flush=True)
    Greedy3D().execute(' '.join(arguments))


def read_affine(path: str | Path) -> np.ndarray:
    """Read the matrix (4, 4), mm, R A S, of a composite of one affine about the origin."""
    with h5py.File(path) as file:
        parameters = file['TransformGroup/1/TransformParameters'][:]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = parameters[:9].reshape(3, 3), parameters[9:]
    return FLIP @ matrix @ FLIP


def write_composite(steps: list[np.ndarray | nb.Nifti1Image], path: str | Path) -> None:
    """Write a composite transform as ITK's HDF5, float32, for ANTs.

    Parameters
    ----------
    steps : in the order in which a point goes through them: matrices (4, 4), world to world, mm,
        R A S; displacement fields (X, Y, Z, 1, 3), mm, L P S, as NIfTI.
    path : file to write.
    """
    with h5py.File(path, 'w') as file:
        group = file.create_group('TransformGroup')
        _write_step(group, 0, 'CompositeTransform', None, None)
        # ITK applies the last one first
        for number, step in enumerate(reversed(steps), 1):
            if isinstance(step, np.ndarray):
                matrix = FLIP @ step @ FLIP
                parameters = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])
                _write_step(group, number, 'AffineTransform', parameters, np.zeros(3))
                continue
            affine = FLIP @ step.affine
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            grid = [step.shape[:3], affine[:3, 3], spacing, (affine[:3, :3] / spacing).ravel()]
            # x and then the component run fastest
            shifts = np.asanyarray(step.dataobj, np.float32)[:, :, :, 0].transpose(2, 1, 0, 3)
            _write_step(
                group, number, 'DisplacementFieldTransform', shifts.ravel(), np.concatenate(grid)
            )


def _write_step(group: h5py.Group, number: int, kind: str, parameters, fixed) -> None:
    step = group.create_group(str(number))
    # ITK reads no strings in UTF-8
    step.create_dataset(
        'TransformType', data=[f'{kind}_float_3_3'], dtype=h5py.string_dtype('ascii')
    )
    if parameters is not None:
        step.create_dataset(
            'TransformParameters',
            data=np.asarray(parameters, np.float32),
            compression='gzip',
            compression_opts=4,
        )
        step['TransformFixedParameters'] = np.asarray(fixed, np.float64)


if __name__ == '__main__':
    sys.exit(main())
