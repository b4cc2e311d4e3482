"""What only looks like a tumour, each where it belongs."""

import numpy as np
import pytest

from tumorreg_wf.training import lookalikes
from tumorreg_wf.training.anatomy import synthesize_flair
from tumorreg_wf.training.lookalikes import (
    add_lookalikes,
    choroid_plexus,
    find_surroundings,
    periventricular_caps,
    vessels,
    white_matter_lesions,
)


@pytest.fixture(scope='module')
def around(tissues, spacing):
    return find_surroundings(tissues, spacing)


@pytest.fixture(scope='module')
def flair(t1w, tissues, spacing):
    return synthesize_flair(t1w, tissues, spacing, np.random.default_rng(0))


def test_the_ventricle_is_found_and_the_fluid_outside_is_none(around, tissues):
    middle = tuple(n // 2 for n in tissues.shape)
    assert around.ventricles[middle]
    assert not around.ventricles[around.depth < 15].any()
    assert np.all(around.from_ventricles[around.ventricles] == 0)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(
    ('draw', 'tissue'),
    [(white_matter_lesions, 2), (periventricular_caps, 2), (choroid_plexus, 3), (vessels, 3)],
)
def test_each_lies_in_its_tissue(around, tissues, spacing, draw, tissue, seed):
    alpha = draw(around, spacing, np.random.default_rng(seed))
    assert alpha.shape == tissues.shape
    assert 0 <= alpha.min() and alpha.max() <= 1
    if draw is vessels:
        surface = around.depth < 4
        assert np.all((alpha < 0.5) | surface | (tissues == 3))
    else:
        assert alpha[tissues == tissue].sum() >= 0.7 * alpha.sum()


def test_caps_touch_the_ventricle(around, spacing):
    alpha = periventricular_caps(around, spacing, np.random.default_rng(0))
    assert alpha[around.from_ventricles > 30].max() < 0.1
    assert alpha.max() > 0.1


def test_a_brain_without_ventricles_or_white_matter(spacing):
    grey = np.zeros((20, 20, 20), np.uint8)
    grey[4:16, 4:16, 4:16] = 1
    around = find_surroundings(grey, spacing)
    for draw in (white_matter_lesions, periventricular_caps, choroid_plexus):
        assert draw(around, spacing, np.random.default_rng(0)).max() < 1e-3


def draw_all(t1w, flair, tissues, spacing, seed=0):
    return add_lookalikes(t1w, flair, tissues, spacing, np.random.default_rng(seed))


def test_nothing_is_added_where_nothing_is_drawn(t1w, flair, tissues, spacing, monkeypatch):
    monkeypatch.setattr(lookalikes, 'LOOKALIKES', ())
    monkeypatch.setattr(lookalikes, 'REMNANTS', 0)
    monkeypatch.setattr(lookalikes, 'CUTS', 0)
    same_t1w, same_flair, visible = draw_all(t1w, flair, tissues, spacing)
    np.testing.assert_array_equal(same_t1w, t1w)
    np.testing.assert_array_equal(same_flair, flair)
    np.testing.assert_array_equal(visible, tissues > 0)


def test_lesions_are_bright_on_flair_and_dark_on_t1w(t1w, flair, tissues, spacing, monkeypatch):
    monkeypatch.setattr(lookalikes, 'LOOKALIKES', ((1.0, *lookalikes.LOOKALIKES[0][1:]),))
    new_t1w, new_flair, _ = draw_all(t1w, flair, tissues, spacing)
    changed = (tissues == 2) & (new_flair > 1.1 * flair)
    assert changed.any()
    assert np.all(new_t1w[changed] < t1w[changed])


def test_bad_stripping_leaves_skull_and_cuts_brain(t1w, flair, tissues, spacing, monkeypatch):
    monkeypatch.setattr(lookalikes, 'REMNANTS', 1)
    monkeypatch.setattr(lookalikes, 'CUTS', 1)
    drawn = [draw_all(t1w, flair, tissues, spacing, seed) for seed in range(6)]
    outside = [visible & (tissues == 0) for *_, visible in drawn]
    assert any(mask.any() for mask in outside)
    assert any(np.any(~visible & (tissues > 0)) for *_, visible in drawn)
    for (new_t1w, _, _), mask in zip(drawn, outside, strict=True):
        assert np.all(new_t1w[mask] > 0)
