"""Patients are put together as they are, and nothing of different spaces is mixed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.fragments import read_tsv
from tumorreg_wf.quality import MEASURES
from tumorreg_wf.reports import group
from tumorreg_wf.reports.group_page import plot_map, write_group_report
from tumorreg_wf.reports.record import Record, write_record


def write_tsv(path, row):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\t'.join(row) + '\n' + '\t'.join(map(str, row.values())) + '\n')
    path.with_suffix('.json').write_text(
        json.dumps({name: {'Description': f'what {name} is'} for name in row})
    )


def add_patient(out, label, session='', quality=None, **morph):
    """Write the tables of one T1w; give what the names of its outputs start with."""
    folder = out / f'sub-{label}' / session / 'anat'
    prefix = f'sub-{label}_{session}'.rstrip('_')
    row = {'volume_mm3': '1234.5', 'hemisphere': 'L', 'midline_crossing': 'False'}
    row |= {'n_components': 1, 'n_regions': 2} | morph
    write_tsv(folder / f'{prefix}_desc-tumor_morph.tsv', row)
    write_tsv(folder / f'{prefix}_atlas-A_desc-tumor_morph.tsv', {'index': 1})
    if quality is not None:
        row = {'similarity': 0.9, 'fold_fraction': 0, 'hole_share': 0.02, 'seam_contrast': 'n/a'}
        write_tsv(folder / f'{prefix}_desc-qc_morph.tsv', row | quality)
    return folder / prefix


def add_mask(stem, box, shape=(8, 8, 8), template='T', spacing=2.0):
    mask = np.zeros(shape, np.uint8)
    mask[box] = 1
    affine = np.diag([-spacing, spacing, spacing, 1])
    path = f'{stem}_space-{template}_'
    image = nb.Nifti1Image(mask, affine)
    image.set_sform(affine, 4)  # as of a template
    image.to_filename(f'{path}label-tumor_mask.nii.gz')
    t1w = np.full(shape, 100, np.float32)
    nb.Nifti1Image(t1w, affine).to_filename(f'{path}desc-preproc_T1w.nii.gz')
    brain = np.ones(shape, np.uint8)
    brain[:, -1] = 0  # there, it is a face
    nb.Nifti1Image(brain, affine).to_filename(f'{path}desc-brain_mask.nii.gz')


def maps_of(out, *labels):
    return group.map_tumors(group.find_tables(out, labels))


@pytest.fixture
def cohort(tmp_path):
    """Seven patients: sub-2 is not like the others, sub-10 has two sessions."""
    out = tmp_path / 'out'
    for label in ('1', '2', '3', '4', '5', '6'):
        add_patient(out, label, quality={'similarity': 0.2 if label == '2' else 0.9})
    for session in ('ses-b', 'ses-a'):
        add_patient(out, '10', session, quality={})
    return out


def test_table(cohort):
    table, dictionary = group.read_tables(group.find_tables(cohort))
    path = group.write_table(table, dictionary, cohort)
    assert path == cohort / 'group_desc-tumor_morph.tsv'
    rows = read_tsv(path)
    names = [(row['participant_id'], row['session_id']) for row in rows]
    assert names == [
        *((f'sub-{label}', 'n/a') for label in range(1, 7)),
        ('sub-10', 'ses-a'),
        ('sub-10', 'ses-b'),
    ]
    assert rows[-1]['prefix'] == 'sub-10_ses-b'
    # values are copied as they are written
    assert {row['volume_mm3'] for row in rows} == {'1234.5'}
    assert {row['midline_crossing'] for row in rows} == {'False'}
    assert [row['outlier'] for row in rows] == ['n/a', 'similarity', *['n/a'] * 6]
    described = json.loads(path.with_suffix('.json').read_text())
    assert list(described) == list(rows[0])
    assert all(meaning['Description'] for meaning in described.values())


def test_what_an_apple_leaves_beside_files(cohort, tmp_path):
    """On a disk of another system each file gets a companion, which is no text."""
    tables = group.find_tables(cohort)
    for table in tables:
        table.with_name(f'._{table.name}').write_bytes(b'\x00\x05\x16\x07\xe8')
    assert group.find_tables(cohort) == tables
    anat = tmp_path / 'bids' / 'sub-1' / 'anat'
    anat.mkdir(parents=True)
    for name in ('sub-1_T1w.nii.gz', '._sub-1_T1w.nii.gz'):
        (anat / name).touch()
    gaps = group.find_gaps(tmp_path / 'bids', cohort, tables, ['1'], [])
    assert not any('._sub' in name for names in gaps.values() for name in names)


def test_what_is_asked_for(cohort):
    def found(*labels):
        return [path.name.split('_desc')[0] for path in group.find_tables(cohort, *labels)]

    assert found(['3', '10']) == ['sub-3', 'sub-10_ses-a', 'sub-10_ses-b']
    assert found([], ['b']) == ['sub-10_ses-b']
    assert found(['1']) == ['sub-1']  # not sub-10
    with pytest.raises(TumorregError, match='no tables of patients'):
        found(['3'], ['b'])


def test_no_quality_and_other_columns(tmp_path):
    add_patient(tmp_path, '1', centroid_T_x='3.5')
    add_patient(tmp_path, '2', quality={}, centroid_U_x='4.5')
    table, _ = group.read_tables(group.find_tables(tmp_path))
    assert table['centroid_T_x'].tolist() == ['3.5', 'n/a']
    assert table['centroid_U_x'].tolist() == ['n/a', '4.5']
    assert table['similarity'].tolist() == ['n/a', '0.9']
    assert set(MEASURES) < set(table)


@pytest.mark.parametrize('text', ['', 'a\tb\n', 'a\tb\n1\n', 'a\n1\n2\n'])
def test_damaged_table(tmp_path, text):
    stem = add_patient(tmp_path, '1')
    stem.with_name('sub-1_desc-tumor_morph.tsv').write_text(text)
    with pytest.raises(TumorregError, match='sub-1_desc-tumor_morph.tsv: a table with one row'):
        group.read_tables(group.find_tables(tmp_path))


def test_frequency(tmp_path):
    """Each patient counts once, whatever the number of sessions."""
    add_mask(add_patient(tmp_path, '1'), np.s_[2:6, 2:6, 2:6])
    add_mask(add_patient(tmp_path, '2', 'ses-a'), np.s_[4:6, 2:6, 2:6])
    add_mask(add_patient(tmp_path, '2', 'ses-b'), np.s_[:0])
    (found,) = maps_of(tmp_path)
    path = group.write_map(found, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == 'tpl-T/anat/tpl-T_label-tumor_probseg.nii.gz'
    image = nb.load(path)
    data = image.get_fdata()
    assert data.shape == (8, 8, 8)
    assert np.array_equal(image.affine, np.diag([-2, 2, 2, 1]))
    assert int(image.header['sform_code']) == 4
    assert data[3, 3, 3] == pytest.approx(1 / 2)
    assert data[4, 3, 3] == pytest.approx(1 / 2 + 1 / 4)
    assert data[1, 1, 1] == 0
    sidecar = json.loads((path.parent / 'tpl-T_label-tumor_probseg.json').read_text())
    assert '2 patients' in sidecar['Description']
    first = 'bids::sub-1/anat/sub-1_space-T_label-tumor_mask.nii.gz'
    assert sidecar['Sources'][0] == first and len(sidecar['Sources']) == 3
    assert sidecar['SpatialReference'] == first
    background = found.background.get_fdata()
    assert (background[:, :-1] > 0).all() and not background[:, -1].any()


def test_faces_of_outputs_without_a_brain_mask_are_not_shown(tmp_path):
    stem = add_patient(tmp_path, '1')
    add_mask(stem, np.s_[2:5, 2:5, 2:5])
    Path(f'{stem}_space-T_desc-brain_mask.nii.gz').unlink()
    (found,) = maps_of(tmp_path)
    assert not found.background.get_fdata().any()
    assert '0 to 100% of 1 patient' in plot_map(found)


def test_one_map_per_template(tmp_path):
    for label, template in (('1', 'T'), ('2', 'U'), ('3', 'U')):
        stem = add_patient(tmp_path, label)
        add_mask(stem, np.s_[2:4, 2:4, 2:4], template=template, shape=(6 + ord(template) % 2,) * 3)
    assert [(found.template, found.patients) for found in maps_of(tmp_path)] == [
        ('T', 1),
        ('U', 2),
    ]
    assert {float(found.frequency.get_fdata().max()) for found in maps_of(tmp_path)} == {1}


@pytest.mark.parametrize('other', [{'shape': (9, 8, 8)}, {'spacing': 3.0}])
def test_grids_are_not_mixed(tmp_path, other):
    add_mask(add_patient(tmp_path, '1'), np.s_[2:4, 2:4, 2:4])
    add_mask(add_patient(tmp_path, '2'), np.s_[2:4, 2:4, 2:4], **other)
    with pytest.raises(TumorregError, match='sub-2.*differs from that of .*sub-1'):
        maps_of(tmp_path)
    assert len(maps_of(tmp_path, '1')) == 1


def test_gaps(tmp_path):
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    for name in (
        'sub-1/anat/sub-1',
        'sub-2/ses-a/anat/sub-2_ses-a',
        'sub-2/ses-b/anat/sub-2_ses-b',
    ):
        path = bids / f'{name}_T1w.nii.gz'
        path.parent.mkdir(parents=True)
        path.touch()
    (bids / 'sub-3' / 'anat').mkdir(parents=True)
    (bids / 'sub-3/anat/sub-3_ce-gadolinium_T1w.nii.gz').touch()
    (bids / 'sub-1/anat/sub-1_part-phase_T1w.nii.gz').touch()
    add_mask(add_patient(out, '1', quality={}), np.s_[:1])
    add_patient(out, '2', 'ses-a')

    def gaps(participants=(), sessions=()):
        tables = group.find_tables(out, participants, sessions)
        return group.find_gaps(bids, out, tables, participants, sessions)

    (out / 'logs').mkdir()
    write_record(out, '2', Record('a run'))
    unfinished = 'last run not finished, results of an earlier one'
    assert gaps() == {
        unfinished: ['sub-1'],
        'no T1w in the dataset': ['sub-3'],
        'no derivatives': ['sub-2_ses-b'],
        'no table of quality (desc-qc_morph.tsv)': ['sub-2_ses-a'],
        'no tumour mask in template space': ['sub-2_ses-a'],
    }
    assert gaps(['1']) == {unfinished: ['sub-1']}
    write_record(out, '1', replace(Record('a run'), finished=False))
    assert gaps(['1']) == {unfinished: ['sub-1']}
    # a participant was taken out of the dataset
    shutil.rmtree(bids / 'sub-1')
    assert gaps()['results of what is not in the dataset'] == ['sub-1']
    # --session-label looks at that session alone; nobody in it has a mask
    assert gaps(['2'], ['a']) == {'no table of quality (desc-qc_morph.tsv)': ['sub-2_ses-a']}


def write_page(out, gaps=None):
    tables = group.find_tables(out)
    table, _ = group.read_tables(tables)
    path = write_group_report(
        out, table, group.map_tumors(tables), gaps, 'tumorreg <in> out group'
    )
    assert path == out / 'group.html'
    return path.read_text(encoding='utf-8')


def test_page(cohort):
    (cohort / 'sub-2.html').touch()
    html = write_page(cohort, gaps={'no derivatives': ['sub-<b>']})
    sections = re.findall(r'<section id="(\w+)">', html)
    assert sections == ['Summary', 'Missing', 'Tumours', 'Quality', 'Patients', 'About']
    assert set(re.findall(r'href="\./([^"]+)"', html)) == {'sub-2.html'}  # the others have none
    assert 'role="alert">These stand out' in html and '(similarity)' in html
    assert html.count('fill="var(--warn)"') == 1
    assert html.count('<circle') == 3 * 8  # the seam was not measured
    assert 'sub-&lt;b&gt;' in html and '&lt;in&gt;' in html
    for session in ('ses-a', 'ses-b'):  # rows of one patient can be told apart
        assert html.count(f'<tr><th scope="row">sub-10_{session}<') == 1


def test_page_takes_volumes_of_those_with_a_tumour(tmp_path):
    for label, volume in (('1', 1000), ('2', 3000), ('3', 0)):
        add_patient(tmp_path, label, volume_mm3=volume)
    html = write_page(tmp_path)
    assert 'median 2.0 ml, up to 3.0 ml, where there is a tumour' in html


def test_page_needs_no_network(cohort):
    add_mask(cohort / 'sub-1' / 'anat' / 'sub-1', np.s_[2:5, 2:5, 2:5])
    html = write_page(cohort)
    assert not re.findall(r'(?:src|href)="(?!#|data:|\./)', html)
    assert 'aria-label="Tumour frequency in T. Slices at z' in html
    assert 'Missing' not in html
    assert html.count('class="picture"') == 1  # black ground; the strips of dots need the page's


def test_page_of_few(tmp_path):
    add_patient(tmp_path, '1', volume_mm3=0, hemisphere='n/a')
    html = write_page(tmp_path)
    assert 'not looked for' in html
    assert 'No tumour mask is in template space' in html
    assert html.count('Not measured') == 4


@pytest.mark.parametrize('box', [np.s_[2:5, 2:5, 2:5], np.s_[:0]])
def test_map_is_drawn(tmp_path, box):
    add_mask(add_patient(tmp_path, '1'), box)
    (found,) = maps_of(tmp_path)
    svg = plot_map(found)
    tumor = found.frequency.get_fdata().any()
    assert ('0 to 100% of 1 patient' in svg) == tumor
    assert ('no tumour' in svg) != tumor
