"""Tissues by a network: cubes, the way back to the image's grid, what maps sum to."""

import nibabel as nb
import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.images import resample
from tumorreg_wf.measures import dice
from tumorreg_wf.models.tissues import _starts, find_tissues, scale_intensity


class Bands(nn.Module):
    """Takes grey values about 0.7, 1 and 0.3 for GM, WM and CSF; remembers what it saw."""

    dimensions, size = 3, 32

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        assert x.shape[1:] == (1, 32, 32, 32)
        self.seen.append(x)
        return torch.cat([-200 * (x - grey) ** 2 for grey in (0.7, 1.0, 0.3)], 1)


@pytest.fixture(scope='module')
def brain():
    """White matter in grey matter in fluid, right and left unlike; 1.5 mm, RAS; its tissues."""
    shape, spacing = np.array([64, 72, 50]), 1.5
    affine = nb.affines.from_matvec(np.eye(3) * spacing, -spacing * (shape - 1) / 2)
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    radius = np.sqrt((((where + [4, 0, 0]) / [38, 46, 30]) ** 2).sum(-1))
    tissues = np.select([radius < 0.6, radius < 0.8, radius < 1], [2, 1, 3], 0)
    tissues[(tissues == 2) & (where[..., 0] > 8)] = 1
    t1w = np.array([0, 560.0, 800, 240])[tissues]
    return nb.Nifti1Image(t1w.astype(np.float32), affine), tissues


def find(network, t1w, mask, **more):
    return find_tissues(network, t1w, nb.Nifti1Image(mask.astype(np.uint8), t1w.affine), **more)


@pytest.mark.parametrize('axcodes', ['RAS', 'LPS', 'PIR'])
def test_tissues_on_the_image_s_own_grid(brain, turned, axcodes):
    image, tissues = brain
    image = turned(image, axcodes)
    truth = turned(nb.Nifti1Image(tissues.astype(np.uint8), brain[0].affine), axcodes)
    truth = np.asanyarray(truth.dataobj)
    maps = find(Bands(), image, truth > 0)
    assert maps.dtype == np.float32 and maps.shape == (3, *image.shape)
    np.testing.assert_allclose(maps.sum(0), truth > 0, atol=1e-5)
    found = np.where(truth > 0, maps.argmax(0) + 1, 0)
    assert min(dice(found == index, truth == index) for index in (1, 2, 3)) > 0.9


@pytest.mark.parametrize('zooms', [(1, 1, 5), (0.6, 0.6, 0.6), (7, 7, 7)])
def test_any_voxels(brain, zooms):
    image, tissues = brain
    shape = np.ceil(np.array(image.shape) * 1.5 / zooms).astype(int)
    affine = nb.affines.rescale_affine(image.affine, image.shape, zooms, shape)
    there = nb.Nifti1Image(np.zeros(shape, np.float32), affine)
    truth = resample(nb.Nifti1Image(tissues.astype(np.float32), image.affine), there, order=0)
    inside = truth.get_fdata() > 0
    maps = find(Bands(), resample(image, there, order=1), inside)
    np.testing.assert_allclose(maps.sum(0), inside, atol=1e-5)


def test_what_is_outside_the_brain_is_not_seen(brain):
    """A skull, ever so bright, changes nothing."""
    image, tissues = brain
    skull = np.where(tissues > 0, image.get_fdata(), 9000).astype(np.float32)
    first, second = Bands(), Bands()
    with_skull = find(second, nb.Nifti1Image(skull, image.affine), tissues > 0)
    np.testing.assert_array_equal(find(first, image, tissues > 0), with_skull)
    assert all(torch.equal(one, other) for one, other in zip(first.seen, second.seen, strict=True))


def test_no_brain(brain):
    image, tissues = brain
    network = Bands()
    assert not find(network, image, tissues > 9).any() and not network.seen


def test_a_brain_of_one_grey_value(brain):
    image, tissues = brain
    flat = nb.Nifti1Image((tissues > 0).astype(np.float32), image.affine)
    maps = find(Bands(), flat, tissues > 0)
    assert np.isfinite(maps).all() and (maps.argmax(0)[tissues > 0] == 1).mean() > 0.8
    dark = find(Bands(), nb.Nifti1Image(flat.get_fdata() * 0, image.affine), tissues > 0)
    np.testing.assert_allclose(dark.sum(0), tissues > 0, atol=1e-5)


def test_cubes_cover_an_axis_and_overlap():
    for length in (96, 97, 176, 177, 200, 400):
        starts = _starts(length, 96)
        assert starts[0] == 0 and starts[-1] == length - 96
        assert all(0 < step <= 80 for step in np.diff(starts))


def test_white_matter_is_about_1(brain):
    image, tissues = brain
    scaled = scale_intensity(image.get_fdata(), tissues > 0)
    assert scaled.dtype == np.float32 and np.median(scaled[tissues == 2]) == pytest.approx(1)
    assert scale_intensity(np.full((2, 2, 2), -5.0), np.ones((2, 2, 2), bool)).min() == 0
