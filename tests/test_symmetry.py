"""The mirror image of a brain about its own midline."""

import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.symmetry import fit_mirror, from_corner, mirror, transform, upright

SHAPE = (60, 72, 56)


def brain(yaw=0.0, roll=0.0, shift=0.0):
    """A symmetric textured ellipsoid, turned (radians) and shifted (voxels); and its normal."""
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    texture = (texture + texture[::-1]) / texture.std()
    centre = (np.array(SHAPE) - 1) / 2
    about_z = [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
    about_y = [[np.cos(roll), 0, -np.sin(roll)], [0, 1, 0], [np.sin(roll), 0, np.cos(roll)]]
    turn = np.array(about_z) @ np.array(about_y)
    where = np.moveaxis(np.indices(SHAPE), 0, -1) - centre - (shift, 0, 0)
    own = where @ turn  # coordinates along the brain's own axes
    values = ndimage.map_coordinates(texture, np.moveaxis(own + centre, -1, 0), order=1)
    inside = ((own / (22, 30, 20)) ** 2).sum(-1) < 1
    return np.where(inside, values + 5, 0).astype(np.float32), inside, turn[:, 0]


@pytest.mark.parametrize(
    ('yaw', 'roll', 'shift'), [(0, 0, 0), (0.1, 0, 0), (0, -0.15, 2), (0.12, 0.1, -3)]
)
def test_the_midline_is_found(yaw, roll, shift):
    volume, inside, normal = brain(yaw, roll, shift)
    matrix = fit_mirror(volume, inside)
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3) - 2 * np.outer(normal, normal), atol=0.05)
    centre = (np.array(SHAPE) - 1) / 2 + (shift, 0, 0)
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre, atol=1)
    both = inside & (mirror(inside.astype(np.float32), matrix) > 0.9)
    assert np.corrcoef(mirror(volume, matrix)[both], volume[both])[0, 1] > 0.9


def test_a_tumor_does_not_turn_the_plane():
    volume, inside, normal = brain(0.1, 0, 0)
    tumor = np.zeros(SHAPE, bool)
    tumor[34:48, 25:45, 20:36] = True
    volume[tumor & inside] = 20
    matrix = fit_mirror(volume, inside & ~tumor)
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3) - 2 * np.outer(normal, normal), atol=0.05)


def test_it_is_its_own_inverse():
    matrix = fit_mirror(*brain(0.1, -0.05, 2)[:2])
    np.testing.assert_allclose(matrix @ matrix, np.eye(4), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(-1)


@pytest.mark.parametrize('known', [0, 5])
def test_too_little_to_fit(known):
    inside = np.zeros(SHAPE, bool)
    inside[10 : 10 + known, 10, 10] = True
    matrix = fit_mirror(inside.astype(np.float32), inside)
    np.testing.assert_allclose(matrix[:3, :3], np.diag([-1, 1, 1]), atol=1e-9)


@pytest.mark.parametrize(
    ('yaw', 'roll', 'shift'), [(0, 0, 0), (0.1, 0, 0), (0, -0.15, 2), (0.12, 0.1, -3)]
)
def test_upright_the_midline_is_in_the_middle(yaw, roll, shift):
    volume, inside, _ = brain(yaw, roll, shift)
    size = (64, 80, 48)
    matrix = upright(volume, inside) @ from_corner(size)
    assert np.linalg.det(matrix) == pytest.approx(1)
    seen = transform(volume, matrix, size)
    both = (seen > 0) & (seen[::-1] > 0)
    assert np.corrcoef(seen[both], seen[::-1][both])[0, 1] > 0.85
    where = np.argwhere(seen > 0)
    np.testing.assert_allclose(
        (where.min(0) + where.max(0)) / 2, (np.array(size) - 1) / 2, atol=1.5
    )
    back = transform(seen, np.linalg.inv(matrix), SHAPE)
    assert np.corrcoef(back[inside], volume[inside])[0, 1] > 0.9
