"""Measures of a tumour, on phantoms whose answers are known by hand."""

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.measures import (
    find_brain_notes,
    find_notes,
    measure_regions,
    measure_tumor,
    read_lut,
)

SPACING = np.array([1.0, 2.0, 3.0])  # 6 mm^3 a voxel


@pytest.fixture
def labels():
    """Region 1 fills x < 4, region 2 the rest of y < 5, region 7 one voxel."""
    labels = np.zeros((10, 10, 10), np.int16)
    labels[:4] = 1
    labels[4:, :5] = 2
    labels[9, 9, 9] = 7
    return labels


@pytest.fixture
def lut():
    return pd.DataFrame(
        {'index': [1, 2, 7, 8], 'name': ['Cortex_L', 'lh-white', 'thalamus right', 'Brain stem']}
    )


class TestRegions:
    def test_volumes_and_overlap(self, labels, lut):
        tumor = np.zeros(labels.shape, bool)
        tumor[2:6, 0:2, 0] = True  # 4 voxels in region 1, 4 in region 2
        table = measure_regions(labels, tumor, SPACING, lut, labels == 2)
        assert list(table['index']) == [1, 2, 7, 8]
        assert list(table['volume_mm3']) == [400 * 6, 300 * 6, 6, 0]
        assert list(table['tumor_mm3']) == [24, 24, 0, 0]
        np.testing.assert_allclose(table['tumor_fraction'], [4 / 400, 4 / 300, 0, np.nan])
        np.testing.assert_allclose(table['reliability'], [0, 1, 0, np.nan])

    def test_distance_is_in_mm_from_centre_to_centre(self, labels, lut):
        tumor = np.zeros(labels.shape, bool)
        tumor[9, 7, 5] = True
        table = measure_regions(labels, tumor, SPACING, lut, ~tumor)
        expected = [
            np.hypot(6, 0),  # x = 3 to 9
            6,  # y = 4 to 7, 2 mm each
            np.hypot(2 * 2, 4 * 3),
            np.nan,
        ]
        np.testing.assert_allclose(table['distance_mm'], expected)

    def test_without_tumor(self, labels, lut):
        table = measure_regions(labels, np.zeros(labels.shape, bool), SPACING, lut, labels > 0)
        assert (table['tumor_mm3'] == 0).all()
        assert table['distance_mm'].isna().all()

    def test_a_label_the_table_does_not_know(self, labels, lut):
        labels[0, 0, 0] = 300
        table = measure_regions(labels, labels == 300, SPACING, lut, labels > 0)
        assert table['tumor_mm3'].sum() == 0
        assert table['volume_mm3'][0] == 399 * 6

    def test_hemisphere_from_the_name(self, labels, lut):
        lut['name'] = ['7Networks_LH_Vis_1', 'ctx-rh-insula', 'Left Thalamus', 'Brain stem']
        table = measure_regions(labels, labels == 1, SPACING, lut, labels > 1)
        assert list(table['hemisphere']) == ['L', 'R', 'L', 'n/a']

    def test_hemisphere_of_the_table_comes_first(self, labels, lut):
        lut['hemisphere'] = ['R', 'R', 'B', 'B']
        table = measure_regions(labels, labels == 1, SPACING, lut, labels > 1)
        assert list(table['hemisphere']) == ['R', 'R', 'B', 'B']

    def test_the_background_is_no_region(self, labels, lut):
        """Many look-up tables begin with it."""
        named = pd.concat([pd.DataFrame({'index': [0], 'name': ['Background']}), lut])
        table = measure_regions(labels, labels == 1, SPACING, named, labels > 1)
        pd.testing.assert_frame_equal(
            table, measure_regions(labels, labels == 1, SPACING, lut, labels > 1)
        )


class TestTumor:
    affine = nb.affines.from_matvec(np.diag([-1, 2, 3]), [20, -10, 0])  # stored right to left
    std_affine = nb.affines.from_matvec(2 * np.eye(3), [-19, 0, 0])  # no voxel at x = 0

    def measure(self, tumor, std_tumor):
        return measure_tumor(tumor, self.affine, std_tumor, self.std_affine, 'TPL')

    def test_volume_and_centroids(self):
        tumor, std_tumor = np.zeros((2, 20, 20, 20), bool)
        tumor[4:8, 5:7, 1] = True
        std_tumor[12:14, 3, 3] = True
        row = self.measure(tumor, std_tumor)
        assert row['volume_mm3'] == pytest.approx(8 * 6)
        centroid = [row[f'centroid_{axis}'] for axis in 'xyz']
        np.testing.assert_allclose(centroid, [20 - 5.5, -10 + 2 * 5.5, 3])
        centroid = [row[f'centroid_TPL_{axis}'] for axis in 'xyz']
        np.testing.assert_allclose(centroid, [-19 + 25, 6, 6])
        assert row['hemisphere'] == 'R'
        assert row['n_components'] == 1

    # at 8 mm^3 a voxel, 500 mm^3 are 62.5 voxels
    @pytest.mark.parametrize(
        ('left', 'right', 'side'),
        [(100, 0, 'L'), (0, 100, 'R'), (100, 62, 'L'), (62, 100, 'R'), (100, 63, 'B')],
    )
    def test_side(self, left, right, side):
        std_tumor = np.zeros((20, 20, 20), bool)
        std_tumor[9].reshape(-1)[:left] = True
        std_tumor[10].reshape(-1)[:right] = True
        assert std_tumor.sum() == left + right
        row = self.measure(std_tumor, std_tumor)
        assert row['hemisphere'] == side
        assert row['midline_crossing'] is (side == 'B')

    def test_as_much_on_the_left_as_on_the_right_is_both(self):
        tumor = np.zeros((20, 20, 20), bool)
        tumor[9, 9, 9] = tumor[10, 9, 9] = True
        assert self.measure(tumor, tumor)['hemisphere'] == 'B'

    def test_one_tumor_on_each_side_does_not_cross(self):
        tumor = np.zeros((20, 20, 20), bool)
        tumor[2:7, 2:7, 2:7] = tumor[13:18, 2:7, 2:7] = True
        row = self.measure(tumor, tumor)
        assert (row['hemisphere'], row['midline_crossing'], row['n_components']) == ('B', False, 2)

    def test_components_touching_by_a_corner_are_one(self):
        tumor = np.zeros((20, 20, 20), bool)
        tumor[1, 1, 1] = tumor[2, 2, 2] = tumor[9, 9, 9] = True
        assert self.measure(tumor, tumor)['n_components'] == 2

    def test_no_tumor(self):
        row = self.measure(*np.zeros((2, 20, 20, 20), bool))
        assert row['volume_mm3'] == 0
        assert row['n_components'] == 0
        assert row['hemisphere'] is None
        assert not row['midline_crossing']
        assert np.isnan(row['centroid_x']) and np.isnan(row['centroid_TPL_z'])


class TestLookUpTable:
    def test_read(self, tmp_path, lut):
        lut.to_csv(tmp_path / 'lut.tsv', sep='\t', index=False)
        pd.testing.assert_frame_equal(read_lut(tmp_path / 'lut.tsv'), lut)

    def test_names_are_taken_as_they_are(self, tmp_path):
        names = ['NA', 'None', '"Left', 'b"', 'Area "X"', '7']
        rows = ''.join(f'{index}\t{name}\t\n' for index, name in enumerate(names, 1))
        (tmp_path / 'lut.tsv').write_text(f'index\tname\themisphere\n{rows}')
        found = read_lut(tmp_path / 'lut.tsv')
        assert found['name'].tolist() == names
        assert set(found['hemisphere']) == {'n/a'}

    @pytest.mark.parametrize(
        'text',
        [
            '', '\0\0', 'index,name\n1,a\n', 'name\na\n', 'index\n1\n', 'index\tname\n',
            'index\tname\nx\ta\n', 'index\tname\n1.5\ta\n', 'index\tname\n-1\ta\n',
            'index\tname\n1\ta\n1\tb\n', 'index\tname\n1000000000000\ta\n',
            'index\tname\n' + '9' * 30 + '\ta\n', 'index\tname\n1\ta\tb\n2\n3\tc\td\te\tf\n',
        ],
    )  # fmt: skip
    def test_what_is_none(self, tmp_path, text):
        (tmp_path / 'lut.tsv').write_text(text)
        with pytest.raises(TumorregError, match=r'lut\.tsv: this is no look-up table'):
            read_lut(tmp_path / 'lut.tsv')

    def test_bytes_of_another_kind(self, tmp_path):
        (tmp_path / 'lut.tsv').write_bytes(bytes(range(256)))
        with pytest.raises(TumorregError, match='no look-up table'):
            read_lut(tmp_path / 'lut.tsv')


def test_labels_below_zero_are_no_region(labels, lut):
    labels[0, 0, 0] = -5
    table = measure_regions(labels, labels == 1, SPACING, lut, labels > 1)
    assert table['volume_mm3'][0] == 399 * 6


@pytest.mark.parametrize(('ml', 'odd'), [(300, True), (900, False), (1900, False), (2600, True)])
def test_a_volume_no_brain_has_is_said(ml, odd):
    brain = np.zeros((30, 30, 30), bool)
    brain.flat[: ml // 9] = True  # voxels of 9 ml
    notes = find_brain_notes(brain, np.array([30.0, 20.0, 15.0]))
    assert len(notes) == odd and all(f'{ml // 9 * 9} ml' in note for note in notes)


class TestNotes:
    """Of a ball of brain, 2 mm; fluid about the middle and in a sulcus at the surface."""

    def notes(self, tumor, *, sulcus=False, dark=(), outside=0):
        where = (np.moveaxis(np.indices((60, 60, 60)), 0, -1) - 29.5) * 2.0
        depth = 55 - np.linalg.norm(where, axis=-1)
        brain = depth > 0
        tissues = np.where(depth > 8, 2, 1) * brain
        tissues[depth > 48] = 3
        if sulcus:
            tissues[brain & (np.abs(where[..., 1]) < 3) & (depth < 12)] = 3
        t1w = np.array([0.0, 60, 90, 20])[tissues]
        centre, radius = tumor
        found = brain & (np.linalg.norm(where - centre, axis=-1) < radius)
        t1w[found] = 20 if dark else 60
        if dark:  # also in the maps the tumour is what it looks like
            tissues[found] = 3
        beyond = np.argwhere(~brain)[:outside]
        found[tuple(beyond.T)] = True
        return find_notes(found, found, brain, tissues, t1w, np.full(3, 2.0))

    def said(self, words, *args, **options):
        return any(words in note for note in self.notes(*args, **options))

    def test_a_sulcus_is_no_ventricle(self):
        near = ([44, 8, 0], 6)
        assert not self.said('ventricle', near, sulcus=True)
        assert self.said('ventricle', ([14, 0, 0], 9))

    def test_dark_as_the_fluid_outside_of_it(self):
        assert self.said('as dark as fluid', ([25, 0, 0], 12), dark=True)
        assert not self.said('as dark as fluid', ([25, 0, 0], 12))

    def test_a_little_beyond_the_brain_is_not_worth_a_word(self):
        large = ([0, 0, 0], 29)  # 100 ml, 8 mm^3 a voxel
        assert not self.said('outside of the brain mask', large, outside=250)
        assert self.said('outside of the brain mask', large, outside=800)
