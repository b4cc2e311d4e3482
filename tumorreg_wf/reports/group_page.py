"""The page about all patients: who stands out, where the tumours are, who is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median

import nibabel as nb
import numpy as np
import pandas as pd

from tumorreg_wf import __version__
from tumorreg_wf.images import bounding_box
from tumorreg_wf.interfaces import colours, figures
from tumorreg_wf.interfaces.fragments import html_table
from tumorreg_wf.interfaces.wording import TITLES, to_number
from tumorreg_wf.quality import FEWEST_PATIENTS, MEASURES
from tumorreg_wf.reports.group import MOST_BACKGROUNDS, TumorMap
from tumorreg_wf.reports.page import Part, Section, render_page

HEADER = (
    *('T1w', 'Stands out by', 'Tumour (ml)', 'Side', 'Regions'),
    *('Similarity', 'Folds', 'Replaced', 'Seam'),
)

#: Size of a strip of dots, and of a dot, in units of its drawing.
WIDTH, HEIGHT, DOT = 400, 96, 4


def write_group_report(
    out_dir: Path,
    group: pd.DataFrame,
    maps: Sequence[TumorMap],
    gaps: Mapping[str, Sequence[str]],
    command: str,
) -> Path:
    """Write ``group.html``.

    Parameters
    ----------
    out_dir : root of the derivatives, with the reports of the patients.
    group : from :func:`tumorreg_wf.reports.group.read_tables`.
    maps : tumour maps, one per template.
    gaps : from :func:`tumorreg_wf.reports.group.find_gaps`.
    command : command line, as shown to the reader.

    Returns
    -------
    path : the page; it needs no other file and no network, save for links to the patients.
    """
    sections = [Section('Summary', [Part(summary_html(group, gaps, out_dir))])]
    if gaps:
        rows = [(what, ', '.join(names)) for what, names in gaps.items()]
        sections.append(Section('Missing', [Part(html_table(rows))]))
    about = html_table([('tumorreg', __version__)]) + f'<pre tabindex="0">{escape(command)}</pre>'
    pictures = [_map(tumor_map) for tumor_map in maps]
    sections += [
        Section('Tumours', pictures or [Part('<p>No tumour mask is in template space.</p>')]),
        Section('Quality', [_distribution(group, name) for name in TITLES]),
        Section('Patients', [Part(patients_html(group, out_dir))]),
        Section('About', [Part(about)]),
    ]
    return render_page(out_dir / 'group.html', 'tumorreg: group', sections)


def summary_html(group: pd.DataFrame, gaps: Mapping[str, Sequence[str]], out_dir: Path) -> str:
    """Tell in a few lines who was put together and who stands out."""
    outliers = group[group['outlier'] != 'n/a']
    patients = group['participant_id'].nunique()
    volumes = [to_number(value) / 1000 for value in group['volume_mm3']]
    sides = group['hemisphere'].value_counts()
    rows = [
        ('Patients', str(patients)),
        ('T1w images', str(len(group))),
        ('Tumour volume', _describe_volumes([volume for volume in volumes if volume])),
        ('Side', f'left {sides.get("L", 0)}, right {sides.get("R", 0)}, both {sides.get("B", 0)}'),
        ('Without a tumour', str(sum(volume == 0 for volume in volumes))),
    ]
    if patients < FEWEST_PATIENTS:
        rows.append(('Stand out', f'not looked for among fewer than {FEWEST_PATIENTS} patients'))
    elif outliers.empty:
        rows.append(('Stand out', 'nobody'))
    warnings = []
    if len(outliers):
        names = ', '.join(
            f'{_link(row.participant_id, row.prefix, out_dir)} ({_listed(row.outlier)})'
            for row in outliers.itertuples()
        )
        warnings.append(f'These stand out, look at their reports: {names}.')
    if gaps:
        count = len(set().union(*gaps.values()))
        warnings.append(f'Not complete: see the {count} names under Missing.')
    lines = [f'<p class="warning" role="alert">{text}</p>' for text in warnings]
    return '\n'.join([*lines, html_table(rows)])


def _describe_volumes(volumes: Sequence[float]) -> str:
    if not volumes:
        return 'n/a'
    return f'median {median(volumes):.1f} ml, up to {max(volumes):.1f} ml, where there is a tumour'


def patients_html(group: pd.DataFrame, out_dir: Path) -> str:
    """Write the table of T1w, each with a link to the patient's report where there is one."""
    lines = [
        '<style>.wide :is(th, td) { white-space: nowrap; }</style>',
        '<div class="table wide" tabindex="0" role="region" aria-label="Patients"><table>',
        '<thead><tr>',
        *(f'<th scope="col">{name}</th>' for name in HEADER),
        '</tr></thead>',
    ]
    for row in group.to_dict('records'):
        cells = [
            _listed(row['outlier']),
            f'{to_number(row["volume_mm3"]) / 1000:.1f}',
            row['hemisphere'],
            row['n_regions'],
            *(_short(row[measure]) for measure in TITLES),
        ]
        name = _link(row['participant_id'], row['prefix'], out_dir)
        text = ''.join(f'<td>{"" if cell == "n/a" else escape(cell)}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row">{name}</th>{text}</tr>')
    return '\n'.join([*lines, '</table></div>'])


def _link(patient: str, text: str, out_dir: Path) -> str:
    if not (out_dir / f'{patient}.html').exists():
        return escape(text)
    return f'<a href="./{escape(patient)}.html">{escape(text)}</a>'


def _listed(outlier: str) -> str:
    return outlier.replace('_', ' ').replace(',', ', ')


def _short(value: str) -> str:
    number = pd.to_numeric(value, errors='coerce')
    return 'n/a' if np.isnan(number) else f'{number:.3g}'


def _distribution(group: pd.DataFrame, measure: str) -> Part:
    text = MEASURES[measure]['Description'] + '.'
    return Part(plot_distribution(group, measure), TITLES[measure], text)


def plot_distribution(group: pd.DataFrame, measure: str) -> str:
    """Draw a dot per T1w on a line, those that stand out in colour and named; part of a page."""
    values = pd.to_numeric(group[measure], errors='coerce')
    if values.notna().sum() == 0:
        return '<p>Not measured.</p>'
    low, high = float(values.min()), float(values.max())
    across = (values - low) / ((high - low) or 1) * (WIDTH - 40) + 20
    out = group['outlier'].map(lambda names: measure in names.split(','))
    columns = (across / (2 * DOT)).round().dropna().astype(int)
    above = columns.groupby(columns).cumcount() + 1
    step = min(2 * DOT, (HEIGHT - 22 - DOT) / above.max())  # high stacks overlap
    dots = []
    for index, column in columns.items():
        top = HEIGHT - 22 - step * above[index]
        name = escape(f'{group["prefix"][index]}: {values[index]:.3g}')
        colour = 'var(--warn)' if out[index] else 'currentColor'
        shape = f'cx="{column * 2 * DOT}" cy="{top:.1f}" r="{DOT if out[index] else DOT - 0.7}"'
        dots.append(f'<circle {shape} fill="{colour}"><title>{name}</title></circle>')
    named = ', '.join(
        f'{group["prefix"][index]} ({values[index]:.3g})' for index in out[out].index
    )
    text = f'median {values.median():.3g}, from {low:.3g} to {high:.3g}'
    ends = ''.join(
        f'<text x="{x}" y="{HEIGHT - 3}" text-anchor="{anchor}">{value:.3g}</text>'
        for x, anchor, value in ((20, 'start', low), (WIDTH - 20, 'end', high))
    )
    aria = escape(f'{TITLES[measure]}: {text}')
    return (
        f'<div><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" style="max-width: 34rem" '
        f'role="img" aria-label="{aria}" fill="currentColor" font-size="13">'
        f'<line x1="12" x2="{WIDTH - 12}" y1="{HEIGHT - 22}" y2="{HEIGHT - 22}" '
        f'stroke="currentColor"/>{ends}{"".join(dots)}</svg></div>'
        f'<p>{text}.{f" Stands out: {escape(named)}." if named else ""}</p>'
    )


def _map(tumor_map: TumorMap) -> Part:
    return Part(
        plot_map(tumor_map),
        f'Where tumours are, {tumor_map.template}',
        f'Part of the patients (n = {tumor_map.patients}) with a tumour in each voxel, '
        f'from 0 to {tumor_map.frequency.get_fdata().max():.0%} (yellow), over the mean T1w of '
        f'{"some of " if tumor_map.patients > MOST_BACKGROUNDS else ""}them.',
    )


def plot_map(tumor_map: TumorMap) -> str:
    """Draw a tumour map on slices through the tumours; text of an SVG file."""
    frequency, background = (
        nb.as_closest_canonical(image) for image in (tumor_map.frequency, tumor_map.background)
    )
    shown = np.asanyarray(background.dataobj) + np.asanyarray(frequency.dataobj)
    box = bounding_box(shown > 0, margin=4)
    share, below = (np.asanyarray(image.slicer[box].dataobj) for image in (frequency, background))
    brain = below > 0
    focus = next(mask for mask in (share > 0, brain, np.ones_like(brain)) if mask.any())
    mosaic = figures.Mosaic(focus, frequency.slicer[box].affine, n_slices=4)
    grey = colours.to_grey(below, colours.find_range(below, brain))
    most = float(share.max())
    picture = mosaic.raster(colours.colour_shares(grey, share, most or 1))
    several = 's' if tumor_map.patients > 1 else ''
    words = f'0 to {most:.0%} of {tumor_map.patients} patient{several}' if most else 'no tumour'
    layer = figures.Layer('', picture, [(colours.SHARES, words)])
    return figures.compose(mosaic, f'Tumour frequency in {tumor_map.template}', [layer])
