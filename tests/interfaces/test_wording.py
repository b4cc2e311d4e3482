"""Sentences about every kind of tumour."""

import csv
from importlib.resources import files

import pandas as pd
import pytest

from tumorreg_wf.interfaces.wording import (
    describe_quality,
    describe_tumor,
    find_lobes,
    format_volume,
    join_words,
)
from tumorreg_wf.quality import MEASURES
from tumorreg_wf.template import load_template

LOBES = files('tumorreg_wf') / 'data' / 'atlas-Dosenbach2010_lobes.tsv'


def describe(regions=(), **changes):
    tumor = {
        'volume_mm3': '42100',
        'hemisphere': 'L',
        'midline_crossing': 'False',
        'n_components': '1',
    }
    rows = [{'name': name, 'tumor_mm3': str(volume)} for name, volume in regions]
    return describe_tumor(tumor | changes, rows)


def test_sentence():
    assert describe([('dlPFC L 24', 30000), ('ant insula L 28', 12000), ('vFC L 33', 0)]) == (
        'Left frontal and insular, 42 ml, in one part, does not cross the midline, touches '
        'left dorsolateral prefrontal cortex (30 ml) and left anterior insula (12 ml) of the '
        'atlas.'
    )


def test_regions_with_the_same_words_are_told_as_one():
    text = describe([('vmPFC L 7', 20000), ('vmPFC L 11', 3000), ('thalamus L 47', 1000)])
    assert text.endswith(
        'left ventromedial prefrontal cortex (23 ml) and left thalamus (1.0 ml) of the atlas.'
    )


def test_no_tumor():
    empty = {'volume_mm3': '0', 'hemisphere': 'n/a', 'n_components': '0'}
    assert describe(**empty) == 'No tumour: the mask is empty, and nothing was replaced.'


def test_several_components():
    assert 'in 3 separate parts' in describe(n_components='3')


def test_both_hemispheres():
    text = describe(
        [('ACC B 19', 20000), ('mPFC B 4', 20000)], hemisphere='B', midline_crossing='True'
    )
    assert text.startswith('Both hemispheres, ')
    assert 'cingulate and frontal, 42 ml' in text or 'frontal and cingulate, 42 ml' in text
    assert ', crosses the midline, ' in text


def test_no_region_touched():
    text = describe([('dlPFC L 24', 0), ('vFC L 33', 'n/a')])
    assert text == (
        'Left, 42 ml, in one part, does not cross the midline, touches no region of the atlas.'
    )


def test_many_regions():
    text = describe([(name, 1000 * size) for size, name in enumerate('abcde', 1)])
    assert text.endswith(
        'touches 5 regions of the atlas, most of all e (5.0 ml), d (4.0 ml) and c (3.0 ml).'
    )


def test_outside_the_template():
    assert describe(hemisphere='n/a').startswith('Side not known, 42 ml')


@pytest.mark.parametrize(
    ('share', 'lobes'),
    [(0.9, ['frontal']), (0.7, ['frontal', 'insular']), (0.3, ['insular', 'frontal'])],
)
def test_lobes_by_share(share, lobes):
    rows = [
        {'name': 'dlPFC L 24', 'tumor_mm3': str(share * 9000)},
        {'name': 'ant insula L 28', 'tumor_mm3': str((1 - share) * 9000)},
    ]
    assert find_lobes(rows, 10000) == lobes
    assert find_lobes(rows, 20000) == []  # most of it is not labelled


def test_other_atlases_have_no_lobes():
    assert find_lobes([{'name': 'LH_Vis_1', 'tumor_mm3': '10'}], 10) == []


def test_every_region_of_the_default_atlas_has_a_lobe(tmp_path):
    names = pd.read_csv(load_template(None, tmp_path).atlas_lut, sep='\t')['name']
    with LOBES.open(encoding='utf-8') as stream:
        rows = list(csv.DictReader(stream, delimiter='\t'))
    assert [row['name'] for row in rows] == list(names)
    assert {row['lobe'] for row in rows} == {
        *('frontal', 'parietal', 'temporal', 'occipital', 'insular', 'cingulate'),
        *('basal ganglia', 'thalamic', 'brainstem', 'cerebellar'),
    }
    sides = {'L': 'left', 'R': 'right'}
    for name, words in ((row['name'].split(), row['words'].split()) for row in rows):
        assert sides.get(name[-2]) == (words[0] if words[0] in ('left', 'right') else None)


@pytest.mark.parametrize(
    ('volume', 'text'),
    [(42100, '42 ml'), (8450, '8.4 ml'), (149, '0.1 ml'), (80, 'less than 0.1 ml')],
)
def test_volume(volume, text):
    assert format_volume(volume) == text


def test_join():
    assert [join_words(words) for words in ([], ['a'], ['a', 'b'], ['a', 'b', 'c'])] == [
        *('', 'a', 'a and b', 'a, b and c')
    ]


def read_quality(**changes):
    row = dict(zip(MEASURES, ('0.71', '0', '0.02', '0.9'), strict=True))
    return {reading.title: reading for reading in describe_quality(row | changes)}


def test_good_quality():
    readings = read_quality()
    assert [reading.value for reading in readings.values()] == ['0.71', '0', '2 %', '0.90']
    assert not any(reading.closer for reading in readings.values())


@pytest.mark.parametrize(
    ('title', 'changes', 'words'),
    [
        ('Similarity to the template', {'similarity': '0.4'}, 'check the registration'),
        ('Similarity to the template', {'similarity': 'n/a'}, 'not be measured'),
        ('Folds of the warp', {'fold_fraction': '0.002'}, 'folds in this share'),
        ('Brain replaced', {'hole_share': '0.12'}, 'less faithful'),
        ('Seam of the hole', {'seam_contrast': '2.1'}, 'edge of the hole shows'),
    ],
)
def test_doubtful_quality(title, changes, words):
    readings = read_quality(**changes)
    assert words in readings[title].words
    assert [reading.title for reading in readings.values() if reading.closer] == [title]


def test_quality_without_a_hole():
    readings = read_quality(hole_share='0', seam_contrast='n/a')
    assert readings['Brain replaced'].words == 'Nothing was replaced.'
    assert readings['Seam of the hole'].words == 'There is no hole.'
    assert not any(reading.closer for reading in readings.values())
