"""Measures against answers known in advance."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity

from tumorreg_wf.evaluation.metrics import (
    SSIM,
    compare_fill,
    compare_masks,
    dice,
    grey_range,
    hausdorff95,
    psnr,
    scale_grey,
)

MM = np.ones(3)


def cube(shape, start, size):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size))] = True
    return mask


def sphere(shape, centre, radius):
    where = np.moveaxis(np.indices(shape), 0, -1) - centre
    return (where**2).sum(-1) <= radius**2


class TestMasks:
    @pytest.mark.parametrize('shift', [0, 2, 5, 10])
    def test_shifted_cubes(self, shift):
        one = cube((30, 30, 30), (5, 5, 5), (10, 10, 10))
        other = np.roll(one, shift, axis=1)
        spacing = np.array([1.0, 2.0, 0.5])
        assert dice(one, other) == pytest.approx(1 - shift / 10)
        # the far face is a fifth of the surface, more than the 5 % that are left out
        assert hausdorff95(one, other, spacing) == pytest.approx(2.0 * shift)

    @pytest.mark.parametrize('shift', [(3, 0, 0), (2, 4, 1), (12, 0, 3)])
    def test_shifted_spheres_against_all_distances(self, shift):
        spacing = np.array([1.0, 0.8, 2.5])
        one = sphere((40, 36, 30), (14, 14, 12), 8)
        other = sphere((40, 36, 30), np.add((14, 14, 12), shift), 7)
        surfaces = []
        for mask in (one, other):
            faces = [mask & ~np.roll(mask, step, axis) for axis in range(3) for step in (-1, 1)]
            surfaces.append(np.argwhere(np.any(faces, axis=0)) * spacing)
        apart = cdist(*surfaces)
        expected = max(
            np.percentile(apart.min(1), 95),
            np.percentile(apart.min(0), 95),
        )
        assert hausdorff95(one, other, spacing) == pytest.approx(expected, rel=1e-6)
        assert hausdorff95(other, one, spacing) == pytest.approx(expected, rel=1e-6)

    def test_empty_masks(self):
        none, some = np.zeros((30, 40, 20), bool), cube((30, 40, 20), (5, 5, 5), (3, 3, 3))
        assert (dice(none, none), hausdorff95(none, none, MM)) == (1, 0)
        assert (dice(some, none), dice(none, some)) == (0, 0)
        diagonal = np.sqrt(60**2 + 40**2 + 20**2)
        assert hausdorff95(none, some, np.array([2, 1, 1])) == pytest.approx(diagonal)

    def test_volumes(self):
        reference = cube((30, 30, 30), (5, 5, 5), (10, 10, 10))
        found = cube((30, 30, 30), (5, 5, 5), (10, 10, 15))
        row = compare_masks(found, reference, np.array([1.0, 2.0, 3.0]))
        assert (row['reference_ml'], row['found_ml']) == pytest.approx((6, 9))
        assert row['volume_error_ml'] == row['false_positive_ml'] == pytest.approx(3)
        assert row['volume_error_relative'] == pytest.approx(0.5)
        assert row['dice'] == pytest.approx(2 * 1000 / 2500)

    def test_lesions_are_counted_from_the_smallest_volume_on(self):
        shape = (60, 20, 20)
        reference = cube(shape, (2, 2, 2), (6, 6, 6)) | cube(shape, (8, 8, 8), (4, 4, 4))
        reference |= cube(shape, (30, 5, 5), (5, 5, 5)) | cube(shape, (50, 5, 5), (4, 4, 4))
        # touching by a corner the first two are one; the last, of 64 mm3, is none
        found = cube(shape, (7, 7, 7), (1, 1, 1))  # a voxel of the first is enough
        found |= cube(shape, (40, 5, 5), (5, 5, 5))  # nothing there
        found |= cube(shape, (55, 15, 15), (4, 4, 4))  # nothing there, but too small
        row = compare_masks(found, reference, MM)
        assert (row['lesions'], row['lesion_recall'], row['false_positives']) == (2, 0.5, 1)

    def test_one_lesion_found_beside_its_place(self):
        lesion = cube((20, 20, 20), (5, 5, 5), (6, 6, 6))
        row = compare_masks(np.roll(lesion, 3, axis=0), lesion, MM)
        assert (row['lesions'], row['lesion_recall'], row['false_positives']) == (1, 1, 0)

    def test_nothing_to_find(self):
        found = cube((20, 20, 20), (5, 5, 5), (5, 5, 8))
        row = compare_masks(found, np.zeros_like(found), MM)
        assert row['false_positive_ml'] == pytest.approx(0.2) and row['false_positives'] == 1
        assert np.isnan(row['lesion_recall']) and np.isnan(row['volume_error_relative'])


@pytest.fixture
def halves():
    """An image of 0 and 100, and a hole in the bright half."""
    truth = np.zeros((40, 40, 30))
    truth[20:] = 100
    return truth, cube(truth.shape, (26, 10, 8), (8, 12, 10))


class TestFills:
    def test_the_truth_is_perfect(self, halves):
        truth, hole = halves
        truth = truth + np.random.default_rng(0).normal(size=truth.shape)
        row = compare_fill(truth, truth, hole)
        assert row['mse'] == 0 and row['psnr'] == row['slice_psnr'] == np.inf
        assert row['ssim'] == row['slice_ssim'] == row['continuity'] == pytest.approx(1)

    def test_a_constant_fill(self, halves):
        truth, hole = halves
        row = compare_fill(np.where(hole, 50, truth), truth, hole)
        assert row['mse'] == pytest.approx(0.25)
        assert row['psnr'] == pytest.approx(-10 * np.log10(0.25))
        assert row['slice_psnr'] == pytest.approx(-10 * np.log10(0.25 * 8 * 12 / 40**2))

    def test_a_truth_that_does_not_change_from_slice_to_slice(self, halves):
        truth, hole = halves
        truth = truth + np.arange(len(truth))[:, None, None]
        noisy = truth + hole * np.random.default_rng(0).normal(size=truth.shape)
        assert np.isnan(compare_fill(noisy, truth, hole)['continuity'])

    def test_slices_without_any_error_are_left_out(self, halves):
        truth, hole = halves
        filled = np.where(hole, 50, truth)
        expected = compare_fill(filled, truth, hole)['slice_psnr']
        filled[..., 8:12] = truth[..., 8:12]
        assert compare_fill(filled, truth, hole)['slice_psnr'] == pytest.approx(expected)

    def test_grey_values_are_clipped(self, halves):
        truth, hole = halves
        assert compare_fill(np.where(hole, 700, truth), truth, hole)['mse'] == 0

    def test_the_scale_does_not_see_the_hole(self, halves):
        truth, hole = halves
        row = compare_fill(np.where(hole, 50, truth), np.where(hole, 1e6, truth), hole)
        assert row['mse'] == pytest.approx(0.25)

    def test_scale(self):
        voided = np.linspace(-10, 100, 1001)
        low, high = 0, -10 + 110 * 0.995
        assert grey_range(voided) == pytest.approx((low, high))
        scaled = scale_grey(np.array([-5, 0, high / 2, high, 200]), (low, high))
        np.testing.assert_allclose(scaled, [0, 0, 0.5, 1, 1], atol=1e-6)

    def test_similarity_is_that_of_wang(self):
        """Wang et al. 2004: a Gaussian of 1.5 voxels, and no correction for the sample."""
        assert SSIM == {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}

    def test_similarity_is_that_of_the_whole_image(self):
        rng = np.random.default_rng(0)
        truth, hole = rng.random((50, 48, 46)), cube((50, 48, 46), (20, 18, 19), (9, 7, 8))
        filled = np.where(hole, rng.random(truth.shape), truth)
        limits = grey_range(np.where(hole, 0, truth))
        one, other = (scale_grey(image, limits) for image in (truth, filled))
        _, everywhere = structural_similarity(one, other, data_range=1, full=True, **SSIM)
        row = compare_fill(filled, truth, hole)
        assert row['ssim'] == pytest.approx(everywhere[hole].mean(), abs=1e-5)
        slices = [structural_similarity(one[..., k], other[..., k], data_range=1, **SSIM)
                  for k in range(19, 27)]  # fmt: skip
        assert row['slice_ssim'] == pytest.approx(np.mean(slices), abs=1e-5)
        assert 0 < row['ssim'] < row['slice_ssim'] < 1

    def test_continuity(self):
        x, y, z = np.indices((60, 60, 60), dtype=float)
        truth, hole = x + y + z, cube((60, 60, 60), (20, 20, 20), (12, 12, 12))
        row = compare_fill(np.where(hole, x + y + 3 * z - 60, truth), truth, hole)
        assert row['continuity'] == pytest.approx(3, rel=1e-4)
        steep = np.where(hole, x + 3 * y + z - 60, truth)  # within slices
        assert compare_fill(steep, truth, hole)['continuity'] == pytest.approx(0.5, rel=1e-4)
        striped = np.where(hole, truth + 5 * (z % 2), truth)
        assert compare_fill(striped, truth, hole)['continuity'] > 4
        assert np.isnan(compare_fill(np.where(hole, 90, truth), truth, hole)['continuity'])

    def test_psnr(self):
        assert psnr(np.zeros(10), np.full(10, 0.1)) == pytest.approx(20)
