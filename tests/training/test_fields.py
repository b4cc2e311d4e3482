"""Smooth fields, displacements and distances."""

import numpy as np
import pytest

from tumorreg_wf.training import fields
from tumorreg_wf.training.fields import (
    depth_inside,
    distance,
    jacobian,
    random_deformation,
    random_field,
    refine,
    uncrop,
    warp,
)


def test_random_field_is_smooth_and_standard():
    field = random_field((40, 50, 30), (2, 2, 4), 12.0, np.random.default_rng(0))
    assert field.shape == (40, 50, 30)
    assert field.mean() == pytest.approx(0, abs=0.3)
    assert field.std() == pytest.approx(1, abs=0.3)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.3


def test_refine_inverts_taking_every_nth_voxel():
    ramp = np.arange(13.0)[:, None, None] * np.ones((13, 7, 8))
    step = np.array((3, 2, 4))
    fine = refine(ramp[::3, ::2, ::4], step, ramp.shape)
    np.testing.assert_allclose(fine, ramp, atol=1e-5)


def test_warp_reads_in_millimetres():
    image = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((10, 3, 3), np.float32)
    shift = np.zeros((10, 3, 3, 3), np.float32)
    shift[..., 0] = 4
    mask = np.zeros(image.shape, bool)
    mask[2:5] = True
    warped = warp(image, shift, (2, 1, 1), mask, order=1)
    np.testing.assert_allclose(warped[2:5], image[4:7])
    assert not warped[~mask].any()


def test_random_deformation_is_another_brain_but_a_brain():
    moved = random_deformation((44, 50, 42), (3.5, 3.5, 3.5), np.random.default_rng(1))
    assert moved.shape == (44, 50, 42, 3)
    assert 2 < np.linalg.norm(moved, axis=-1).mean() < 20
    assert jacobian(moved, (3.5, 3.5, 3.5)).min() > 0.3


def test_determinant_of_a_linear_displacement():
    """x + A x has that of 1 + A everywhere, whatever the voxels."""
    matrix = np.array([[0.1, 0.4, -0.3], [0.2, -0.2, 0.5], [-0.6, 0.3, 0.25]])
    spacing = (1.0, 2.0, 0.5)
    where = np.moveaxis(np.indices((5, 6, 7)), 0, -1) * spacing
    found = jacobian(where @ matrix.T, spacing)
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + matrix), rtol=1e-10)


def test_a_random_deformation_turns(monkeypatch):
    """What is neither scaled nor bent keeps its lengths: off the diagonal signs are opposite."""
    monkeypatch.setattr(fields, 'random_field', lambda shape, *_: np.zeros(shape, np.float32))
    moved = random_deformation((9, 9, 9), (2.0, 2.0, 2.0), np.random.default_rng(3))
    matrix = np.array([(moved[5, 4, 4] - moved[4, 4, 4]), (moved[4, 5, 4] - moved[4, 4, 4]),
                       (moved[4, 4, 5] - moved[4, 4, 4])]) / 2  # fmt: skip
    turn = matrix - np.diag(np.diag(matrix))
    assert np.abs(turn).max() > 0.01
    np.testing.assert_allclose(turn, -turn.T, atol=1e-6)


def test_distances_are_in_millimetres():
    mask = np.zeros((60, 12, 12), bool)
    mask[20:40] = True
    for measure, tolerance in ((depth_inside, 1e-6), (distance, 1.5)):
        found = measure(mask, (0.5, 1, 2))[:, 6, 6]
        assert found[[22, 37]] == pytest.approx(1.5, abs=tolerance)
        assert not found[:16].any()
    assert not depth_inside(np.zeros((3, 3, 3), bool), (1, 1, 1)).any()


def test_uncrop_puts_a_box_back():
    whole = np.arange(4 * 5 * 6 * 3).reshape(4, 5, 6, 3)
    box = (slice(1, 3), slice(0, 4), slice(2, 6))
    back = uncrop(whole[box], box, (4, 5, 6))
    np.testing.assert_array_equal(back[box], whole[box])
    assert back.sum() == whole[box].sum()
