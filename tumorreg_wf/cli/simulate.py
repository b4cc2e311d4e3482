"""``tumorreg-simulate OUT``: a BIDS dataset of simulated glioma patients, and the truth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np
from scipy import ndimage

from tumorreg_wf import __version__
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.template import packaged_images
from tumorreg_wf.training.fields import random_deformation, warp
from tumorreg_wf.training.simulate import SimulatedPatient, random_tumor, simulate_patient

#: T1w intensity of the template's brightest white matter.
BRIGHTEST = 800
BIDS_VERSION = '1.10.0'
TISSUES = {0: 'Background', 1: 'GM', 2: 'WM', 3: 'CSF'}
TUMOR = {0: 'Background', 1: 'Oedema', 2: 'Non-enhancing or necrotic core', 3: 'Enhancing rim'}
README = """\
# Simulated glioma patients

Written by tumorreg-simulate: the MNI152 template, deformed at random, with a tumour grown in its
white matter. T1w and FLAIR are skull-stripped and share one grid. `derivatives/truth` holds what
no real patient has: the exact tumour, the tissues, and the same T1w before the tumour was put in.
"""


class Brain(NamedTuple):
    """A healthy brain on one grid: T1w, tissue probabilities and mask, each (X, Y, Z)."""

    t1w: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    mask: np.ndarray
    affine: np.ndarray


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 where the user's input was wrong."""
    args = _parser().parse_args(argv)
    try:
        _prepare_folder(args.out_dir)
        template = load_template()
        subjects = [f'sub-sim{number:02d}' for number in range(1, args.n_subjects + 1)]
        write_dataset_files(args.out_dir, subjects)
        for number, subject in enumerate(subjects, 1):
            print(f'{subject} ({number} of {len(subjects)})', flush=True)
            patient = make_patient(template, np.random.default_rng((args.random_seed, number)))
            write_patient(args.out_dir, subject, patient, template.affine)
    except TumorregError as error:
        print(error, file=sys.stderr)
        return 1
    print(args.out_dir.resolve())
    return 0


def _parser() -> argparse.ArgumentParser:
    def at_least(smallest: int):
        def integer(text: str) -> int:
            if int(text) < smallest:
                raise ValueError
            return int(text)

        return integer

    parser = argparse.ArgumentParser(prog='tumorreg-simulate', description=__doc__)
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
    parser.add_argument('--version', action='version', version=f'%(prog)s {__version__}')
    return parser


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


def load_template() -> Brain:
    """Read the skull-stripped MNI152 template (1 mm) that nilearn carries; no download."""
    images = packaged_images()
    t1w, gm, wm, mask = (image.get_fdata(dtype=np.float32) for image in images)
    return Brain(t1w, gm, wm, mask > 0, images[0].affine)


def make_patient(template: Brain, rng: np.random.Generator) -> SimulatedPatient:
    """Turn the template into a patient of random anatomy with a random tumour."""
    spacing = np.sqrt((template.affine[:3, :3] ** 2).sum(0))
    everywhere = np.ones(template.mask.shape, bool)
    deformation = random_deformation(template.mask.shape, spacing, rng)
    mask = warp(template.mask, deformation, spacing, everywhere, order=1) > 0.5
    # An average of many brains is blurred: give back the edges a single brain has.
    t1w = template.t1w * template.mask / template.t1w.max()
    t1w = t1w + 0.6 * (t1w - ndimage.gaussian_filter(t1w, 1 / spacing))
    t1w = BRIGHTEST * warp(np.clip(t1w, 0, 1.1), deformation, spacing, mask, order=3)
    gm, wm = (warp(p, deformation, spacing, mask, order=1) for p in (template.gm, template.wm))
    tissues = np.where(mask, 1 + np.argmax([gm, wm, 1 - gm - wm], axis=0), 0).astype(np.uint8)
    tumor = random_tumor(tissues, spacing, rng, volume_ml=rng.uniform(30, 80))
    return simulate_patient(t1w, tissues, tumor, spacing, rng)


def write_dataset_files(folder: Path, subjects: list[str]) -> None:
    """Write what describes the dataset and its derivatives."""
    origin = {'Name': 'tumorreg-simulate', 'Version': __version__}
    truth = folder / 'derivatives' / 'truth'
    for path, name, kind in (
        (folder, 'Simulated glioma patients', 'raw'),
        (truth, 'The truth about simulated glioma patients', 'derivative'),
    ):
        path.mkdir(parents=True, exist_ok=True)
        description = {
            'Name': name,
            'BIDSVersion': BIDS_VERSION,
            'DatasetType': kind,
            'GeneratedBy': [origin],
        }
        _write_json(path / 'dataset_description.json', description)
        (path / 'README.md').write_text(README)
    # BIDS knows the label entity for masks, not for discrete segmentations.
    (truth / '.bidsignore').write_text('*_label-tumor_dseg.*\n')
    (folder / 'participants.tsv').write_text('\n'.join(['participant_id', *subjects]) + '\n')


def write_patient(
    folder: Path, subject: str, patient: SimulatedPatient, affine: np.ndarray
) -> None:
    """Write the images of one patient and, under ``derivatives/truth``, the truth."""
    raw = folder / subject / 'anat'
    for suffix, image in (('T1w', patient.t1w), ('FLAIR', patient.flair)):
        _write_image(raw / f'{subject}_{suffix}', image, affine, {'SkullStripped': True})

    truth = folder / 'derivatives' / 'truth' / subject / 'anat'
    free = {'SkullStripped': True, 'Description': 'Displaced by the tumour, but without it.'}
    _write_image(truth / f'{subject}_desc-tumorfree_T1w', patient.tumor_free_t1w, affine, free)
    mask = {'Type': 'Lesion', 'Description': 'The whole tumour: oedema, core and rim.'}
    _write_image(truth / f'{subject}_label-tumor_mask', patient.tumor_mask, affine, mask)
    for name, labels, legend in (
        ('label-tumor_dseg', patient.tumor_labels, TUMOR),
        ('dseg', patient.tissues, TISSUES),
    ):
        _write_image(truth / f'{subject}_{name}', labels, affine, {'Manual': False})
        rows = [f'{index}\t{text}\n' for index, text in legend.items()]
        (truth / f'{subject}_{name}.tsv').write_text('index\tname\n' + ''.join(rows))


def _write_image(stem: Path, data: np.ndarray, affine: np.ndarray, sidecar: dict) -> None:
    grey = data.dtype == np.float32
    data = np.rint(data).astype(np.int16) if grey else data.astype(np.uint8)
    image = nb.Nifti1Image(data, affine)
    image.header.set_xyzt_units('mm')
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    stem.parent.mkdir(parents=True, exist_ok=True)
    nb.save(image, f'{stem}.nii.gz')
    _write_json(Path(f'{stem}.json'), sidecar)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    sys.exit(main())
