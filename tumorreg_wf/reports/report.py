"""Put the figures of a subject together on one page, with how they came about."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path

from nireports.assembler.report import Report

from tumorreg_wf import __version__
from tumorreg_wf.interfaces.reports import html_table


def generate_report(
    out_dir: str | Path,
    subject: str,
    *,
    run_uuid: str,
    timings: Mapping[str, float],
    errors: Sequence[str | Path],
    methods_md: str | Path,
) -> Path:
    """Write the report of one subject from the figures in ``sub-X/figures``.

    Parameters
    ----------
    out_dir : root of the derivatives.
    subject : label, without ``sub-``.
    run_uuid : names the run.
    timings : seconds by stage.
    errors : crash files of this subject (text). With them the report opens on the errors; it is
        written also where there is no figure.
    methods_md : the methods text, or the file :func:`write_citation` made of it.

    Returns
    -------
    path : ``<out_dir>/sub-X.html``; it opens without a network.
    """
    out_dir = Path(out_dir).absolute()
    figures = out_dir / f'sub-{subject}' / 'figures'
    figures.mkdir(parents=True, exist_ok=True)
    if isinstance(methods_md, Path):
        methods_md = methods_md.read_text(encoding='utf-8')
    else:
        methods_md = add_references(methods_md)

    about = about_html(run_uuid=run_uuid, timings=timings, methods=methods_md)
    (figures / f'sub-{subject}_desc-about_T1w.html').write_text(about, encoding='utf-8')
    errors_file = figures / f'sub-{subject}_desc-errors_T1w.html'
    errors_file.unlink(missing_ok=True)
    if errors:
        errors_file.write_text(errors_html(errors), encoding='utf-8')

    data = files('tumorreg_wf') / 'data'
    with as_file(data / 'reports-spec.yml') as spec, as_file(data / 'report.tpl') as page:
        report = Report(
            out_dir,
            run_uuid,
            bootstrap_file=spec,
            out_filename=f'sub-{subject}.html',
            reportlets_dir=figures,
            subject=subject,
        )
        report.template_path = page
        report.generate_report()
    return report.out_filename


def about_html(*, run_uuid: str, timings: Mapping[str, float], methods: str) -> str:
    """Write versions, command line, timings and methods; all text is escaped."""
    native = shutil.which('antsRegistration')
    software = [
        ('tumorreg', __version__),
        ('Python', platform.python_version()),
        ('ANTs', f'native programs, {native}' if native else f'antspyx {find_version("antspyx")}'),
        *((name, find_version(name.lower())) for name in ('Nipype', 'NiReports', 'torch')),
        ('Run', run_uuid),
    ]
    parts = ['<h3>Versions</h3>', html_table(software)]
    parts += ['<h3>Command line</h3>', f'<pre>{escape(shlex.join(sys.argv))}</pre>']
    if timings:
        rows = [(stage, format_seconds(seconds)) for stage, seconds in timings.items()]
        rows.append(('sum of all stages', format_seconds(sum(timings.values()))))
        parts += ['<h3>Time per stage</h3>', html_table(rows)]
    parts += ['<h3>Methods</h3>', f'<pre>{escape(methods)}</pre>']
    return '\n'.join(parts)


def errors_html(crash_files: Sequence[str | Path]) -> str:
    """List crash files, each with its node and traceback; all text is escaped."""
    count = len(crash_files)
    steps = '1 step' if count == 1 else f'{count} steps'
    parts = [f'<p class="warning" role="alert">{steps} failed: results are not complete.</p>']
    for path in map(Path, crash_files):
        text = path.read_text(encoding='utf-8', errors='replace')
        first = text.partition('\n')[0]
        node = first.removeprefix('Node: ') if first.startswith('Node: ') else path.name
        at = max(text.find('Traceback (most recent call last)'), 0)
        parts.append(
            f'<details><summary>{escape(node)}</summary>'
            f'<p><small>{escape(str(path))}</small></p><pre>{escape(text[at:])}</pre></details>'
        )
    return '\n'.join(parts)


def add_references(text: str) -> str:
    """Append the references that a text cites as ``[@key]``, from ``data/references.md``.

    Raises
    ------
    KeyError
        If the text cites what has no reference.
    """
    source = (files('tumorreg_wf') / 'data' / 'references.md').read_text(encoding='utf-8')
    entries = dict(re.findall(r'^\[@(\w+)\] (.+)$', source, re.MULTILINE))
    cited = dict.fromkeys(re.findall(r'\[@(\w+)\]', text))
    if not cited:
        return text
    references = '\n\n'.join(f'[@{key}] {entries[key]}' for key in cited)
    return f'{text.rstrip()}\n\n## References\n\n{references}\n'


def write_citation(out_dir: str | Path, text: str) -> Path:
    """Write the methods text, with the references it cites, to ``<out_dir>/logs/CITATION.md``."""
    path = Path(out_dir) / 'logs' / 'CITATION.md'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(add_references(text), encoding='utf-8')
    return path


def find_version(package: str) -> str:
    """Tell the version of a package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return 'not installed'


def format_seconds(seconds: float) -> str:
    """Write a duration as people do: ``4.2 s``, ``3 min 05 s``."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s'
