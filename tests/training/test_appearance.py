"""Looks of tumours."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

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
        for label in (2, 3):
            assert np.median(opacity[tumor == label]) == pytest.approx(0.95, abs=0.02)
        grey, white = (np.median(opacity[(tumor == 1) & (tissues == t)]) for t in (1, 2))
        assert grey < white


def test_oedema_fades_outwards_and_less_so_where_it_may_be_faint(tumor, spacing):
    white = np.full_like(tumor, 2)
    depth = ndimage.distance_transform_edt(tumor > 0, spacing)
    outlines = []
    for wild in (False, True):
        rng = np.random.default_rng(0)
        opacity, _ = appearance.mix(np.minimum(tumor, 1), white, spacing, rng, wild=wild)
        outlines.append(
            np.median(opacity[(depth > 0) & (depth < 4)]) / np.median(opacity[depth > 8])
        )
    assert outlines[0] < 0.85 < outlines[1] < 1


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


def test_small_holes_are_not_left_in_oedema():
    """Grey matter of 6 mm does not make one; of 10 mm it does."""
    labels = np.zeros((40, 30, 30), np.uint8)
    labels[2:-2, 2:-2, 2:-2] = 1
    tissues = np.full_like(labels, 2)
    tissues[5:11, 12:18, 12:18] = tissues[20:30, 10:20, 10:20] = 1
    for seed in range(4):
        kept = appearance.follow_white_matter(
            labels, tissues, (1, 1, 1), np.random.default_rng(seed)
        )
        assert kept[3:13, 10:20, 10:20].all() and not kept[24:26, 14:16, 14:16].any()


@pytest.fixture
def always(monkeypatch):
    """All patches there are, now in every tumour."""
    patches = tuple(replace(patch, chance=1.0) for patch in appearance.PATCHES)
    monkeypatch.setattr(appearance, 'PATCHES', patches)
    return patches


def test_patches_are_seldom_at_the_edge_of_the_core(always):
    depth = np.maximum(11 - np.linalg.norm(np.indices((31, 31, 31)) - 15, axis=0), 0)
    core, edge = depth > 0, (depth > 0) & (depth < 1)
    shares = [
        alpha[edge].sum() / alpha.sum()
        for seed in range(4)
        for alpha, *_ in appearance.random_patches(
            2 * core, (1, 1, 1), np.random.default_rng(seed)
        )
    ]
    assert np.mean(shares) < 0.5 * edge.sum() / core.sum()


def test_patches_lie_in_the_core(always, tumor, spacing):
    for labels, place in ((tumor, tumor >= 2), (np.minimum(tumor, 1), tumor > 0)):
        patches = appearance.random_patches(labels, spacing, np.random.default_rng(0))
        assert len(patches) == len(always)
        for (alpha, *_), patch in zip(patches, always, strict=True):
            assert alpha.max() > 0.2
            assert not alpha[~place].any()
            assert alpha.sum() < 1.1 * patch.share[1] * place.sum()
    nothing = np.zeros_like(tumor)
    assert appearance.random_patches(nothing, spacing, np.random.default_rng(0)) == []


def test_every_look_occurs():
    rng = np.random.default_rng(0)
    drawn = {appearance.random_look(rng) for _ in range(100)}
    assert drawn == {look for _, look in appearance.WILD}
    assert sum(chance for chance, _ in appearance.WILD) == pytest.approx(1)


@pytest.mark.parametrize('roughness', [1, 2])
def test_tumors_are_uneven(tumor, spacing, roughness):
    black, all_of_it = np.zeros(tumor.shape), np.ones(tumor.shape)
    painted = appearance.paint(
        black, 700, all_of_it, [all_of_it], ((1, 1),), roughness, spacing, np.random.default_rng(0)
    )
    assert painted.mean() == pytest.approx(700, rel=0.1)
    assert painted.std() / painted.mean() == pytest.approx(0.11 * roughness, rel=0.2)
