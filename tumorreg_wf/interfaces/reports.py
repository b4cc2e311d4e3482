"""What the report shows: figures (SVG) and tables (HTML fragments)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    Str,
    TraitedSpec,
    traits,
)

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, load_image, same_grid
from tumorreg_wf.interfaces import figures

MAX_ROWS = 25


class _ReportOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='SVG figure or HTML fragment')


class _PlotSlicesInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='3-D image, any intensities')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask (0, 1), same grid')
    tumor_mask = File(exists=True, mandatory=True, desc='mask (0, 1), outlined, may be empty')
    dilated_mask = File(exists=True, desc='mask (0, 1), outlined where it is given')
    through = traits.Enum(
        'brain', 'tumor', usedefault=True, desc='what slices cut through (brain if no tumour)'
    )
    over_file = File(exists=True, desc='3-D image on the same grid, shown in turns with in_file')
    over_as = traits.Enum(
        'image',
        'change',
        'edges',
        'tissues',
        'signed',
        usedefault=True,
        desc='show over_file by itself; the same, on the grey scale of in_file; or, laid over '
        'in_file, its edges, labels (BIDS indices) or signed values',
    )
    masked = traits.Bool(False, usedefault=True, desc='hide what lies outside the brain mask')
    names = traits.List(Str, usedefault=True, desc='names of in_file and, if given, over_file')
    title = Str(mandatory=True, desc='what the figure shows, for those who cannot see it')


class PlotSlices(SimpleInterface):
    """Draw slices in three planes, with an overlay and contours."""

    input_spec = _PlotSlicesInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime):
        out_file = Path(runtime.cwd) / 'report.svg'
        out_file.write_text(plot_slices(**self.inputs.get_traitsfree()), encoding='utf-8')
        self._results['out_file'] = str(out_file)
        return runtime


def plot_slices(
    *,
    in_file: str | Path,
    brain_mask: str | Path,
    tumor_mask: str | Path,
    title: str,
    names: Sequence[str],
    dilated_mask: str | Path | None = None,
    through: str = 'brain',
    over_file: str | Path | None = None,
    over_as: str = 'image',
    masked: bool = False,
) -> str:
    """Draw slices of an image; see :class:`PlotSlices` for the parameters.

    Returns
    -------
    svg : text of an SVG file.

    Raises
    ------
    TumorregError
        If the images do not lie on one grid.
    """
    brain_image = load_image(brain_mask)

    def read(path: str | Path) -> nb.Nifti1Image:
        image = load_image(path)
        if not same_grid(image, brain_image):
            raise TumorregError(
                f'{path}: its shape or affine differs from that of {brain_mask}. '
                'Resample it to that grid.'
            )
        return nb.as_closest_canonical(image)

    full = [read(path) for path in (brain_mask, tumor_mask)]
    box = bounding_box(np.logical_or(*(image.get_fdata() > 0 for image in full)), margin=4)

    def crop(path: str | Path) -> np.ndarray:
        return np.asanyarray(read(path).slicer[box].dataobj)

    affine = full[0].slicer[box].affine
    brain, tumor = crop(brain_mask) > 0, crop(tumor_mask) > 0
    wanted = (tumor, brain) if through == 'tumor' else (brain, tumor)
    focus = next((mask for mask in wanted if mask.any()), np.ones_like(brain))
    mosaic = figures.Mosaic(focus, affine)

    hidden = ~brain if masked else np.zeros_like(brain)
    below = crop(in_file)
    grey_scale = figures.find_range(below, brain)
    grey = figures.to_grey(below, grey_scale)
    grey[hidden] = 0
    layers, keys = [(names[0], mosaic.raster(grey))], []
    if over_file:
        over = crop(over_file)
        if over_as == 'image':
            upper = figures.to_grey(over, figures.find_range(over, brain))
        elif over_as == 'change':
            upper = figures.to_grey(over, grey_scale)
        elif over_as == 'edges':
            edges = figures.find_edges(over, brain, nb.affines.voxel_sizes(affine))
            upper = figures.blend(grey, np.array(figures.EDGES), 0.8 * edges)
            keys = [(f'rgb{figures.EDGES}', names[1])]
        elif over_as == 'tissues':
            upper = figures.colour_tissues(grey, over)
            keys = [(f'rgb{colour}', tissue) for tissue, colour in figures.TISSUES.values()]
        else:
            limit = max(float(np.percentile(np.abs(over[brain | focus]), 99)), 0.05)
            upper = figures.colour_signed(grey, np.where(brain, over, 0), limit)
            keys = [('url(#signed)', f'{names[1]}, from {-limit:.2f} through 0 to {limit:.2f}')]
        upper[hidden] = 0
        layers.append((names[1], mosaic.raster(upper)))

    outlines = [mosaic.contour(tumor, figures.TUMOR)]
    keys.append((figures.TUMOR, 'tumour' if tumor.any() else 'no tumour'))
    if dilated_mask:
        outlines.insert(0, mosaic.contour(crop(dilated_mask) > 0, figures.DILATED))
        keys.append((figures.DILATED, 'what is filled: the tumour dilated'))
    return figures.compose(mosaic, title, layers, *outlines, figures.legend(keys))


class _SummaryInputSpec(BaseInterfaceInputSpec):
    source_file = File(mandatory=True, desc='the T1w in the dataset')
    tumor_tsv = File(exists=True, mandatory=True, desc='table of the tumour, one row')
    mask_source = Str(mandatory=True, desc='a sentence: where the tumour mask comes from')
    has_flair = traits.Bool(mandatory=True, desc='whether a FLAIR was used')
    template_name = Str(mandatory=True, desc='name of the template registered')
    notes = traits.List(Str, usedefault=True, desc='what the reader should be warned of')


class Summary(SimpleInterface):
    """Tell in a few lines what was found and from what."""

    input_spec = _SummaryInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime):
        html = summary_html(
            read_tsv(self.inputs.tumor_tsv)[0],
            source_file=self.inputs.source_file,
            mask_source=self.inputs.mask_source,
            has_flair=self.inputs.has_flair,
            template_name=self.inputs.template_name,
            notes=self.inputs.notes,
        )
        self._results['out_file'] = _write(runtime, html)
        return runtime


class _RegionsTableInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='table of atlas regions, one row each')


class RegionsTable(SimpleInterface):
    """List the regions that the tumour touches."""

    input_spec = _RegionsTableInputSpec
    output_spec = _ReportOutputSpec

    def _run_interface(self, runtime):
        self._results['out_file'] = _write(runtime, regions_html(read_tsv(self.inputs.in_file)))
        return runtime


def _write(runtime, html: str) -> str:
    out_file = Path(runtime.cwd) / 'report.html'
    out_file.write_text(html, encoding='utf-8')
    return str(out_file)


def read_tsv(path: str | Path) -> list[dict[str, str]]:
    """Read a table as a list of rows, all values text."""
    with Path(path).open(newline='', encoding='utf-8') as stream:
        return list(csv.DictReader(stream, delimiter='\t'))


def to_number(text: str) -> float:
    """Read a number; 0 for what is no number ('n/a')."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def html_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Write a table, its text escaped; the first cell of a row is its heading."""
    lines = ['<div class="table"><table>']
    if header:
        cells = ''.join(f'<th>{escape(cell)}</th>' for cell in header)
        lines.append(f'<thead><tr>{cells}</tr></thead>')
    for first, *others in rows:
        cells = ''.join(f'<td>{escape(cell)}</td>' for cell in others)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return '\n'.join([*lines, '</table></div>'])


def summary_html(
    tumor: Mapping[str, str],
    *,
    source_file: str | Path,
    mask_source: str,
    has_flair: bool,
    template_name: str,
    notes: Sequence[str] = (),
) -> str:
    """Write the summary of one patient.

    Parameters
    ----------
    tumor : row of ``desc-tumor_morph.tsv``.
    source_file, mask_source, has_flair, template_name, notes : see :class:`Summary`.

    Returns
    -------
    html : a fragment; an empty tumour mask is said to be empty.
    """
    volume = to_number(tumor['volume_mm3'])
    notes = list(notes)
    rows = [('T1w', Path(source_file).name), ('FLAIR', 'used' if has_flair else 'none')]
    rows += [('Tumour mask', mask_source), ('Tumour volume', f'{volume / 1000:.1f} ml')]
    if volume:
        rows += [
            ('Hemisphere', tumor['hemisphere']),
            ('Crosses the midline', tumor['midline_crossing']),
            ('Components', tumor['n_components']),
            ('Regions touched', tumor['n_regions']),
        ]
    else:
        notes.insert(0, 'The tumour mask is empty: nothing was filled in.')
    rows.append(('Template', template_name))
    warnings = [f'<p class="warning" role="alert">{escape(note)}</p>' for note in notes]
    return '\n'.join([*warnings, html_table(rows)])


def regions_html(regions: Sequence[Mapping[str, str]]) -> str:
    """Write the table of regions touched by the tumour, largest overlap first.

    Parameters
    ----------
    regions : rows of ``atlas-<A>_desc-tumor_morph.tsv``.

    Returns
    -------
    html : a fragment with at most ``MAX_ROWS`` regions.
    """
    touched = [row for row in regions if to_number(row['tumor_mm3']) > 0]
    if not touched:
        return '<p>The tumour touches no region of the atlas.</p>'
    touched.sort(key=lambda row: to_number(row['tumor_mm3']), reverse=True)
    rows = [
        (
            row['name'],
            row['hemisphere'],
            f'{to_number(row["volume_mm3"]) / 1000:.2f}',
            f'{to_number(row["tumor_mm3"]) / 1000:.2f}',
            f'{to_number(row["tumor_fraction"]):.0%}',
        )
        for row in touched[:MAX_ROWS]
    ]
    header = ('Region', 'Hemisphere', 'Volume (ml)', 'Tumour (ml)', 'Part taken')
    rest = len(touched) - len(rows)
    more = f'<p>{rest} more regions are in the table on disk.</p>' if rest else ''
    return html_table(rows, header) + more
