"""Whoever reads a methods text finds what it cites."""

import re
from pathlib import Path

import pytest

import tumorreg_wf
from tumorreg_wf import __version__
from tumorreg_wf.reports import references, write_citation
from tumorreg_wf.reports.references import (
    complete_methods,
    format_reference,
    read_references,
    write_bibtex,
)


def cited_by_the_package() -> set[str]:
    """Return the keys cited in the workflows' methods texts."""
    sources = Path(tumorreg_wf.__file__).parent.glob('workflows/*.py')
    return {key for path in sources for key in re.findall(r'\[@(\w+)\]', path.read_text())}


def test_citation_holds_what_is_cited_in_order(tmp_path):
    text = 'Bias by N4 [@n4]. Warped by SyN [@syn], again N4 [@n4].'
    path = write_citation(tmp_path, {'01': text, '02': text})
    assert path == tmp_path / 'logs' / 'CITATION.md'
    text, found = path.read_text(encoding='utf-8').split('## References')
    assert text.startswith('Bias by N4 [@n4]. Warped by SyN [@syn], again N4 [@n4]. Versions: ')
    assert f'tumorreg {__version__}, Python 3.' in text
    assert re.findall(r'^\[@(\w+)\]', found, re.MULTILINE) == ['n4', 'syn', 'ants', 'pytorch']
    assert 'N4ITK: improved N3 bias correction' in found
    assert 'Ronneberger' not in found


def test_citation_says_whose_methods_differ(tmp_path):
    methods = {'sub-01': 'By hand.', 'sub-02': 'By SyN [@syn].', 'sub-03': 'By hand.'}
    text = write_citation(tmp_path, methods).read_text(encoding='utf-8')
    assert text.startswith('sub-01, sub-03: By hand.\n\nsub-02: By SyN [@syn]. Versions: ')
    assert text.count('## References') == 1


def test_nothing_cited_nothing_appended():
    assert complete_methods('Nothing was processed.') == 'Nothing was processed.'
    assert write_bibtex('Nothing was processed.') == ''


def test_unknown_key():
    with pytest.raises(KeyError, match='nobody'):
        complete_methods('As shown [@nobody].')


def test_every_key_of_the_package_has_a_reference():
    cited = cited_by_the_package()
    assert {'n4', 'syn', 'unet', 'pconv', 'nyul', 'tumorreg'} <= cited
    assert cited <= set(read_references())
    assert set(read_references()) - cited <= {'ants', 'pytorch'}  # cited with the versions


def parse_bibtex(text):
    """Parse BibTeX strictly: entries of fields in balanced braces and nothing else."""
    entries, rest = {}, text.strip()
    while rest:
        head = re.match(r'@(\w+)\{(\w+),\s*', rest)
        fields, rest = {'type': head[1]}, rest[head.end() :]
        while not rest.startswith('}'):
            name = re.match(r'(\w+)\s*=\s*\{', rest)
            depth, at = 1, name.end()
            while depth:
                depth += {'{': 1, '}': -1}.get(rest[at], 0)
                at += 1
            assert name[1] not in fields
            fields[name[1]] = rest[name.end() : at - 1]
            rest = re.sub(r'^\s*,?\s*', '', rest[at:])
        assert head[2] not in entries
        entries[head[2]] = fields
        rest = rest[1:].strip()
    return entries


def test_bibtex_parses():
    keys = list(read_references())
    entries = parse_bibtex(write_bibtex(' '.join(f'[@{key}]' for key in keys)))
    assert list(entries) == keys
    needed = {
        'article': {'author', 'title', 'journal', 'volume', 'year', 'doi'},
        'inproceedings': {'author', 'title', 'booktitle', 'year'},
        'misc': {'author', 'title'},
    }
    for fields in entries.values():
        assert needed[fields['type']] <= set(fields)
        assert re.fullmatch(r'10\.\d{4,}/\S+', fields.get('doi', '10.1234/none'))
        assert 1980 < int(fields.get('year', 2000)) < 2100


def test_reference_for_people():
    assert format_reference(read_references()['nyul2000']) == (
        'Nyúl LG, Udupa JK, Zhang X. New variants of a method of MRI scale standardization. '
        'IEEE Transactions on Medical Imaging 19(2):143-150, 2000. doi:10.1109/42.836373'
    )
    for entry in read_references().values():
        assert not re.search(r'[{}\\]|--| and others', format_reference(entry))


def test_native_ants_tells_its_version(tmp_path, monkeypatch):
    program = tmp_path / 'antsRegistration'
    program.write_text('#!/bin/sh\necho "ANTs Version: 2.6.2"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    references.software_versions.cache_clear()
    try:
        assert references.software_versions()['ANTs'] == f'2.6.2, {program}'
    finally:
        references.software_versions.cache_clear()
