"""All patients of a folder of derivatives: one table, and a map of their tumours."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import read_dictionary, write_aside, write_text
from tumorreg_wf.images import load_image, same_grid, save_like
from tumorreg_wf.interfaces.fragments import read_tsv
from tumorreg_wf.quality import MEASURES, find_outliers
from tumorreg_wf.reports.record import read_record

TUMOR, QUALITY = '_desc-tumor_morph', '_desc-qc_morph'

#: Columns of the former that the report cannot do without.
NEEDED = ('volume_mm3', 'hemisphere', 'n_regions')

#: What names of T1w have that the participant level leaves alone.
NOT_TAKEN = ('_ce-', '_desc-', '_space-', '_part-')

#: So many T1w are averaged to show where the brain is.
MOST_BACKGROUNDS = 10

COLUMNS = {
    'participant_id': {'Description': 'The patient'},
    'session_id': {'Description': 'The session; n/a where there are none'},
    'prefix': {'Description': "What the names of this T1w's outputs start with"},
}
OUTLIER = {
    'outlier': {
        'Description': 'Measures by which this T1w stands out from the others, joined by commas: '
        'robust z (median, median absolute deviation) above 3.5 or below -3.5. Nobody stands out '
        'among fewer than 5 patients.'
    }
}


@dataclass(frozen=True)
class TumorMap:
    """How often there is a tumour, in the space of one template.

    Attributes
    ----------
    template : its name.
    frequency : image, 0 to 1: part of the patients that have a tumour in a voxel. Sessions of
        one patient share that patient's part.
    background : image on the same grid: mean T1w of some patients, 0 outside their brains: a face
        is nobody's business.
    patients : number of patients.
    masks : what was summed.
    """

    template: str
    frequency: nb.Nifti1Image
    background: nb.Nifti1Image
    patients: int
    masks: tuple[Path, ...]


def find_tables(
    out_dir: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()
) -> list[Path]:
    """Find the tumour tables of patients.

    Parameters
    ----------
    out_dir : root of the derivatives.
    participants, sessions : labels to keep; all where empty.

    Raises
    ------
    TumorregError
        If there is none.
    """
    found = [
        path
        for folder in ('sub-*/anat', 'sub-*/ses-*/anat')
        for path in out_dir.glob(f'{folder}/sub-*{TUMOR}.tsv')
        if '_atlas-' not in path.name
        and (not participants or _labels(path)[0][4:] in participants)
        and (not sessions or _labels(path)[1][4:] in sessions)
    ]
    if not found:
        raise TumorregError(
            f'{out_dir}: no tables of patients (sub-X/anat/sub-X{TUMOR}.tsv) to put together. '
            'Run the participant level first, or check the labels.'
        )
    return sorted(found, key=lambda path: _natural(path.as_posix()))


def _labels(table: Path) -> tuple[str, str]:
    """Participant and session of a table, with ``sub-`` and ``ses-``; 'n/a' without session."""
    folder = table.parent.parent
    return (folder.parent.name, folder.name) if folder.name[:4] == 'ses-' else (folder.name, 'n/a')


def _natural(text: str) -> list:
    """Sort key that puts sub-2 before sub-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r'(\d+)', text)]


def read_tables(tables: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, dict]]:
    """Put the tables of patients together, and look for outliers.

    Parameters
    ----------
    tables : from :func:`find_tables`.

    Returns
    -------
    group : a row per T1w; values as they are in the tables, that is text.
    dictionary : what the columns mean.

    Raises
    ------
    TumorregError
        If a table is damaged.
    """
    rows = []
    described: dict[str, dict] = {}
    for path in tables:
        participant, session = _labels(path)
        prefix = path.name.removesuffix(f'{TUMOR}.tsv')
        row = {'participant_id': participant, 'session_id': session, 'prefix': prefix}
        for ending in (TUMOR, QUALITY):
            table = path.with_name(f'{prefix}{ending}.tsv')
            if table.exists():
                row |= _read_row(table, NEEDED if ending == TUMOR else ())
                described |= read_dictionary(table.with_suffix('.json'))
        rows.append(row)
    group = pd.DataFrame(rows)
    order = [name for name in group if name not in MEASURES]
    group = group.reindex(columns=[*order, *MEASURES])
    values = group[list(MEASURES)].apply(pd.to_numeric, errors='coerce')
    group['outlier'] = find_outliers(values, group['participant_id'])
    described = COLUMNS | described | MEASURES | OUTLIER
    dictionary = {name: described.get(name, {}) for name in group}
    return group.astype(object).replace('', 'n/a').fillna('n/a'), dictionary


def _read_row(path: Path, needed: Collection[str]) -> dict[str, str]:
    try:
        rows = read_tsv(path)
    except (ValueError, csv.Error):  # no text, or no end of a field
        rows = []
    row = rows[0] if len(rows) == 1 else {}
    complete = bool(row) and None not in row and None not in row.values()
    if not complete or not row.keys() >= set(needed):
        raise TumorregError(
            f'{path}: a table with one row is needed. Delete it and process this patient again.'
        )
    return row


def write_table(group: pd.DataFrame, dictionary: dict[str, dict], out_dir: Path) -> Path:
    """Write ``group_desc-tumor_morph.tsv`` and its dictionary; give the table's path."""
    path = out_dir / f'group{TUMOR}.tsv'
    with write_aside(path) as part:
        group.to_csv(part, sep='\t', index=False, quoting=csv.QUOTE_NONE)
    write_text(path.with_suffix('.json'), json.dumps(dictionary, indent=1) + '\n')
    return path


def map_tumors(tables: Sequence[Path]) -> list[TumorMap]:
    """Sum the tumours of all patients, for each template by itself.

    Parameters
    ----------
    tables : from :func:`find_tables`; masks lie beside them.

    Returns
    -------
    maps : one per template; none where no mask is in template space.

    Raises
    ------
    TumorregError
        If masks of one template lie on different grids.
    """
    found: dict[str, list[Path]] = {}
    for table in tables:
        for mask in find_masks(table):
            template = re.findall('_space-([^_]+)', mask.name)[0]
            found.setdefault(template, []).append(mask)
    return [_map_tumors(template, masks) for template, masks in sorted(found.items())]


def find_masks(table: Path) -> list[Path]:
    """Find the tumour masks in template space that belong to a table."""
    prefix = table.name.removesuffix(f'{TUMOR}.tsv')
    return sorted(table.parent.glob(f'{prefix}_space-*_label-tumor_mask.nii.gz'))


def _map_tumors(template: str, masks: list[Path]) -> TumorMap:
    shares = Counter(_labels(mask)[0] for mask in masks)
    first = load_image(masks[0])

    def read(path: Path) -> np.ndarray:
        image = load_image(path)
        if not same_grid(image, first):
            raise TumorregError(
                f'{path}: its shape or affine differs from that of {masks[0]}, though both are '
                f'named {template}. Process all patients with one template, or put those of each '
                'together by themselves with --participant-label.'
            )
        return np.asanyarray(image.dataobj)

    total = np.zeros(first.shape, np.float32)
    for mask in masks:
        total[read(mask) > 0] += 1 / (shares[_labels(mask)[0]] * len(shares))
    background = np.zeros(first.shape, np.float32)
    pairs = (
        [
            Path(str(mask).replace('_label-tumor_mask.', ending))
            for ending in ('_desc-preproc_T1w.', '_desc-brain_mask.')
        ]
        for mask in masks
    )
    complete = [pair for pair in pairs if all(path.exists() for path in pair)]
    for t1w, brain in complete[:MOST_BACKGROUNDS]:
        data = read(t1w) * (read(brain) > 0)
        background += data / max(float(data.mean()), 1e-6)
    frequency = nb.Nifti1Image(np.minimum(total, 1), first.affine, first.header)
    # the codes of the masks say that this is the space of a template
    header = nb.Nifti1Image.from_filename(masks[0]).header
    frequency.set_sform(first.affine, int(header['sform_code']))
    frequency.set_qform(first.affine, int(header['qform_code']))
    return TumorMap(
        template=template,
        frequency=frequency,
        background=nb.Nifti1Image(background, first.affine, first.header),
        patients=len(shares),
        masks=tuple(masks),
    )


def write_map(tumor_map: TumorMap, out_dir: Path) -> Path:
    """Write a map as ``tpl-<T>/anat/tpl-<T>_label-tumor_probseg.nii.gz``; give its path."""
    stem = f'tpl-{tumor_map.template}'
    path = out_dir / stem / 'anat' / f'{stem}_label-tumor_probseg.nii.gz'
    path.parent.mkdir(parents=True, exist_ok=True)
    frequency = tumor_map.frequency
    with write_aside(path) as part:
        save_like(np.asanyarray(frequency.dataobj), frequency, part)
    sources = [f'bids::{mask.relative_to(out_dir).as_posix()}' for mask in tumor_map.masks]
    # a template that came with tumorreg has no address; a mask on its grid has
    first = read_dictionary(Path(str(tumor_map.masks[0]).replace('.nii.gz', '.json')))
    sidecar: dict[str, object] = {
        'Description': f'Part of {tumor_map.patients} patients with a tumour in the voxel; '
        'sessions of a patient share its part.',
        'Sources': sources,
        'SpatialReference': first.get('SpatialReference', sources[0]),
    }
    text = json.dumps(sidecar, indent=1) + '\n'
    write_text(str(path).replace('.nii.gz', '.json'), text)
    return path


def remove_other_maps(maps: Sequence[Path], out_dir: Path) -> None:
    """Remove maps that an earlier run wrote of patients who are no longer there."""
    for path in out_dir.glob('tpl-*/anat/tpl-*_label-tumor_probseg.nii.gz'):
        if path not in maps:
            Path(str(path).replace('.nii.gz', '.json')).unlink(missing_ok=True)
            path.unlink()


def find_gaps(
    bids_dir: Path,
    out_dir: Path,
    tables: Sequence[Path],
    participants: Sequence[str],
    sessions: Sequence[str],
) -> dict[str, list[str]]:
    """List what is missing: T1w without derivatives, and derivatives that are not complete.

    Parameters
    ----------
    bids_dir, out_dir : roots of the dataset and of the derivatives.
    tables : from :func:`find_tables`.
    participants, sessions : labels looked at; all where empty.

    Returns
    -------
    gaps : what is missing, and the T1w or patients it is missing for, in order.
    """
    prefixes = {table: table.name.removesuffix(f'{TUMOR}.tsv') for table in tables}
    done = {prefix.removesuffix('_') for prefix in prefixes.values()}
    gaps: dict[str, list[str]] = {'no T1w in the dataset': [], 'no derivatives': []}
    present: set[str] = set()
    for folder in sorted(bids_dir.glob('sub-*/'), key=lambda path: _natural(path.name)):
        if participants and folder.name[4:] not in participants:
            continue
        images = [
            image
            for place in ('anat', 'ses-*/anat')
            for image in folder.glob(f'{place}/sub-*_T1w.nii*')
        ]
        if sessions:
            images = [image for image in images if _labels(image)[1][4:] in sessions]
        names = {
            image.name.partition('_T1w.')[0]
            for image in images
            if not any(entity in image.name for entity in NOT_TAKEN)
        }
        if not names and not sessions:
            gaps['no T1w in the dataset'].append(folder.name)
        gaps['no derivatives'] += sorted(names - done)
        present |= names
    gaps['results of what is not in the dataset'] = sorted(done - present)
    gaps['last run not finished, results of an earlier one'] = [
        name
        for name in dict.fromkeys(_labels(table)[0] for table in tables)
        if (record := read_record(out_dir, name[4:])) is None or not record.finished
    ]
    gaps[f'no table of quality ({QUALITY[1:]}.tsv)'] = [
        prefix
        for table, prefix in prefixes.items()
        if not table.with_name(f'{prefix}{QUALITY}.tsv').exists()
    ]
    without = [prefix for table, prefix in prefixes.items() if not find_masks(table)]
    # with --output-spaces T1w nobody has one, and nothing is missing
    gaps['no tumour mask in template space'] = without if len(without) < len(tables) else []
    return {what: names for what, names in gaps.items() if names}
