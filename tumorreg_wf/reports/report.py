"""Put the figures of a subject together on one page, with how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import yaml

from tumorreg_wf.failures import Failure, read_crash
from tumorreg_wf.interfaces.fragments import html_table
from tumorreg_wf.reports.page import Part, Section, copyable, render_page
from tumorreg_wf.reports.record import Record
from tumorreg_wf.reports.references import complete_methods, software_versions, write_bibtex


def generate_report(
    out_dir: str | Path,
    subject: str,
    record: Record,
    *,
    failure: Failure | None = None,
    errors: Sequence[str | Path] = (),
) -> Path:
    """Write the report of one subject from the figures in ``sub-X/figures``.

    Parameters
    ----------
    out_dir : root of the derivatives.
    subject : label, without ``sub-``.
    record : how the derivatives came about.
    failure : why this subject failed; None if it did not.
    errors : crash files of this subject (text). With them, or a failure, the report opens on the
        errors; it is written also where there is no figure.

    Returns
    -------
    path : ``<out_dir>/sub-X.html``; figures are in it, and it opens without a network.
    """
    out_dir = Path(out_dir).absolute()
    sections = []
    if errors or failure:
        sections.append(Section('Errors', [Part(errors_html(errors, failure))]))
    sections += find_sections(out_dir / f'sub-{subject}' / 'figures')
    methods = complete_methods(record.text)
    parts = [Part(copyable(methods, 'methods'), 'Methods, in words for a paper')]
    if bibtex := write_bibtex(methods):
        parts.append(Part(copyable(bibtex, 'BibTeX'), 'References as BibTeX'))
    sections.append(Section('Methods', parts))
    sections.append(Section('About', about_parts(record)))
    path = out_dir / f'sub-{subject}.html'
    return render_page(path, f'tumorreg: sub-{subject}', sections)


def find_sections(figures: Path) -> list[Section]:
    """Sort the figures and texts of a subject into sections; those of each T1w together.

    Parameters
    ----------
    figures : folder; it need not exist.

    Returns
    -------
    sections : as ``data/reports-spec.yml`` lists them. Where there are several T1w, their names
        begin with what tells the T1w apart.
    """
    spec = yaml.safe_load((files('tumorreg_wf') / 'data' / 'reports-spec.yml').read_text())
    descs = [part['desc'] for section in spec for part in section['parts']]
    found = [path for desc in descs for path in figures.glob(f'sub-*_desc-{desc}_T1w.*')]
    stems = sorted({path.name.split('_desc-')[0] for path in found})
    sections = []
    for stem in stems:
        label = stem.partition('_')[2].replace('_', ' ') or 'T1w'
        for section in spec:
            parts = [
                Part(path.read_text(encoding='utf-8'), part.get('title', ''), part.get('text', ''))
                for part in section['parts']
                for path in figures.glob(f'{stem}_desc-{part["desc"]}_T1w.*')
            ]
            name = section['name'] if len(stems) == 1 else f'{label}: {section["name"]}'
            if parts:
                sections.append(Section(name, parts))
    return sections


def about_parts(record: Record) -> list[Part]:
    """Tell versions, command line and time of a run; all text is escaped."""
    parts = [
        Part(html_table([*software_versions().items(), ('Run', record.run)]), 'Versions'),
        *(
            Part(f'<pre tabindex="0">{escape(command)}</pre>', 'Command line')
            for command in dict.fromkeys(record.commands.values())
        ),
    ]
    if record.timings:
        rows = [(stage, format_seconds(seconds)) for stage, seconds in record.timings.items()]
        rows.append(('sum of all stages', format_seconds(sum(record.timings.values()))))
        parts.append(Part(html_table(rows), 'Time per stage'))
    return parts


def errors_html(crash_files: Sequence[str | Path], failure: Failure | None) -> str:
    """List crash files, each with the reason, what to do, and the traceback; text is escaped.

    Where there are none, the failure is told.
    """
    count = len(crash_files)
    steps = '1 step failed' if count == 1 else f'{count} steps failed' if count else 'It failed'
    parts = [f'<p class="warning" role="alert">{steps}: results are not complete.</p>']
    if failure and not crash_files:
        parts.append(f'<p>{escape(failure.reason)} What is shown may be of an earlier run.</p>')
    for path in map(Path, crash_files):
        text = path.read_text(encoding='utf-8', errors='replace')
        first = text.partition('\n')[0]
        node = first.removeprefix('Node: ') if first.startswith('Node: ') else path.name
        at = max(text.find('Traceback (most recent call last)'), 0)
        failure = read_crash(path)
        parts.append(
            f'<p>{escape(failure.reason)} {escape(failure.advice)}</p>'
            f'<details><summary>{escape(node)}</summary>'
            f'<p><small>{escape(str(path))}</small></p><pre>{escape(text[at:])}</pre></details>'
        )
    return '\n'.join(parts)


def format_seconds(seconds: float) -> str:
    """Write a duration as people do: ``4.2 s``, ``3 min 05 s``."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s'
