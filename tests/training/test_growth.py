"""Tumours that grow and push."""

import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training import growth
from tumorreg_wf.training.fields import jacobian
from tumorreg_wf.training.growth import mass_effect, random_tumor


@pytest.mark.parametrize('seed', range(4))
def test_random_tumor_is_glioma_shaped(tissues, spacing, seed):
    labels = random_tumor(tissues, spacing, np.random.default_rng(seed), volume_ml=60)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels > 0).sum() * np.prod(spacing) / 1000 == pytest.approx(60, rel=0.1)
    assert 0.15 < (labels >= 2).sum() / (labels > 0).sum() < 0.6
    assert not np.any(labels[tissues == 0])
    assert not np.any((labels == 1) & (tissues == 3))
    assert np.mean(tissues[labels == 1] == 2) > np.mean(tissues[tissues > 0] == 2)


def test_a_core_has_no_holes(tissues, spacing, monkeypatch):
    """However unevenly it grows."""

    def rough(shape, spacing, scale, rng):
        return 1.5 * rng.standard_normal(shape, np.float32)

    monkeypatch.setattr(growth, 'random_field', rough)
    labels = random_tumor(tissues, spacing, np.random.default_rng(0), volume_ml=60)
    assert not (ndimage.binary_fill_holes(labels >= 2) & (labels == 1)).any()


def test_a_brain_without_white_matter_has_no_glioma(tissues, spacing):
    with pytest.raises(TumorregError, match='without white matter'):
        random_tumor(np.where(tissues == 2, 1, tissues), spacing, np.random.default_rng(0), 60)


def test_mass_effect_keeps_to_its_range(tissues, spacing):
    tumor = random_tumor(tissues, spacing, np.random.default_rng(0), volume_ml=80)
    push = mass_effect(tumor, tissues > 0, spacing, np.random.default_rng(0), (9, 10))
    assert 6 < np.linalg.norm(push, axis=-1).max() <= 10
    assert jacobian(push, spacing).min() > 0.1
    assert not push[tissues == 0].any()


def test_the_core_pushes_straight_away_from_itself():
    """And not the oedema, which reaches far to one side; whatever the voxels."""
    spacing = np.array([3.0, 3, 6])
    where = np.moveaxis(np.indices((40, 30, 15)), 0, -1) * spacing
    brain = np.pad(np.ones((36, 26, 13), bool), ((2, 2), (2, 2), (1, 1)))
    towards = [36, 45, 42] - where
    distance = np.linalg.norm(towards, axis=-1)
    tumor = (np.abs(where - [66, 45, 42]) < [36, 10, 10]).all(-1).astype(np.uint8)
    tumor[distance < 9] = 2
    push = mass_effect(tumor, brain, spacing, np.random.default_rng(0), (2, 6))
    around = (distance > 15) & (distance < 25)
    length = np.linalg.norm(push, axis=-1)[around]
    cosine = (push * towards).sum(-1)[around] / length / distance[around]
    assert cosine.min() > 0.97


def test_what_is_small_pushes_little(tissues, spacing):
    tumor = np.zeros_like(tissues)
    tumor[30, 25, 21] = 2
    push = mass_effect(tumor, tissues > 0, spacing, np.random.default_rng(0), (9, 10))
    radius = np.cbrt(3.5**3 * 3 / (4 * np.pi))
    assert np.linalg.norm(push, axis=-1).max() == pytest.approx(radius, rel=1e-3)
