"""Simulated patients on a small ellipsoid brain."""

import numpy as np
import pytest

from tumorreg_wf.training import appearance, simulate
from tumorreg_wf.training.anatomy import images_from_labels
from tumorreg_wf.training.fields import jacobian
from tumorreg_wf.training.growth import random_tumor
from tumorreg_wf.training.scanner import Scanner
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
    rng = np.random.default_rng(0)
    given = simulate_patient(t1w, tissues, patient.tumor_labels, SPACING, rng, flair=t1w)
    for result, image in ((patient, 't1w'), (given, 't1w'), (given, 'flair')):
        healthy = getattr(result, f'tumor_free_{image}')
        still = np.abs(healthy - LEVELS[result.tissues])[brain]
        unmoved = np.abs(healthy - LEVELS[tissues])[brain]
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


@pytest.mark.parametrize(('label', 'stays'), [(1, False), (2, True)])
def test_a_core_reaches_into_the_ventricle_and_oedema_ends_there(t1w, tissues, label, stays):
    tumor = np.zeros_like(tissues)
    tumor[18:26, 20:34, 16:26] = label
    result = simulate_patient(t1w, tissues, tumor, SPACING, np.random.default_rng(0))
    fluid = (result.tissues == 3) & (tumor > 0)
    assert fluid.any() and result.tumor_mask[~fluid].any()
    assert np.all(result.tumor_mask[fluid] == stays)


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
    def vary(wild):
        patients = [make_patient(t1w, tissues, seed, wild) for seed in range(3)]
        grey, white = (
            np.array([np.median(p.tumor_free_t1w[p.tissues == tissue]) for p in patients])
            for tissue in (1, 2)
        )
        return grey / white, max(np.linalg.norm(p.displacement, axis=-1).max() for p in patients)

    (contrasts, push), (wild_contrasts, wild_push) = vary(wild=False), vary(wild=True)
    np.testing.assert_allclose(contrasts, LEVELS[1] / LEVELS[2], rtol=0.03)
    assert np.std(wild_contrasts) > 3 * np.std(contrasts)
    assert push < 6 < wild_push


@pytest.mark.parametrize(
    ('look', 'labels'), [(appearance.RING, {0, 1, 2, 3}), (appearance.LOW_GRADE, {0, 1, 2})]
)
def test_not_every_tumor_has_a_rim(t1w, tissues, monkeypatch, look, labels):
    monkeypatch.setattr(appearance, 'random_look', lambda rng: look)
    assert set(np.unique(make_patient(t1w, tissues, wild=True).tumor_labels)) == labels


def test_a_patch_has_its_own_look_in_each_image(t1w, tissues, monkeypatch):
    monkeypatch.setattr(appearance, 'random_patches', lambda labels, *_: [(labels > 0, 2.0, 0.2)])
    result = make_patient(t1w, tissues, wild=True)
    inside = result.tumor_mask & (result.tissues == 2)
    t1w, flair = (
        np.median(image[inside]) / np.median(image[(result.tissues == 2) & ~inside])
        for image in (result.t1w, result.flair)
    )
    assert t1w > 1.5 and flair < 0.5


def test_wild_tumors_are_brighter_than_grey_matter_on_flair(t1w, tissues, monkeypatch):
    look = appearance.Look(((1, 1),) * 3, ((1.2, 1.2),) * 3)
    monkeypatch.setattr(appearance, 'random_look', lambda rng: look)
    monkeypatch.setattr(appearance, 'random_patches', lambda *_: [])
    flair = np.array((0, 900, 600, 200), np.float32)[tissues]
    tumor = np.zeros_like(tissues)
    tumor[8:20, 15:30, 12:28] = 2
    rng = np.random.default_rng(0)
    result = simulate_patient(t1w, tissues, tumor, SPACING, rng, flair, wild=True)
    grey = result.tumor_free_flair[result.tissues == 1]
    assert np.median(result.flair[result.tumor_mask]) > 1.05 * np.median(grey)


@pytest.mark.parametrize(('thickness', 'seen'), [(0, True), (14, False)])
def test_a_tumor_thinner_than_a_slice_is_not_in_the_labels(
    t1w, tissues, monkeypatch, thickness, seen
):
    scanner = Scanner(bias=0, noise=0.01, axis=2, thickness=thickness)
    monkeypatch.setattr(simulate, 'random_scanner', lambda rng, wild: scanner)
    sheet = np.zeros_like(tissues)
    sheet[8:20, 15:30, 20] = 2
    result = simulate_patient(t1w, tissues, sheet, SPACING, np.random.default_rng(0))
    assert result.tumor_mask.any() == seen


def test_nothing_that_was_cut_away_is_in_the_labels(t1w, tissues, monkeypatch):
    monkeypatch.setattr(
        simulate, 'add_lookalikes', lambda t1w, flair, tissues, *_: (t1w, flair, tissues == 2)
    )
    result = make_patient(t1w, tissues, wild=True)
    assert result.tumor_mask.any() and np.all(result.t1w[result.tumor_mask] > 0)


def test_tumors_are_seen_up_to_their_outline(t1w, tissues, monkeypatch):
    monkeypatch.setattr(appearance, 'paint', lambda healthy, *_: np.full_like(healthy, 5000))
    result = make_patient(t1w, tissues)
    assert result.t1w[result.tumor_mask].min() > 3500


def test_images_of_an_anatomy_are_those_of_its_labels(labels):
    nothing, white = np.zeros(labels.shape, np.uint8), labels == 2
    drawn = images_from_labels(labels, SPACING, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    patient = patient_from_labels(labels, nothing, SPACING, rng, wild=False)
    for image, expected in zip((patient.t1w, patient.flair), drawn, strict=True):
        assert np.median(image[white]) == pytest.approx(np.median(expected[white]), rel=0.1)


def test_images_of_an_anatomy_look_like_t1w_and_flair(labels):
    tumor = np.zeros(labels.shape, np.uint8)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        patient = patient_from_labels(labels, tumor, SPACING, rng, wild=False)
        gm, wm, csf = (np.median(patient.t1w[patient.tissues == label]) for label in (1, 2, 3))
        assert csf < gm < wm
        gm, wm, csf = (np.median(patient.flair[patient.tissues == label]) for label in (1, 2, 3))
        assert csf < 0.8 * min(gm, wm)
