"""Text of the report: fragments of HTML, made from tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    Str,
    TraitedSpec,
    traits,
)

from tumorreg_wf.interfaces.wording import (
    describe_quality,
    describe_tumor,
    name_region,
    sort_touched,
    to_number,
)

MAX_ROWS = 10


class _FragmentOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='HTML fragment')


class _SummaryInputSpec(BaseInterfaceInputSpec):
    tumor_tsv = File(exists=True, mandatory=True, desc='table of the tumour, one row')
    regions_tsv = File(exists=True, mandatory=True, desc='table of atlas regions, one row each')
    quality_tsv = File(exists=True, mandatory=True, desc='table of quality, one row')
    user_mask = Str('', usedefault=True, desc='the tumour mask of the user, where given')
    notes = traits.List(Str, usedefault=True, desc='what the reader should be warned of')


class Summary(SimpleInterface):
    """Tell in a sentence what was found, by whom, and how well it went."""

    input_spec = _SummaryInputSpec
    output_spec = _FragmentOutputSpec

    def _run_interface(self, runtime):
        html = summary_html(
            read_tsv(self.inputs.tumor_tsv)[0],
            read_tsv(self.inputs.regions_tsv),
            read_tsv(self.inputs.quality_tsv)[0],
            user_mask=self.inputs.user_mask or None,
            notes=self.inputs.notes,
        )
        self._results['out_file'] = _write(runtime, html)
        return runtime


class _RegionsTableInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='table of atlas regions, one row each')


class RegionsTable(SimpleInterface):
    """List the regions that the tumour touches."""

    input_spec = _RegionsTableInputSpec
    output_spec = _FragmentOutputSpec

    def _run_interface(self, runtime):
        self._results['out_file'] = _write(runtime, regions_html(read_tsv(self.inputs.in_file)))
        return runtime


class _ProvenanceInputSpec(BaseInterfaceInputSpec):
    source_file = Str(mandatory=True, desc='the T1w in the dataset')
    rows = traits.List(traits.Tuple(Str, Str), mandatory=True, desc='what was used: name, value')


class Provenance(SimpleInterface):
    """List what the outputs were made from."""

    input_spec = _ProvenanceInputSpec
    output_spec = _FragmentOutputSpec

    def _run_interface(self, runtime):
        rows = [('T1w', self.inputs.source_file), *self.inputs.rows]
        self._results['out_file'] = _write(runtime, html_table(rows))
        return runtime


def _write(runtime, html: str) -> str:
    out_file = Path(runtime.cwd) / 'report.html'
    out_file.write_text(html, encoding='utf-8')
    return str(out_file)


def read_tsv(path: str | Path) -> list[dict[str, str]]:
    """Read a table as a list of rows, all values text; BIDS knows no quotation marks."""
    with Path(path).open(newline='', encoding='utf-8') as stream:
        return list(csv.DictReader(stream, delimiter='\t', quoting=csv.QUOTE_NONE))


def html_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Write a table, its text escaped; the first cell of a row is its heading."""
    # wider than a phone, perhaps: then it can be moved sideways, by keys as well
    lines = ['<div class="table" tabindex="0" role="group" aria-label="Table"><table>']
    if header:
        cells = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
        lines.append(f'<thead><tr>{cells}</tr></thead>')
    for first, *others in rows:
        cells = ''.join(f'<td>{escape(cell)}</td>' for cell in others)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return '\n'.join([*lines, '</table></div>'])


def summary_html(
    tumor: Mapping[str, str],
    regions: Sequence[Mapping[str, str]],
    quality: Mapping[str, str],
    *,
    user_mask: str | None,
    notes: Sequence[str] = (),
) -> str:
    """Write the summary of one patient.

    Parameters
    ----------
    tumor : row of ``desc-tumor_morph.tsv``.
    regions : rows of ``atlas-<A>_desc-tumor_morph.tsv``.
    quality : row of ``desc-qc_morph.tsv``.
    user_mask, notes : see :class:`Summary`.

    Returns
    -------
    html : a fragment.
    """
    lines = [f'<p class="lead">{escape(describe_tumor(tumor, regions))}</p>']
    lines += [f'<p class="warning" role="alert">{escape(note)}</p>' for note in notes]
    if user_mask:
        origin = (
            '<p><strong>Tumour mask: given by the user</strong>, and used in place of the '
            f'network: <code>{escape(user_mask)}</code></p>'
        )
    elif to_number(tumor['volume_mm3']) > 0:
        origin = (
            '<p><strong>Tumour mask: found by the network.</strong> No mask was given, and '
            'nobody has checked this one: look at its outline below.</p>'
        )
    else:
        origin = (
            '<p><strong>Tumour mask: the network found no tumour.</strong> No mask was given, and '
            'nobody has checked this: look for one that it missed in the pictures below.</p>'
        )
    lines.append(origin)
    lines.append('<dl class="measures">')
    for reading in describe_quality(quality):
        closer = ' <strong class="closer">Look closer.</strong>' if reading.closer else ''
        lines.append(
            f'<div><dt>{escape(reading.title)}</dt><dd><b>{escape(reading.value)}</b></dd>'
            f'<dd>{escape(reading.words)}{closer}</dd></div>'
        )
    return '\n'.join([*lines, '</dl>'])


def regions_html(regions: Sequence[Mapping[str, str]]) -> str:
    """Write the table of regions touched by the tumour, largest overlap first.

    Parameters
    ----------
    regions : rows of ``atlas-<A>_desc-tumor_morph.tsv``.

    Returns
    -------
    html : a fragment with at most ``MAX_ROWS`` regions.
    """
    touched = sort_touched(regions)
    if not touched:
        return '<p>The tumour touches no region of the atlas.</p>'
    rows = [
        (
            _name_and_words(row['name']),
            row['hemisphere'],
            f'{to_number(row["volume_mm3"]) / 1000:.2f}',
            f'{to_number(row["tumor_mm3"]) / 1000:.2f}',
            f'{to_number(row["tumor_fraction"]):.0%}',
            f'{to_number(row["reliability"]):.0%}',
        )
        for row in touched[:MAX_ROWS]
    ]
    header = ('Region', 'Side', 'Volume (ml)', 'Tumour (ml)', 'Part taken', 'Reliability')
    rest = len(touched) - len(rows)
    regions = '1 more region is' if rest == 1 else f'{rest} more regions are'
    more = f'<p>{regions} in the table on disk.</p>' if rest else ''
    return html_table(rows, header) + more


def _name_and_words(name: str) -> str:
    words = name_region(name)
    return name if words == name else f'{words} ({name})'
