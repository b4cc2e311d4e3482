"""Simulated patients on a small ellipsoid brain."""

import numpy as np
import pytest

from tumorreg_wf.training.fields import jacobian
from tumorreg_wf.training.growth import random_tumor
from tumorreg_wf.training.simulate import (
    patient_from_labels,
    simulate_patient,
    tissues_from_t1w,
)

SPACING = (3.5, 3.5, 3.5)
LEVELS = np.array((0, 500, 700, 200), np.float32)


def make_patient(t1w, tissues, seed=3, wild=False):
    rng = np.random.default_rng(seed)
    tumor = random_tumor(tissues, SPACING, rng, 60)
    return simulate_patient(t1w, tissues, tumor, SPACING, rng, wild=wild)


@pytest.fixture(scope='module')
def patient(t1w, tissues):
    return make_patient(t1w, tissues)


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
        assert image.shape == tissues.shape
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
    towards = center - np.moveaxis(np.indices(moved.shape[:3]), 0, -1)
    assert np.mean((moved * towards).sum(-1)[length > 1] > 0) > 0.95


def test_images_and_tissues_are_displaced_alike(t1w, tissues, patient):
    brain = tissues > 0
    still = np.abs(patient.tumor_free_t1w - LEVELS[patient.tissues])[brain]
    unmoved = np.abs(patient.tumor_free_t1w - LEVELS[tissues])[brain]
    assert still.mean() < unmoved.mean()


def test_the_seed_decides(t1w, tissues, patient):
    again, other = make_patient(t1w, tissues), make_patient(t1w, tissues, seed=4)
    for name in ('t1w', 'flair', 'tumor_labels', 'displacement'):
        np.testing.assert_array_equal(getattr(patient, name), getattr(again, name))
        assert np.any(getattr(patient, name) != getattr(other, name))


def test_given_flair_and_given_labels_are_used(t1w, tissues):
    tumor = np.zeros_like(tissues)
    tumor[30:44, 20:30, 16:26] = 1  # reaches out of the brain, and has no core
    flair = np.where(tissues > 0, np.float32(900), np.float32(0))
    result = simulate_patient(t1w, tissues, tumor, SPACING, np.random.default_rng(0), flair)
    assert np.median(result.tumor_free_flair[tissues > 0]) == pytest.approx(900, rel=0.1)
    assert result.tumor_mask.any()
    assert not np.any(result.tumor_mask & ((tumor == 0) | (tissues == 0)))


def test_no_tumor_changes_nothing(t1w, tissues):
    tumor = np.zeros_like(tissues)
    result = simulate_patient(t1w, tissues, tumor, SPACING, np.random.default_rng(0))
    assert not result.displacement.any()
    np.testing.assert_array_equal(result.t1w, result.tumor_free_t1w)


def test_tissues_from_t1w_finds_the_three_tissues(t1w, tissues):
    found = tissues_from_t1w(t1w, tissues > 0)
    assert np.mean(found == tissues) > 0.99


@pytest.mark.parametrize('seed', range(6))
def test_wild_patients_keep_the_truth(t1w, tissues, labels, seed):
    rng = np.random.default_rng(seed)
    tumor = random_tumor(tissues, SPACING, rng, 60)
    for patient in (
        simulate_patient(t1w, tissues, tumor, SPACING, rng, wild=True),
        patient_from_labels(labels, tumor, SPACING, rng),
    ):
        mask = patient.tumor_mask
        assert mask.any()
        np.testing.assert_array_equal(mask, patient.tumor_labels > 0)
        np.testing.assert_array_equal(patient.tissues > 0, tissues > 0)
        for sick, healthy in (
            (patient.t1w, patient.tumor_free_t1w),
            (patient.flair, patient.tumor_free_flair),
        ):
            np.testing.assert_array_equal(sick[~mask], healthy[~mask])
            assert np.all(np.isfinite(sick)) and sick.min() >= 0
            assert np.mean(sick[mask] != healthy[mask]) > 0.95
        np.testing.assert_array_equal(patient.t1w > 0, patient.flair > 0)
        assert jacobian(patient.displacement, SPACING).min() > 0.1


def test_wild_patients_vary_more(t1w, tissues):
    def grey_over_white(wild):
        patients = (make_patient(t1w, tissues, seed, wild) for seed in range(3))
        return np.std(
            [
                np.median(p.tumor_free_t1w[p.tissues == 1])
                / np.median(p.tumor_free_t1w[p.tissues == 2])
                for p in patients
            ]
        )

    assert grey_over_white(wild=True) > 3 * grey_over_white(wild=False)


def test_images_of_an_anatomy_look_like_t1w_and_flair(labels):
    tumor = np.zeros(labels.shape, np.uint8)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        patient = patient_from_labels(labels, tumor, SPACING, rng, wild=False)
        gm, wm, csf = (np.median(patient.t1w[patient.tissues == label]) for label in (1, 2, 3))
        assert csf < gm < wm
        gm, wm, csf = (np.median(patient.flair[patient.tissues == label]) for label in (1, 2, 3))
        assert csf < 0.8 * min(gm, wm)
