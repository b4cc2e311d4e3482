"""What to write and cite in a paper: the methods text, versions, references and BibTeX."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from tumorreg_wf import __version__
from tumorreg_wf.files import write_text
from tumorreg_wf.provenance import native_ants
from tumorreg_wf.reports.record import share_texts


def write_citation(out_dir: str | Path, methods: Mapping[str, str]) -> Path:
    """Write methods with versions and references to ``<out_dir>/logs/CITATION.md``.

    Parameters
    ----------
    methods : text by label of a T1w; one that many share is there once, with their labels.
    """
    path = Path(out_dir) / 'logs' / 'CITATION.md'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, complete_methods(share_texts(methods)))
    return path


def complete_methods(text: str) -> str:
    """Append versions and references to a text that cites as ``[@key]``; others stay as they are.

    Raises
    ------
    KeyError
        If the text cites what has no reference.
    """
    if not find_keys(text):
        return text
    text = f'{text.rstrip()} {versions_sentence()}'
    references = '\n\n'.join(
        f'[@{key}] {format_reference(read_references()[key])}' for key in find_keys(text)
    )
    return f'{text}\n\n## References\n\n{references}\n'


def find_keys(text: str) -> list[str]:
    """Find what a text cites, in order."""
    return list(dict.fromkeys(re.findall(r'\[@(\w+)\]', text)))


def versions_sentence() -> str:
    """Name the software in a sentence."""
    found = software_versions()
    return (
        f'Versions: tumorreg {found["tumorreg"]}, Python {found["Python"]}, '
        f'Nipype {found["Nipype"]}, ANTs ({found["ANTs"]}) [@ants], greedy ({found["greedy"]}), '
        f'PyTorch {found["PyTorch"]} [@pytorch].'
    )


@cache
def software_versions() -> dict[str, str]:
    """Find the versions of what computes."""
    packages = {'Nipype': 'nipype', 'niworkflows': 'niworkflows', 'PyTorch': 'torch'}
    packages |= {'nibabel': 'nibabel', 'nilearn': 'nilearn', 'NumPy': 'numpy', 'SciPy': 'scipy'}
    return {
        'tumorreg': __version__,
        'Python': platform.python_version(),
        'ANTs': native_ants() or f'antspyx {find_version("antspyx")}',
        'greedy': f'picsl_greedy {find_version("picsl_greedy")}',
    } | {name: find_version(package) for name, package in packages.items()}


def find_version(package: str) -> str:
    """Tell the version of a package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return 'not installed'


@cache
def read_references() -> dict[str, str]:
    """Read the BibTeX entries of ``data/references.bib``, by key."""
    source = (files('tumorreg_wf') / 'data' / 'references.bib').read_text(encoding='utf-8')
    entries = re.finditer(r'^@\w+\{(\w+),\n.*?^\}', source, re.MULTILINE | re.DOTALL)
    return {entry[1]: entry[0] for entry in entries}


def write_bibtex(text: str) -> str:
    """Give the BibTeX entries of what a text cites."""
    return '\n\n'.join(read_references()[key] for key in find_keys(text))


def format_reference(entry: str) -> str:
    """Write a BibTeX entry as people read it."""
    fields = dict(re.findall(r'^  (\w+) = \{(.*)\},?$', entry, re.MULTILINE))
    fields = {name: _plain(value) for name, value in fields.items()}
    authors = fields['author'].replace(', ', ' ').replace(' and others', ', et al')
    parts = [authors.replace(' and ', ', '), fields['title']]
    place = fields.get('journal') or fields.get('booktitle')
    if place:
        series = f', {fields["series"]}' if 'series' in fields else ''
        number = f'({fields["number"]})' if 'number' in fields else ''
        pages = f':{fields["pages"]}' if 'pages' in fields else ''
        parts.append(f'{place}{series} {fields["volume"]}{number}{pages}, {fields["year"]}')
    parts += [fields['note']] if 'note' in fields else []
    doi = f' doi:{fields["doi"]}' if 'doi' in fields else ''
    return f'{". ".join(parts)}.{doi}'


def _plain(text: str) -> str:
    """Take the marks of TeX off a text."""
    return text.replace("{\\'u}", 'ú').replace('--', '-').replace('{', '').replace('}', '')
