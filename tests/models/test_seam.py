"""A filled hole meets what surrounds it."""

import numpy as np
import pytest

from tumorreg_wf.models.seam import REACH, close_seam


@pytest.fixture
def known():
    grid = np.stack(np.indices((40, 40, 40))) - 20
    return (grid**2).sum(0) > 12**2


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)


def test_nothing_to_correct(image, known):
    np.testing.assert_allclose(close_seam(image, image, known, spacing=1), image, atol=1e-6)


def test_known_voxels_are_left(image, known):
    output = image + np.random.default_rng(1).normal(0, 1, image.shape)
    found = close_seam(output, image, known, spacing=1)
    np.testing.assert_allclose(found[known], output[known], atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize('spacing', [1.0, 2.0])
def test_an_offset_goes_away_at_the_edge_and_fades_inwards(image, known, spacing):
    wrong = close_seam(image + 2, image, known, spacing=spacing) - image
    # the nearest known voxels are (32, 21, 20) and its like
    for x, distance in ((31, 2**0.5), (28, 17**0.5), (20, 145**0.5)):
        expected = 2 * (1 - np.exp(-distance * spacing / REACH))
        assert wrong[x, 20, 20] == pytest.approx(expected, abs=0.02)


def test_what_the_image_says_in_the_hole_does_not_matter(image, known):
    wild = np.where(known, image, 1e3)
    output = np.zeros_like(image)
    np.testing.assert_array_equal(
        close_seam(output, wild, known, spacing=1), close_seam(output, image, known, spacing=1)
    )
