"""Simulated patients on a small ellipsoid brain."""

import numpy as np
import pytest

from tumorreg_wf.training.fields import jacobian, random_deformation, random_field, refine, warp
from tumorreg_wf.training.simulate import random_tumor, simulate_patient, tissues_from_t1w

SHAPE = (44, 50, 42)
SPACING = (3.5, 3.5, 3.5)
GREY = np.array((0, 500, 700, 200), np.float32)


@pytest.fixture(scope='module')
def tissues():
    """CSF outside, a GM cortex, WM, and a ventricle in the middle; air around."""
    grid = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in SHAPE), indexing='ij')
    radius = np.sqrt(sum(axis**2 for axis in grid))
    labels = np.select([radius < 0.2, radius < 0.75, radius < 0.9, radius < 1], [3, 2, 1, 3], 0)
    return labels.astype(np.uint8)


@pytest.fixture(scope='module')
def t1w(tissues):
    noise = np.random.default_rng(5).normal(0, 15, SHAPE).astype(np.float32)
    return np.where(tissues > 0, GREY[tissues] + noise, 0)


def make_patient(t1w, tissues, seed=3):
    rng = np.random.default_rng(seed)
    return simulate_patient(t1w, tissues, random_tumor(tissues, SPACING, rng, 60), SPACING, rng)


@pytest.fixture(scope='module')
def patient(t1w, tissues):
    return make_patient(t1w, tissues)


@pytest.mark.parametrize('seed', range(4))
def test_random_tumor_is_glioma_shaped(tissues, seed):
    labels = random_tumor(tissues, SPACING, np.random.default_rng(seed), volume_ml=60)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels > 0).sum() * np.prod(SPACING) / 1000 == pytest.approx(60, rel=0.35)
    assert not np.any(labels[tissues == 0])
    assert not np.any((labels == 1) & (tissues == 3))
    assert np.mean(tissues[labels == 1] == 2) > np.mean(tissues[tissues > 0] == 2)


def test_images_differ_from_their_healthy_twins_in_the_tumor_only(patient):
    mask = patient.tumor_mask
    np.testing.assert_array_equal(mask, patient.tumor_labels > 0)
    for sick, healthy in (
        (patient.t1w, patient.tumor_free_t1w),
        (patient.flair, patient.tumor_free_flair),
    ):
        np.testing.assert_array_equal(sick[~mask], healthy[~mask])
        assert np.mean(sick[mask] != healthy[mask]) > 0.99


def test_outside_of_the_brain_stays_black(patient, tissues):
    outside = tissues == 0
    np.testing.assert_array_equal(patient.tissues == 0, outside)
    for image in (patient.t1w, patient.flair, patient.tumor_free_t1w, patient.tumor_mask):
        assert image.shape == SHAPE
        assert not np.any(image[outside])


def test_tumor_has_the_contrast_of_a_glioma(patient):
    white = (patient.tissues == 2) & ~patient.tumor_mask
    edema, core = ((patient.tumor_labels == label) & (patient.tissues == 2) for label in (1, 2))
    assert np.median(patient.flair[edema]) > 1.2 * np.median(patient.flair[white])
    assert np.median(patient.t1w[edema]) < 0.95 * np.median(patient.t1w[white])
    assert np.median(patient.t1w[core]) < 0.85 * np.median(patient.t1w[white])


def test_synthetic_flair_has_dark_fluid(patient):
    medians = [
        np.median(patient.tumor_free_flair[patient.tissues == label]) for label in (1, 2, 3)
    ]
    assert medians[0] > medians[1] > 1.5 * medians[2]


def test_tissue_moves_away_from_the_core_without_folding(patient):
    moved = patient.displacement
    length = np.linalg.norm(moved, axis=-1)
    assert 1 < length.max() <= 6.01
    assert jacobian(moved, SPACING).min() > 0.1
    # displaced(x) = healthy(x + d): what is at x came from nearer to the core.
    center = np.argwhere(patient.tumor_labels >= 2).mean(0)
    towards = center - np.moveaxis(np.indices(SHAPE), 0, -1)
    assert np.mean((moved * towards).sum(-1)[length > 1] > 0) > 0.95


def test_images_and_tissues_are_displaced_alike(t1w, tissues, patient):
    brain = tissues > 0
    still = np.abs(patient.tumor_free_t1w - GREY[patient.tissues])[brain]
    unmoved = np.abs(patient.tumor_free_t1w - GREY[tissues])[brain]
    assert still.mean() < unmoved.mean()


def test_the_seed_decides(t1w, tissues, patient):
    again, other = make_patient(t1w, tissues), make_patient(t1w, tissues, seed=4)
    for name in ('t1w', 'flair', 'tumor_labels', 'displacement'):
        np.testing.assert_array_equal(getattr(patient, name), getattr(again, name))
        assert np.any(getattr(patient, name) != getattr(other, name))


def test_given_flair_and_given_labels_are_used(t1w, tissues):
    tumor = np.zeros(SHAPE, np.uint8)
    tumor[30:44, 20:30, 16:26] = 1  # reaches out of the brain, and has no core
    flair = np.where(tissues > 0, np.float32(900), np.float32(0))
    result = simulate_patient(t1w, tissues, tumor, SPACING, np.random.default_rng(0), flair)
    assert np.median(result.tumor_free_flair[tissues > 0]) == pytest.approx(900, rel=0.1)
    assert result.tumor_mask.any()
    assert not np.any(result.tumor_mask & ((tumor == 0) | (tissues == 0)))


def test_no_tumor_changes_nothing(t1w, tissues):
    tumor = np.zeros(SHAPE, np.uint8)
    result = simulate_patient(t1w, tissues, tumor, SPACING, np.random.default_rng(0))
    assert not result.displacement.any()
    np.testing.assert_array_equal(result.t1w, result.tumor_free_t1w)


def test_tissues_from_t1w_finds_the_three_tissues(t1w, tissues):
    found = tissues_from_t1w(t1w, tissues > 0)
    assert np.mean(found == tissues) > 0.99


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
    moved = random_deformation(SHAPE, SPACING, np.random.default_rng(1))
    assert moved.shape == (*SHAPE, 3)
    assert 2 < np.linalg.norm(moved, axis=-1).mean() < 20
    assert jacobian(moved, SPACING).min() > 0.3
