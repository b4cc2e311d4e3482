"""Healthy brains: deformed, but whole."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training import brains


@pytest.fixture
def shifts(monkeypatch):
    """Deformations that move a brain by these, mm, one after the other."""
    waiting: list = []

    def deform(shape, spacing, rng):
        return np.full((*shape, 3), -waiting.pop(0), float)

    monkeypatch.setattr(brains, 'random_deformation', deform)
    return waiting


def ball(shape=(24, 24, 24)):
    where = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    return np.linalg.norm(where, axis=-1) < 8


def test_images_with_contrast_agent_are_not_healthy(tmp_path):
    anat = tmp_path / 'sub-01' / 'anat'
    anat.mkdir(parents=True)
    (tmp_path / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in ('sub-01_T1w', 'sub-01_ce-gadolinium_T1w'):
        (anat / f'{name}.nii.gz').touch()
    assert [path.name for path in brains.find_healthy(tmp_path)] == ['sub-01_T1w.nii.gz']


def test_a_deformation_that_cuts_the_brain_is_drawn_again(shifts):
    shifts += [6, -5, 2]
    deformation, bent = brains._bend(ball(), (1, 1, 1), np.random.default_rng(0), order=0)
    assert not shifts and (deformation == -2).all()
    np.testing.assert_array_equal(bent, np.roll(ball(), (2, 2, 2), (0, 1, 2)))


def test_a_brain_cut_before_may_be_cut_there(shifts):
    """The brain stem of a template ends at the edge of its image."""
    stem = ball()
    stem[11:13, 11:13, :8] = True
    shifts += [2]
    _, bent = brains._bend(stem, (1, 1, 1), np.random.default_rng(0), order=0)
    assert bent[..., 0].any()


def test_a_brain_too_large_for_its_grid(shifts):
    shifts += [9] * brains.TRIES
    with pytest.raises(TumorregError, match='too large'):
        brains._bend(ball(), (1, 1, 1), np.random.default_rng(0), order=0)


def test_any_of_the_shapes_is_put_in(tmp_path):
    for name, size in (('small', 1), ('large', 3)):
        labels = nb.Nifti1Image(np.ones((size,) * 3, np.uint8), np.eye(4))
        labels.to_filename(tmp_path / f'{name}.nii.gz')
    tissues, shapes = 2 * ball().astype(np.uint8), sorted(tmp_path.iterdir())
    volumes = {
        brains._tumor(tissues, (1, 1, 1), np.random.default_rng(seed), shapes, (5, 120)).sum()
        for seed in range(8)
    }
    assert volumes == {1, 27}
