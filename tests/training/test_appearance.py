"""Looks of tumours."""

import numpy as np
import pytest

from tumorreg_wf.training import appearance
from tumorreg_wf.training.growth import random_tumor


@pytest.fixture(scope='module')
def tumor(tissues, spacing):
    return random_tumor(tissues, spacing, np.random.default_rng(0), volume_ml=90)


def test_shares_and_opacity(tumor, tissues, spacing):
    for wild in (False, True):
        rng = np.random.default_rng(0)
        opacity, shares = appearance.mix(tumor, tissues, spacing, rng, wild=wild)
        assert 0 <= opacity.min() and opacity.max() <= 1
        np.testing.assert_allclose(sum(shares)[tumor > 0], 1, rtol=1e-4)
        assert np.median(opacity[tumor >= 2]) == pytest.approx(0.95, abs=0.02)
        grey, white = (np.median(opacity[(tumor == 1) & (tissues == t)]) for t in (1, 2))
        assert grey < white


def test_oedema_is_taken_from_grey_matter_only(tumor, tissues, spacing):
    kept = appearance.follow_white_matter(tumor, tissues, spacing, np.random.default_rng(0))
    lost = (tumor > 0) & (kept == 0)
    assert lost.any() and not np.any((kept > 0) & (tumor == 0))
    assert np.mean(tissues[lost] == 2) < np.mean(tissues[tumor == 1] == 2)
    np.testing.assert_array_equal(kept[tumor >= 2], tumor[tumor >= 2])


def test_a_small_tumour_in_grey_matter_is_left_as_it_is(tissues, spacing):
    grey = np.zeros_like(tissues)
    grey[tuple(np.argwhere(tissues == 1)[0])] = 1
    for labels in (grey, 2 * grey):  # below 1 ml, whether oedema or core
        kept = appearance.follow_white_matter(labels, tissues, spacing, np.random.default_rng(0))
        np.testing.assert_array_equal(kept, labels)


def test_patches_lie_in_the_core(tumor, spacing, monkeypatch):
    always = tuple(
        appearance.Patch(1.0, p.scale, p.share, p.t1w, p.flair) for p in appearance.PATCHES
    )
    monkeypatch.setattr(appearance, 'PATCHES', always)
    for labels, place in ((tumor, tumor >= 2), (np.minimum(tumor, 1), tumor > 0)):
        patches = appearance.random_patches(labels, spacing, np.random.default_rng(0))
        assert len(patches) == len(always)
        for alpha, *_ in patches:
            assert alpha.max() > 0.2
            assert not alpha[~place].any()
    nothing = np.zeros_like(tumor)
    assert appearance.random_patches(nothing, spacing, np.random.default_rng(0)) == []


def test_every_look_occurs():
    rng = np.random.default_rng(0)
    drawn = {appearance.random_look(rng) for _ in range(100)}
    assert drawn == {look for _, look in appearance.WILD}
    assert sum(chance for chance, _ in appearance.WILD) == pytest.approx(1)
