"""Tissues by grey values under maps that are not quite right."""

import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.measures import dice
from tumorreg_wf.tissues import fit_grey_values

GREY = {1: 60.0, 2: 100.0, 3: 20.0}


@pytest.fixture
def brain():
    """A ball of white matter in a folded shell of grey matter in fluid; its T1w; shifted maps."""
    rng = np.random.default_rng(0)
    where = np.moveaxis(np.indices((40, 40, 40)), 0, -1) - 20.0
    away = np.linalg.norm(where, axis=-1) + 1.5 * np.sin(where[..., 0]) * np.cos(where[..., 1])
    truth = np.select([away < 11, away < 14, away < 17], [2, 1, 3], 0)
    t1w = np.select([truth == index for index in GREY], list(GREY.values()), 0.0)
    t1w = (t1w + rng.normal(0, 6, t1w.shape)) * (truth > 0)
    smooth = np.select(
        [np.linalg.norm(where, axis=-1) < edge for edge in (11, 14, 17)], [2, 1, 3], 3
    )
    maps = np.stack([ndimage.gaussian_filter((smooth == k) * 1.0, 1.5) for k in (1, 2, 3)])
    maps = np.roll(maps, 1, axis=1)
    return truth, t1w, maps / maps.sum(0)


def overlap(maps, truth):
    labels = np.where(truth > 0, maps.argmax(0) + 1, 0)
    return [dice(labels == index, truth == index) for index in (1, 2, 3)]


def test_grey_values_make_the_maps_right(brain):
    truth, t1w, maps = brain
    inside = truth > 0
    found = fit_grey_values(t1w, inside, maps * inside)
    np.testing.assert_allclose(found.maps.sum(0), inside, atol=1e-5)
    before, after = overlap(maps, truth), overlap(found.maps, truth)
    assert min(after) > 0.9 and all(one > other for one, other in zip(after, before, strict=True))
    np.testing.assert_allclose(found.mean, list(GREY.values()), atol=6)
    assert (abs(found.spread - 6) < 4).all()


def test_what_was_replaced_does_not_say_what_tissues_look_like(brain):
    truth, t1w, maps = brain
    hole = np.zeros(truth.shape, bool)
    hole[:18] = truth[:18] > 0
    odd = np.where(hole, 70.0, t1w)
    found = fit_grey_values(odd, (truth > 0) & ~hole, maps).maps
    np.testing.assert_allclose(found[:, hole], maps[:, hole], atol=1e-6)
    rest = np.where(hole, 0, truth)
    assert min(overlap(found * (rest > 0), rest)) > 0.9


@pytest.mark.parametrize('odd', ['constant', 'inverted', 'nothing known'])
def test_images_that_say_nothing(brain, odd):
    truth, t1w, maps = brain
    inside = truth > 0
    t1w = {'constant': inside * 5.0, 'inverted': (200 - t1w) * inside}.get(odd, t1w)
    assert fit_grey_values(t1w, inside & (odd != 'nothing known'), maps) is None
