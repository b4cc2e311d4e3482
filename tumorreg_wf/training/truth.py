"""Simulated patients as a BIDS dataset, and the truth about them as its derivative."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nb
import numpy as np

from tumorreg_wf import __version__
from tumorreg_wf.training.simulate import SimulatedPatient

BIDS_VERSION = '1.10.0'
TISSUES = {0: 'Background', 1: 'GM', 2: 'WM', 3: 'CSF'}
TUMOR = {0: 'Background', 1: 'Oedema', 2: 'Non-enhancing or necrotic core', 3: 'Enhancing rim'}
DISPLACEMENT = {
    'Description': (
        'Mass effect of the tumour: displaced(x) = healthy(x + displacement(x)). The last axis '
        'holds the components along the first, second and third voxel axis of this image.'
    ),
    'Units': 'mm',
}
README = """\
# Simulated glioma patients

Written by tumorreg-simulate: healthy brains, deformed at random, with a tumour in each. T1w and
FLAIR are skull-stripped and share one grid. `derivatives/truth` holds what no real patient has:
the exact tumour, the tissues, the same images before the tumour was put in, and how it pushed the
brain.
"""


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
    # BIDS knows the label entity for masks, not for discrete segmentations; nor does it name
    # transforms yet.
    (truth / '.bidsignore').write_text('*_label-tumor_dseg.*\n*_xfm.*\n')
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
    for suffix, image in (('T1w', patient.tumor_free_t1w), ('FLAIR', patient.tumor_free_flair)):
        _write_image(truth / f'{subject}_desc-tumorfree_{suffix}', image, affine, free)
    mask = {'Type': 'Lesion', 'Description': 'The whole tumour: oedema, core and rim.'}
    _write_image(truth / f'{subject}_label-tumor_mask', patient.tumor_mask, affine, mask)
    for name, labels, legend in (
        ('label-tumor_dseg', patient.tumor_labels, TUMOR),
        ('dseg', patient.tissues, TISSUES),
    ):
        _write_image(truth / f'{subject}_{name}', labels, affine, {'Manual': False})
        rows = [f'{index}\t{text}\n' for index, text in legend.items()]
        (truth / f'{subject}_{name}.tsv').write_text('index\tname\n' + ''.join(rows))
    stem = truth / f'{subject}_desc-masseffect_xfm'
    _write_image(stem, patient.displacement, affine, DISPLACEMENT, step=0.01)


def _write_image(
    stem: Path, data: np.ndarray, affine: np.ndarray, sidecar: dict, step: float = 1
) -> None:
    """Write masks and labels as bytes, all else as integers in units of ``step``."""
    if data.dtype == np.float32:
        data = np.rint(data / np.float32(step)).astype(np.int16)
    else:
        data = data.astype(np.uint8)
    image = nb.Nifti1Image(data, affine)
    image.header.set_xyzt_units('mm')
    image.header.set_slope_inter(step, 0)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    stem.parent.mkdir(parents=True, exist_ok=True)
    nb.save(image, f'{stem}.nii.gz')
    _write_json(Path(f'{stem}.json'), sidecar)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')
