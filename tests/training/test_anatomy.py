"""Label maps, and the images made of them."""

import numpy as np
import pytest

from tumorreg_wf.training.anatomy import (
    CORTEX,
    FLUID,
    STRUCTURES,
    images_from_labels,
    random_t1w_levels,
    strip_labels,
    synthesize_flair,
    tissues_from_labels,
    vary_contrast,
)


def test_strip_labels_leaves_the_brain_and_the_fluid_near_it():
    labels = np.full((60, 60, 60), 24)
    labels[:8] = 515  # skull
    labels[15:45, 15:45, 15:45] = 2
    labels[28:32, 28:32, 28:45] = 24  # a sulcus, narrow and deep
    stripped = strip_labels(labels, (1, 1, 1))
    assert stripped.dtype == np.uint8
    np.testing.assert_array_equal(stripped == 2, labels == 2)
    assert np.all(stripped[28:32, 28:32, 28:45] == 24)
    assert stripped[13, 30, 30] == 24 and stripped[46, 30, 30] == 24
    assert not stripped[:9].any() and not stripped[50:].any()


def test_a_map_without_brain_is_empty():
    assert not strip_labels(np.full((5, 5, 5), 515), (1, 1, 1)).any()


def test_tissues_of_freesurfer_labels():
    labels = np.array([0, 2, 41, 3, 42, 4, 43, 24, 8, 7, 16, 10, 17, 515, 507])
    expected = [0, 2, 2, 1, 1, 3, 3, 3, 1, 2, 2, 1, 1, 0, 0]
    np.testing.assert_array_equal(tissues_from_labels(labels), expected)


def test_images_follow_the_labels_and_vary(labels, tissues, spacing):
    ratios = []
    for seed in range(5):
        t1w, flair = images_from_labels(labels, spacing, np.random.default_rng(seed))
        gm, wm, csf = (np.median(t1w[tissues == tissue]) for tissue in (1, 2, 3))
        assert csf < gm < wm == pytest.approx(700, rel=0.05)
        assert np.median(flair[tissues == 3]) < 0.8 * np.median(flair[tissues == 1])
        assert not t1w[labels == 0].any() and not flair[labels == 0].any()
        ratios.append(gm / wm)
    assert np.ptp(ratios) > 0.02


def test_voxels_between_tissues_are_mixed(labels, spacing):
    t1w, _ = images_from_labels(labels, (0.8, 0.8, 0.8), np.random.default_rng(0))
    edge = t1w[:, 25, 21]
    assert len(np.unique(np.round(edge / 100))) > 4


def test_vary_contrast_keeps_order_and_white_matter(t1w, tissues):
    varied = [vary_contrast(t1w, tissues, np.random.default_rng(seed)) for seed in range(4)]
    for image in varied:
        gm, wm, csf = (np.median(image[tissues == label]) for label in (1, 2, 3))
        assert csf < gm < wm == pytest.approx(np.median(t1w[tissues == 2]), rel=0.01)
        order = np.argsort(t1w[tissues > 0])
        assert np.all(np.diff(image[tissues > 0][order]) >= -1e-3)
        assert not image[tissues == 0].any()
    assert np.ptp([np.median(image[tissues == 3]) for image in varied]) > 20


@pytest.mark.parametrize('wild', [False, True])
def test_synthetic_flair_has_dark_fluid(t1w, tissues, spacing, wild):
    flair = synthesize_flair(t1w, tissues, spacing, np.random.default_rng(0), wild=wild)
    gm, wm, csf = (np.median(flair[tissues == label]) for label in (1, 2, 3))
    assert 1.5 * csf < min(gm, wm)
    assert not flair[tissues == 0].any()


def test_grey_values_of_structures_keep_the_order_of_a_t1w():
    places = [indices for _, indices, *_ in STRUCTURES]
    drawn = np.array([random_t1w_levels(np.random.default_rng(seed)) for seed in range(20)])
    csf, gm, wm = (drawn[:, places.index(indices)] for indices in (FLUID, CORTEX, places[0]))
    assert np.all(wm == 1) and np.all(csf < gm) and np.all(gm < wm)
    # those that a simulated patient has, whatever the label map's were
    assert 0.15 <= csf.min() < csf.max() <= 0.55 and 0.6 <= gm.min() < gm.max() <= 0.87
    assert csf.std() > 0.05 and gm.std() > 0.03
