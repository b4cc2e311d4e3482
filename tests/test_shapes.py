"""Tumour label volumes that lend their shapes."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.shapes import deep_voxels, find_shapes, name_of, place_shape, read_shape


@pytest.fixture
def folder(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:18, 12:24, 8:28] = 1
    labels[12:16, 14:20, 10:20] = 3
    for number in (1, 2, 3):
        nb.Nifti1Image(labels * (number < 3), np.eye(4)).to_filename(tmp_path / f'{number}.nii.gz')
    return tmp_path


def test_by_name_and_range(folder):
    assert [path.name for path in find_shapes(folder)] == ['1.nii.gz', '2.nii.gz', '3.nii.gz']
    assert [path.name for path in find_shapes(folder, slice(1, 2))] == ['2.nii.gz']
    with pytest.raises(TumorregError, match='none in this range'):
        find_shapes(folder, slice(7, 9))


def test_dots_are_part_of_a_name(tmp_path):
    assert name_of(tmp_path / 'sub-01.v2.nii.gz') == 'sub-01.v2'


@pytest.mark.parametrize(('spacing', 'expected'), [(1, (8, 12, 20)), (2, (4, 6, 10))])
def test_cropped_labels(folder, spacing, expected):
    shape = read_shape(folder / '1.nii.gz', spacing=spacing)
    assert shape.dtype == np.uint8 and set(np.unique(shape)) == {1, 3}
    np.testing.assert_allclose(shape.shape, expected, atol=1)


def test_empty_volumes_are_refused(folder):
    with pytest.raises(TumorregError, match=r'3\.nii\.gz: no tumour'):
        read_shape(folder / '3.nii.gz', spacing=1)


class TestPlaceShape:
    @pytest.fixture
    def brain(self):
        where = np.indices((30, 34, 28)) - np.array([15, 17, 14])[:, None, None, None]
        return np.sqrt((where**2).sum(0)) < 12

    @pytest.mark.parametrize('size', [(1, 1, 1), (5, 8, 3), (20, 40, 29)])
    def test_inside_the_brain_whatever_the_size(self, brain, size):
        for seed in range(20):
            placed = place_shape(
                np.full(size, 2, np.uint8), brain, deep_voxels(brain), np.random.default_rng(seed)
            )
            assert placed.shape == brain.shape and placed.dtype == np.uint8
            assert placed.any()
            assert not placed[~brain].any()
            assert set(np.unique(placed)) <= {0, 2}

    def test_deep_voxels_are_away_from_the_edge(self, brain):
        where = deep_voxels(brain) - (15, 17, 14)
        assert 6 < np.linalg.norm(where, axis=1).max() < 9
        assert brain[tuple(deep_voxels(brain).T)].all()

    def test_a_small_shape_is_kept_whole_up_to_mirroring(self, brain):
        shape = np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4)
        turns = [shape, shape[::-1], shape[:, ::-1], shape[::-1, ::-1]]
        seen = set()
        for seed in range(20):
            placed = place_shape(shape, brain, deep_voxels(brain), np.random.default_rng(seed))
            low = np.argwhere(placed).min(0)
            block = placed[tuple(slice(a, a + n) for a, n in zip(low, shape.shape))]
            found = [k for k, turn in enumerate(turns) if np.array_equal(block, turn)]
            assert len(found) == 1
            seen.add(found[0])
        assert seen == {0, 1, 2, 3}
