"""Grey values: brain masks, histogram matching, z-scores."""

import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.intensity import (
    QUANTILES,
    cut_spikes,
    fit_reference,
    is_stripped,
    normalize,
    normalize_modality,
    reference_quantiles,
    require_content,
    stripped_brain_mask,
)

REFERENCE = reference_quantiles('T1w')


@pytest.fixture
def brain():
    """Grey values of a skewed histogram, and their mask."""
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 20, 20), bool)
    mask[3:17, 2:18, 4:15] = True
    return np.where(mask, 300 + 100 * rng.gamma(3, 1, mask.shape), 0).astype(np.float32), mask


@pytest.fixture
def head():
    """An ellipsoid brain in a thick-skinned head, 4 mm."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in (50, 60, 50)), indexing='ij')
    radius = np.sqrt(sum(axis**2 for axis in grid))
    return np.select([radius < 0.7, radius < 0.78, radius < 0.98], [100, 20, 200], 0)


@pytest.mark.parametrize('modality', ['T1w', 'FLAIR'])
def test_references_grow(modality):
    reference = reference_quantiles(modality)
    assert reference.shape == QUANTILES.shape
    assert np.all(np.diff(reference) > 0)


class TestNormalize:
    def test_mean_and_deviation_in_the_mask_nothing_outside(self, brain):
        out = normalize(*brain, REFERENCE)
        _, mask = brain
        assert out.dtype == np.float32
        assert out[mask].mean() == pytest.approx(0, abs=1e-3)
        assert out[mask].std() == pytest.approx(1, abs=1e-2)
        assert not out[~mask].any()

    def test_order_of_grey_values_is_kept(self, brain):
        data, mask = brain
        order = np.argsort(data[mask])
        out = normalize(data, mask, REFERENCE)[mask][order]
        assert np.all(np.diff(out) >= 0)
        assert np.mean(np.diff(out[out < 5.9]) > 0) > 0.99

    def test_quantiles_match_the_reference(self, brain):
        data, mask = brain
        found = np.quantile(normalize(data, mask, REFERENCE)[mask], QUANTILES)
        np.testing.assert_allclose(np.corrcoef(found, REFERENCE)[0, 1], 1, atol=1e-4)

    @pytest.mark.parametrize(('gain', 'shift'), [(3.7, 0), (1, -800), (0.01, 20)])
    def test_gain_and_shift_do_not_matter(self, brain, gain, shift):
        data, mask = brain
        expected = normalize(data, mask, REFERENCE)
        changed = np.where(mask, gain * data.astype(float) + shift, 0)
        np.testing.assert_allclose(normalize(changed, mask, REFERENCE), expected, atol=1e-3)

    def test_outside_of_the_mask_does_not_matter(self, brain):
        data, mask = brain
        expected = normalize(data, mask, REFERENCE)
        np.testing.assert_array_equal(
            normalize(np.where(mask, data, 9999), mask, REFERENCE), expected
        )

    @pytest.mark.parametrize('levels', [2, 3, 5])
    def test_few_grey_levels(self, brain, levels):
        data, mask = brain
        few = np.digitize(data, np.quantile(data[mask], np.arange(1, levels) / levels)) * 50.0
        out = normalize(few, mask, REFERENCE)
        assert out[mask].std() == pytest.approx(1, abs=1e-3)
        means = [np.unique(out[mask & (few == grey)]) for grey in np.unique(few[mask])]
        assert all(len(values) == 1 for values in means)
        assert np.all(np.diff(np.ravel(means)) > 0)

    def test_grey_levels_go_to_the_quantiles_where_they_begin(self, brain):
        _, mask = brain
        data = np.zeros(mask.shape)
        data[mask] = np.repeat([10, 20, 50], [880, 968, 616])  # quantiles 0.36 and 0.75
        low, middle, high = np.unique(normalize(data, mask, REFERENCE)[mask])
        begin = [np.flatnonzero(q <= QUANTILES)[0] for q in (0, 0.36, 0.75)]
        wanted = REFERENCE[begin]
        ratio = (wanted[1] - wanted[0]) / (wanted[2] - wanted[0])
        assert (middle - low) / (high - low) == pytest.approx(ratio, rel=1e-4)

    def test_a_histogram_of_one_spike_and_some_outliers(self, brain):
        _, mask = brain
        data = np.where(mask, 5.0, 0)
        data[4, 4, 4] = 8
        out = normalize(data, mask, REFERENCE)
        assert np.isfinite(out).all()
        assert out[4, 4, 4] > out[5, 5, 5]

    @pytest.mark.parametrize('value', [0, 7])
    def test_constant_image(self, brain, value):
        assert not normalize(np.full((20, 20, 20), value), brain[1], REFERENCE).any()

    def test_a_flair_of_a_part_of_the_brain(self, brain):
        """What it does not show is not taken for dark tissue."""
        data, mask = brain
        part = np.where(np.arange(20) < 12, data, 0)
        out = normalize_modality(part, mask, 'FLAIR')
        seen = mask & (part != 0)
        assert not out[~seen].any() and abs(out[seen].mean()) < 0.01
        assert normalize_modality(part, mask, 'T1w')[mask & ~seen].any()

    def test_empty_mask(self, brain):
        assert not normalize(brain[0], np.zeros_like(brain[1]), REFERENCE).any()

    def test_outliers_are_clipped(self, brain):
        data, mask = brain
        data = data.copy()
        data[4, 4, 4] = 1e6
        assert normalize(data, mask, REFERENCE).max() == 6

    @pytest.mark.parametrize('times', [1e3, 1e6])
    def test_one_wild_voxel_leaves_the_contrast_of_all_others(self, brain, times):
        data, mask = (np.tile(array, (3, 3, 3)) for array in brain)
        expected, wild = normalize(data, mask, REFERENCE), data.copy()
        there = tuple(np.argwhere(mask)[len(data) // 2])
        wild[there] *= times
        found = normalize(wild, mask, REFERENCE)
        others = mask.copy()
        others[there] = False
        np.testing.assert_allclose(found[others], expected[others], atol=0.05)

    def test_input_is_left_alone(self, brain):
        before = brain[0].copy()
        normalize(*brain, REFERENCE)
        np.testing.assert_array_equal(brain[0], before)


class TestStripping:
    def test_stripped_brain(self, phantom):
        assert is_stripped(phantom.t1w.get_fdata(), np.full(3, 2.0))

    def test_head(self, head):
        spacing = np.full(3, 4.0)
        assert not is_stripped(head, spacing)
        assert is_stripped(np.where(head == 100, 100, 0), spacing)

    @pytest.mark.parametrize('shown', [slice(None), slice(22, None), slice(10, 22)])
    def test_small_head_on_nothing(self, shown):
        """A child's head, or a part of one, whose background was set to 0."""
        radius = np.sqrt(sum(axis**2 for axis in np.ogrid[-22:22, -22:22, -22:22])) * 4
        head = np.select([radius < 60, radius < 69, radius < 75], [0.7, 0.1, 1.0])
        head += np.random.default_rng(0).normal(0, 0.03, head.shape) * (head > 0)
        spacing = np.full(3, 4.0)
        assert not is_stripped(head[..., shown], spacing)
        assert is_stripped(np.where(radius < 60, head, 0)[..., shown], spacing)

    def test_noise_all_over(self, phantom):
        noise = np.random.default_rng(0).random(phantom.t1w.shape) + 0.01
        assert not is_stripped(phantom.t1w.get_fdata() + noise, np.full(3, 2.0))

    def test_nothing(self):
        assert not is_stripped(np.zeros((5, 5, 5)), np.ones(3))

    def test_mask_is_the_brain(self, phantom):
        found = stripped_brain_mask(phantom.t1w.get_fdata())
        np.testing.assert_array_equal(found, phantom.brain.get_fdata() > 0)

    def test_dust_is_dropped_and_holes_are_filled(self, phantom):
        brain = phantom.brain.get_fdata() > 0
        data = phantom.t1w.get_fdata().copy()
        data[0, :3, 0] = 50
        inner = np.argwhere(ndimage.binary_erosion(brain, iterations=6))
        data[tuple(inner[::40].T)] = 0
        np.testing.assert_array_equal(stripped_brain_mask(data), brain)

    @pytest.mark.parametrize('axis', range(3))
    @pytest.mark.parametrize('end', [0, -1])
    def test_fluid_that_is_0_where_the_image_ends_is_inside(self, axis, end):
        data = np.zeros((30, 30, 30))
        data[5:25, 5:25, 5:25] = 100
        data = np.roll(data, -5 if end == 0 else 5, axis)  # cut by the image
        brain = data != 0
        along = np.moveaxis(data, axis, 0)  # the same voxels
        along[(slice(None, 14) if end == 0 else slice(-14, None)), 13:17, 13:17] = 0
        np.testing.assert_array_equal(stripped_brain_mask(data), brain)
        # a groove that opens to the side stays open
        along[:, 5:17, 13:17] = 0
        open_still = np.moveaxis(stripped_brain_mask(data), axis, 0)
        assert not open_still[:, 5:17, 13:17].any()

    def test_slabs_are_one_brain(self, phantom):
        data = phantom.t1w.get_fdata().copy()
        data[..., 20:24] = 0
        np.testing.assert_array_equal(stripped_brain_mask(data), data != 0)

    def test_negative_values_are_brain_too(self, phantom):
        brain = phantom.brain.get_fdata() > 0
        data = np.where(brain, -1.0, 0)
        np.testing.assert_array_equal(stripped_brain_mask(data), brain)

    def test_no_brain(self):
        assert not stripped_brain_mask(np.zeros((5, 5, 5))).any()


def test_a_mask_is_no_image(phantom):
    with pytest.raises(TumorregError, match='This is a mask'):
        require_content(phantom.brain.get_fdata(), 'x.nii')


def test_reference_is_the_mean_of_z_scored_quantiles():
    rng = np.random.default_rng(0)
    data = rng.normal(100, 20, (20, 20, 20))
    mask = np.ones(data.shape, bool)
    mask[:3] = False
    data[~mask] = 1e6  # what is outside does not count
    found = fit_reference([(data, mask), (3 * data + 7, mask)])
    np.testing.assert_allclose(found[[0, 6, 12]], [-2.33, 0, 2.33], atol=0.1)


def test_spikes_are_cut_and_counted(phantom):
    data = phantom.t1w.get_fdata(dtype=np.float32)
    same, none = cut_spikes(data)
    assert same is data and none == 0
    wild = data.copy()
    wild[20, 20, 20], wild[22, 20, 20] = 1e6, 9 * data.max()
    cut, count = cut_spikes(wild)
    assert count == 1 and cut.dtype == np.float32
    assert 5 * data.max() < cut[20, 20, 20] <= 10 * data.max()
    differs = np.argwhere(cut != wild)
    np.testing.assert_array_equal(differs, [[20, 20, 20]])
    assert cut_spikes(np.zeros((4, 4, 4)))[1] == 0
