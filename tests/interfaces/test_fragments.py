"""Fragments say what the tables say, and escape it."""

import re
from pathlib import Path

import pytest

from tumorreg_wf.interfaces.fragments import (
    MAX_ROWS,
    Provenance,
    RegionsTable,
    Summary,
    html_table,
    regions_html,
    summary_html,
)

TUMOR = {
    'volume_mm3': '8500',
    'hemisphere': 'L',
    'midline_crossing': 'False',
    'n_components': '1',
    'n_regions': '3',
}
QUALITY = {
    'similarity': '0.71',
    'fold_fraction': '0',
    'hole_share': '0.02',
    'seam_contrast': '0.9',
}


def make_regions(overlaps):
    return [
        {
            'index': str(index),
            'name': f'<region {index}>',
            'hemisphere': 'L',
            'volume_mm3': '2000',
            'tumor_mm3': str(overlap),
            'tumor_fraction': 'n/a' if overlap == 'n/a' else str(float(overlap) / 2000),
            'distance_mm': '0',
            'reliability': '0.75',
        }
        for index, overlap in enumerate(overlaps)
    ]


def test_summary():
    html = summary_html(TUMOR, make_regions([90]), QUALITY, user_mask=None, notes=['<note>'])
    assert '<p class="lead">Left, 8.5 ml' in html
    assert '&lt;region 0&gt;' in html and '<region' not in html
    assert 'role="alert">&lt;note&gt;<' in html
    assert re.findall(r'<b>([^<]+)</b>', html) == ['0.71', '0', '2 %', '0.90']
    assert 'Look closer' not in html


@pytest.mark.parametrize('mask', [None, '/data/<b>/mask.nii.gz'])
def test_whose_mask(mask):
    html = summary_html(TUMOR, [], QUALITY, user_mask=mask)
    assert ('found by the network' in html) == (mask is None)
    assert ('given by the user' in html) == (mask is not None)
    assert ('/data/&lt;b&gt;/mask.nii.gz' in html) == (mask is not None)


def test_no_tumor_is_no_outline_to_look_at():
    html = summary_html(TUMOR | {'volume_mm3': '0'}, [], QUALITY, user_mask=None)
    assert 'the network found no tumour' in html and 'outline' not in html


def test_what_is_doubtful_is_pointed_at():
    html = summary_html(TUMOR, [], QUALITY | {'fold_fraction': '0.003'}, user_mask=None)
    assert html.count('Look closer') == 1
    assert '0.3 %' in html


def test_regions():
    html = regions_html(make_regions([0, 90, 1000, 'n/a', 500]))
    assert re.findall(r'&lt;region (\d)&gt;', html) == ['2', '4', '1']
    assert '50%' in html
    assert '<region' not in html


def test_regions_are_cut():
    html = regions_html(make_regions(range(1, MAX_ROWS + 4)))
    assert html.count('&lt;region') == MAX_ROWS
    assert '3 more regions' in html


def test_no_region():
    assert 'touches no region' in regions_html(make_regions([0]))


def test_table_is_escaped():
    html = html_table([('<a>', '<b>')], ('<c>', 'd'))
    assert set(re.findall('&lt;.&gt;', html)) == {'&lt;a&gt;', '&lt;b&gt;', '&lt;c&gt;'}


def write_tsv(path, rows):
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    path.write_text(''.join('\t'.join(line) + '\n' for line in lines))
    return str(path)


def test_interfaces(tmp_path):
    def run(interface):
        return Path(interface.run(cwd=str(tmp_path)).outputs.out_file).read_text()

    regions = write_tsv(tmp_path / 'regions.tsv', make_regions([5]))
    summary = Summary(
        tumor_tsv=write_tsv(tmp_path / 'tumor.tsv', [TUMOR]),
        regions_tsv=regions,
        quality_tsv=write_tsv(tmp_path / 'quality.tsv', [QUALITY]),
    )
    assert 'found by the network' in run(summary)
    summary.inputs.user_mask = '/mine.nii.gz'
    assert '/mine.nii.gz' in run(summary)
    assert '&lt;region 0&gt;' in run(RegionsTable(in_file=regions))
    html = run(Provenance(source_file='/raw/sub-01_T1w.nii.gz', rows=[('Weights', 'unet')]))
    assert html.index('sub-01_T1w.nii.gz') < html.index('unet')
