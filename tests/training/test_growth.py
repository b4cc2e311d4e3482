"""Tumours that grow and push."""

import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training.fields import jacobian
from tumorreg_wf.training.growth import mass_effect, random_tumor


@pytest.mark.parametrize('seed', range(4))
def test_random_tumor_is_glioma_shaped(tissues, spacing, seed):
    labels = random_tumor(tissues, spacing, np.random.default_rng(seed), volume_ml=60)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels > 0).sum() * np.prod(spacing) / 1000 == pytest.approx(60, rel=0.35)
    assert not np.any(labels[tissues == 0])
    assert not np.any((labels == 1) & (tissues == 3))
    assert np.mean(tissues[labels == 1] == 2) > np.mean(tissues[tissues > 0] == 2)


def test_a_brain_without_white_matter_has_no_glioma(tissues, spacing):
    with pytest.raises(TumorregError, match='without white matter'):
        random_tumor(np.where(tissues == 2, 1, tissues), spacing, np.random.default_rng(0), 60)


def test_mass_effect_keeps_to_its_range(tissues, spacing):
    tumor = random_tumor(tissues, spacing, np.random.default_rng(0), volume_ml=80)
    push = mass_effect(tumor, tissues > 0, spacing, np.random.default_rng(0), (9, 10))
    assert 6 < np.linalg.norm(push, axis=-1).max() <= 10
    assert jacobian(push, spacing).min() > 0.1
    assert not push[tissues == 0].any()
