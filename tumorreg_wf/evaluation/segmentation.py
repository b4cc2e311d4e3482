"""How well the tumour is found: on references, and where there is none to find."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
from torch import nn

from tumorreg_wf.bids import REFERENCES, Anatomy, check_dataset, find_cases
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.figures import Picture, draw_distribution, draw_panel
from tumorreg_wf.evaluation.metrics import SMALLEST_LESION, compare_masks
from tumorreg_wf.evaluation.results import (
    choose_weights,
    describe_weights,
    summarise,
    to_markdown,
    write_results,
)
from tumorreg_wf.images import (
    bounding_box,
    load_image,
    require_images,
    resample,
    to_network_grid,
    voxel_spacing,
)
from tumorreg_wf.intensity import normalize_modality, require_stripped, stripped_brain_mask
from tumorreg_wf.models.networks import load_network
from tumorreg_wf.models.segmentation import segment

MODALITIES = ('T1w+FLAIR', 'T1w')

COLUMNS = {
    'participant_id': 'Participant.',
    'dataset': 'Folder of the dataset.',
    'group': 'Column group of participants.tsv, or else the label without its final digits.',
    'weights': 'Name of the weights.',
    'modalities': 'Images the network saw.',
    'reference_ml': 'Volume of the reference, ml.',
    'found_ml': 'Volume found, ml.',
    'dice': 'Twice the overlap over the sum of the volumes.',
    'hd95_mm': '95 % Hausdorff distance, mm: the larger of the two directed 95th percentiles of '
    'the distances between surface voxels; the diagonal of the image where nothing was found.',
    'volume_error_ml': 'Volume found minus volume of the reference, ml.',
    'volume_error_relative': 'The same over the volume of the reference.',
    'lesions': f'26-connected components of the reference of at least {SMALLEST_LESION:.0f} mm3.',
    'lesion_recall': 'Part of the lesions of which at least a voxel was found.',
    'false_positives': f'Components found, of at least {SMALLEST_LESION:.0f} mm3, without a voxel '
    'of the reference.',
    'false_positive_ml': 'Volume found outside the reference, ml; where there is no tumour, '
    'outside the mask of other lesions.',
}

#: What is measured where there is a tumour to find.
OF_TUMOURS = ('dice', 'hd95_mm', 'volume_error_ml', 'volume_error_relative', 'lesions',
              'lesion_recall', 'reference_ml')  # fmt: skip

STATISTICS = [
    ('n', 'dice', 'size'),
    *((f'Dice {how}', 'dice', how) for how in ('mean', 'median', 'min')),
    *((f'HD95 {how}, mm', 'hd95_mm', how) for how in ('mean', 'median', 'max')),
    *((f'volume error {how}, ml', 'volume_error_ml', how) for how in ('mean', 'median')),
    ('lesion recall mean', 'lesion_recall', 'mean'),
    ('false positives mean', 'false_positives', 'mean'),
]
STATISTICS_OF_NONE = [
    ('n', 'false_positive_ml', 'size'),
    *((f'found {how}, ml', 'false_positive_ml', how) for how in ('mean', 'median', 'max')),
    ('under 1 ml', 'false_positive_ml', lambda ml: int((ml < 1).sum())),
    ('under 3 ml', 'false_positive_ml', lambda ml: int((ml < 3).sum())),
]

INTRODUCTION = """\
# Segmentation of the tumour

Skull-stripped images as they are in the dataset, without bias-field correction; grey values
normalised as in `tumorreg`. Every case counts alike.
"""


def evaluate_segmentation(
    dataset: Path,
    out_dir: Path,
    *,
    participants: Sequence[str] = (),
    no_tumor: Sequence[Path] = (),
    weights: Sequence[str | Path | None] = (None,),
    modalities: Sequence[str] = MODALITIES[:1],
    device: str = 'cpu',
    command: str = '',
) -> pd.DataFrame:
    """Measure segmentation weights; write tables and figures.

    Parameters
    ----------
    dataset : BIDS dataset of skull-stripped patients with references, see
        :data:`tumorreg_wf.bids.REFERENCES`.
    out_dir : folder for the results.
    participants : labels; all of the dataset where empty.
    no_tumor : BIDS datasets of people without a tumour. What other lesions they have may be
        marked in ``*_label-lesion_{dseg,mask}.nii.gz`` and is then not counted as wrong.
    weights : as :func:`tumorreg_wf.weights.find_weights` takes them.
    modalities : of :data:`MODALITIES`; without a FLAIR the T1w alone is used.
    device : torch device.
    command : noted in the results.

    Returns
    -------
    table : a row per participant, weights and modalities, :data:`COLUMNS`.
    """
    chosen = choose_weights('segmentation', weights)
    networks = {name: (load_network(one, device), one.spacing) for name, one in chosen.items()}
    cases = [(dataset, case) for case in _cases_with_tumor(dataset, participants)]
    for folder in no_tumor:
        check_dataset(folder)
        if Path(folder).resolve() == Path(dataset).resolve():
            raise TumorregError(f'{folder}: the same dataset with and without tumours.')
        cases += [(folder, case) for case in find_cases(folder, label='lesion')]
    with_tumor = len(cases) - sum(folder in no_tumor for folder, _ in cases)
    require_images(path for _, case in cases for path in (case.t1w, case.flair, case.tumor_mask))

    rows: list[dict] = []
    pictures: list[Picture] = []
    for number, (folder, case) in enumerate(cases, 1):
        has_tumor = number <= with_tumor
        origin = {
            'participant_id': f'sub-{case.subject}',
            'dataset': folder.absolute().name,
            'group': group_of(folder, case.subject),
        }
        found = list(measure_case(case, networks, modalities, device, pictures, has_tumor))
        rows += [{**origin, **row} for row in found]
        words = '; '.join(map(_in_words, found))
        print(f'sub-{case.subject} ({number} of {len(cases)}): {words}', flush=True)

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    out_dir.mkdir(parents=True, exist_ok=True)
    run = {'command': command, 'weights': describe_weights(chosen.items())}
    write_results(
        out_dir, 'segmentation', table, run=run, columns=COLUMNS, summary=summary_of(table)
    )
    tumors = table[table['dice'].notna()]
    tumors = tumors.assign(what=tumors['weights'] + ', ' + tumors['modalities'])
    draw_distribution(tumors, 'dice', 'Dice', 'group', 'what', out_dir / 'segmentation_dice.png')
    draw_panel(pictures, out_dir / 'segmentation_worst.png', ['reference', 'found'])
    return table


def _cases_with_tumor(dataset: Path, participants: Sequence[str]) -> list[Anatomy]:
    check_dataset(dataset)
    cases = find_cases(dataset, participants)
    if missing := [case.subject for case in cases if case.tumor_mask is None]:
        raise TumorregError(
            f'{dataset}: no reference label {REFERENCES} of {", ".join(missing)}. Name the others '
            'with --participant-label, or a dataset without tumours with --no-tumor.'
        )
    return cases


def group_of(dataset: Path, subject: str) -> str:
    """Group of a participant: of participants.tsv, or by label, or else the dataset."""
    listed = dataset / 'participants.tsv'
    if listed.is_file():
        people = pd.read_csv(listed, sep='\t', dtype=str, index_col=0)
        if 'group' in people and f'sub-{subject}' in people.index:
            return str(people.loc[f'sub-{subject}', 'group'])
    return re.sub(r'\d+$', '', subject) or dataset.absolute().name


def measure_case(
    case: Anatomy,
    networks: dict[str, tuple[nn.Module, float]],
    modalities: Sequence[str],
    device: str,
    pictures: list[Picture],
    has_tumor: bool,
) -> Iterator[dict]:
    """Segment a case with every network and measure it; pictures of tumours are added."""
    t1w = load_image(case.t1w)
    flair = None if case.flair is None else resample(load_image(case.flair), t1w, order=1)
    reference = np.zeros(t1w.shape, bool)
    if case.tumor_mask is not None:
        reference = resample(load_image(case.tumor_mask), t1w, order=0).get_fdata() > 0
    require_stripped(np.asanyarray(t1w.dataobj), voxel_spacing(t1w), case.t1w)
    brain = stripped_brain_mask(np.asanyarray(t1w.dataobj))

    def normalized(image: nb.Nifti1Image, modality: str) -> nb.Nifti1Image:
        data = normalize_modality(np.asanyarray(image.dataobj), brain, modality)
        return nb.Nifti1Image(data, t1w.affine)

    channels = {'T1w': normalized(t1w, 'T1w')}
    if flair is not None:
        channels['FLAIR'] = normalized(flair, 'FLAIR')
    mask = nb.Nifti1Image(brain.astype(np.uint8), t1w.affine)
    seen = {name if flair is not None else 'T1w': None for name in modalities}
    for name, (network, spacing) in networks.items():
        for images in seen:
            second = channels['FLAIR'] if images == 'T1w+FLAIR' else None
            _, found = segment(
                network, channels['T1w'], second, mask, spacing=spacing, device=device
            )
            row = compare_masks(found, reference, voxel_spacing(t1w))
            if has_tumor:
                title = f'sub-{case.subject}\n{name}, {images}\nDice {row["dice"]:.2f}'
                pictures.append(_picture(title, row['dice'], channels, reference, found))
            else:
                row |= dict.fromkeys(OF_TUMOURS, np.nan)
            yield {'weights': name, 'modalities': images, **row}


def _picture(
    title: str,
    score: float,
    channels: dict[str, nb.Nifti1Image],
    reference: np.ndarray,
    found: np.ndarray,
) -> Picture:
    """Cut the axial slice on which reference and result differ most."""
    affine = channels['T1w'].affine

    def upright(data: np.ndarray) -> np.ndarray:
        image = nb.Nifti1Image(data.astype(np.float32), affine)
        return to_network_grid(image, spacing=1.0, order=0).get_fdata(dtype=np.float32)

    masks = [upright(mask) > 0 for mask in (reference, found)]
    k = int((masks[0] ^ masks[1]).sum(axis=(0, 1)).argmax())
    volumes = {name: upright(image.get_fdata()) for name, image in channels.items()}
    box = bounding_box((volumes['T1w'] != 0).any(axis=2), margin=3)
    masks = [mask[..., k][box] for mask in masks]
    shown = {name: volume[..., k][box] for name, volume in volumes.items()}
    grey = {name: np.clip((image + 3) / 6, 0, 1) * (image != 0) for name, image in shown.items()}
    second = 'FLAIR' if 'FLAIR' in grey else 'T1w'
    slices = [
        ('T1w', grey['T1w'], []),
        (second, grey[second], []),
        ('outlines', grey[second], masks),
    ]
    return Picture(title, score, slices)


def _in_words(row: dict) -> str:
    if np.isnan(row['dice']):
        return f'{row["modalities"]} no tumour, {row["false_positive_ml"]:.1f} ml found'
    return f'{row["modalities"]} Dice {row["dice"]:.3f}'


def summary_of(table: pd.DataFrame) -> str:
    """Summarise a table in Markdown, by group."""
    by = ['weights', 'modalities', 'group']
    parts = [INTRODUCTION]
    tumors, none = table[table['dice'].notna()], table[table['dice'].isna()]
    both = pd.concat([tumors.assign(group='all'), tumors])
    parts += ['## Patients\n', to_markdown(summarise(both, by, STATISTICS))]
    if len(none):
        parts += ['## No tumour\n', to_markdown(summarise(none, by, STATISTICS_OF_NONE))]
    parts += ['## Columns of segmentation.tsv\n']
    parts += [''.join(f'- `{name}`: {text}\n' for name, text in COLUMNS.items())]
    return '\n'.join(parts)
