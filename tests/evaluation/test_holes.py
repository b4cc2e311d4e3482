"""Holes in healthy brains, and the simple ways to fill them."""

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.evaluation.fills import fill_biharmonic, fill_mean, fill_mirror
from tumorreg_wf.evaluation.holes import GRID, make_holes, on_brats_grid

ORIENTATIONS = ['RAS', 'LPS', 'PIR']


class TestGrid:
    @pytest.mark.parametrize('axcodes', ORIENTATIONS)
    def test_the_brain_is_in_the_middle(self, phantom, turned, axcodes):
        expected, _ = on_brats_grid(phantom.t1w)
        t1w, brain = on_brats_grid(turned(phantom.t1w, axcodes))
        assert t1w.shape == brain.shape == GRID
        np.testing.assert_allclose(t1w, expected, atol=1e-2)
        volume = (np.asanyarray(phantom.brain.dataobj) > 0).sum() * 8
        assert brain.sum() == pytest.approx(volume, rel=0.05)
        np.testing.assert_allclose(np.argwhere(brain).mean(0), np.array(GRID) / 2, atol=1.5)
        assert not t1w[~brain].any() and (t1w[brain] > 0).mean() > 0.99

    def test_grey_values_of_such_a_grid_stay(self):
        data = np.zeros(GRID, np.float32)
        data[40:200, 30:210, 5:150] = np.random.default_rng(0).random((160, 180, 145)) + 1
        t1w, brain = on_brats_grid(nb.Nifti1Image(data, np.eye(4)))
        np.testing.assert_array_equal(t1w[brain], data[data != 0])

    def test_of_a_tall_brain_the_top_stays(self):
        data = np.zeros((60, 60, 200), np.float32)
        data[10:50, 10:50, 10:190] = np.arange(180) + 1
        t1w, brain = on_brats_grid(nb.Nifti1Image(data, np.eye(4)))
        assert brain.sum() == 40 * 40 * 155
        assert (t1w[120, 120, 154], t1w[120, 120, 0]) == (180, 26)


@pytest.fixture(scope='module')
def brain():
    where = np.moveaxis(np.indices((100, 110, 90)), 0, -1) - (50, 55, 45)
    return ((where / (44, 50, 40)) ** 2).sum(-1) < 1


@pytest.fixture
def shapes(tmp_path):
    """Label volumes, spheres of 8 and 10 mm."""
    where = np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 20
    paths = []
    for radius in (8, 10):
        path = tmp_path / f'{radius}.nii.gz'
        labels = ((where**2).sum(-1) <= radius**2).astype(np.uint8)
        nb.Nifti1Image(labels, np.eye(4)).to_filename(path)
        paths.append(path)
    return paths


class TestHoles:
    def test_tumours_are_dilated_by_3_mm(self, brain, shapes):
        (hole,) = make_holes(brain, shapes[1:], [1.0], np.random.default_rng(0))
        assert (hole.shape, hole.number, hole.scale) == ('10', 1, 1.0)
        assert not hole.mask[~brain].any()
        assert hole.volume == hole.mask.sum() / 1000
        assert hole.volume == pytest.approx(4 / 3 * np.pi * 13**3 / 1000, rel=0.05)

    def test_scaled_before_they_are_dilated(self, brain, shapes):
        (hole,) = make_holes(brain, shapes[1:], [0.5], np.random.default_rng(0))
        assert hole.volume == pytest.approx(4 / 3 * np.pi * 8**3 / 1000, rel=0.1)

    def test_the_seed_decides(self, brain, shapes):
        one, same, other = (
            list(make_holes(brain, shapes, [1.0, 0.5, 1.0], np.random.default_rng(seed)))
            for seed in (1, 1, 2)
        )
        assert [hole.shape for hole in one] == [hole.shape for hole in same]
        for a, b in zip(one, same, strict=True):
            np.testing.assert_array_equal(a.mask, b.mask)
        assert any((a.mask != b.mask).any() for a, b in zip(one, other, strict=True))
        assert {hole.shape for hole in one + other} == {'8', '10'}

    def test_they_end_with_the_brain(self, brain, shapes):
        thin = brain.copy()
        thin[..., 52:] = thin[..., :38] = False
        (hole,) = make_holes(thin, shapes, [1.0], np.random.default_rng(0))
        assert hole.mask.any() and not hole.mask[~thin].any()


class TestFills:
    @pytest.fixture
    def symmetric(self, brain):
        """A brain that is its own mirror image, with a hole at one side."""
        texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=brain.shape), 2)
        texture[1:] += texture[:0:-1].copy()  # about x = 50
        truth = np.where(brain, 5 + texture / texture.std(), 0).astype(np.float32)
        hole = np.zeros_like(brain)
        hole[62:76, 45:60, 40:52] = True
        return truth, np.where(hole, 0, truth), hole

    def test_mean(self, symmetric, brain):
        truth, voided, hole = symmetric
        filled = fill_mean(voided, hole, brain)
        assert np.unique(filled[hole]) == pytest.approx(truth[brain & ~hole].mean())

    def test_mirror(self, symmetric, brain):
        truth, voided, hole = symmetric
        filled = fill_mirror(voided, hole, brain)
        assert np.corrcoef(filled[hole], truth[hole])[0, 1] > 0.97

    def test_mirror_does_not_copy_a_hole(self, symmetric, brain):
        truth, _, hole = symmetric
        hole = hole | hole[::-1]
        hole[20:80, 20:30, 40:52] = True
        filled = fill_mirror(np.where(hole, 0, truth), hole, brain)
        assert filled[hole].min() > 1

    def test_biharmonic_goes_on_with_a_slope(self, brain):
        x, y, _ = np.indices(brain.shape, dtype=np.float32)
        truth, hole = (x + 2 * y) / 400, np.zeros_like(brain)
        hole[45:56, 50:62, 40:43] = True
        filled = fill_biharmonic(np.where(hole, 0, truth), hole, brain)
        np.testing.assert_allclose(filled, truth, atol=1e-3)
