"""Whoever reads a methods text finds what it cites."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

import tumorreg_wf
from tumorreg_wf.reports import generate_report, write_citation
from tumorreg_wf.reports.report import add_references

SOURCE = (files('tumorreg_wf') / 'data' / 'references.md').read_text(encoding='utf-8')


def cited_by_the_package() -> set[str]:
    """Return the keys cited in the workflows' methods texts."""
    sources = Path(tumorreg_wf.__file__).parent.glob('workflows/*.py')
    return {key for path in sources for key in re.findall(r'\[@(\w+)\]', path.read_text())}


def test_citation_holds_what_is_cited_in_order(tmp_path):
    path = write_citation(tmp_path, 'Bias by N4 [@n4]. Warped by SyN [@syn], again N4 [@n4].')
    text, references = path.read_text(encoding='utf-8').split('## References')
    assert text.startswith('Bias by N4 [@n4]. Warped by SyN [@syn], again N4 [@n4].')
    assert [line[:7] for line in references.split('\n\n')[1:]] == ['[@n4] T', '[@syn] ']
    assert 'N4ITK: improved N3 bias correction' in references
    assert 'Ronneberger' not in references


def test_nothing_cited_nothing_appended():
    assert add_references('Nothing was processed.') == 'Nothing was processed.'


def test_unknown_key():
    with pytest.raises(KeyError, match='nobody'):
        add_references('As shown [@nobody].')


def test_every_key_of_the_package_has_a_reference():
    cited = cited_by_the_package()
    assert {'n4', 'syn', 'unet', 'pconv', 'nyul', 'tumorreg'} <= cited
    references = add_references(' '.join(f'[@{key}]' for key in cited))
    assert references.count('\n[@') == len(cited)


def test_every_reference_has_a_key_of_its_own_and_a_year():
    entries = re.findall(r'^\[@(\w+)\] (.+)$', SOURCE, re.MULTILINE)
    keys = [key for key, _ in entries]
    assert len(set(keys)) == len(keys) == SOURCE.count('\n[@')
    assert all(re.search(r'\b(19|20)\d\d\b', text) for key, text in entries if key != 'tumorreg')


@pytest.mark.parametrize('as_file', [True, False])
def test_report_shows_references_once(tmp_path, as_file):
    text = 'Bias by N4 [@n4].'
    path = write_citation(tmp_path, text)
    report = generate_report(
        tmp_path, '01', run_uuid='run', timings={}, errors=[], methods_md=path if as_file else text
    )
    assert report.read_text(encoding='utf-8').count('N4ITK: improved N3 bias correction') == 1
