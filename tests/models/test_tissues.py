"""Tissues by a network: cubes, the way back to the image's grid, what maps sum to."""

import nibabel as nb
import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.images import resample
from tumorreg_wf.measures import dice
from tumorreg_wf.models.tissues import _starts, find_tissues, scale_intensity
from tumorreg_wf.models.unet3d import RefinedTissueUNet, look_both_ways
from tumorreg_wf.tissues import fit_grey_values


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


def find(network, t1w, mask, hole=None, **more):
    mask = nb.Nifti1Image(mask.astype(np.uint8), t1w.affine)
    return find_tissues(network, t1w, mask, hole, **more)


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


def test_images_are_seen_both_ways_in_their_place():
    """A network whose answer depends on the place in the cube, and on the block of eight."""
    place = torch.arange(8.0).reshape(8, 1, 1) + torch.tensor([0.0, 1.0] * 4)

    def network(x):
        return torch.cat([x * place, -x], 1)

    x = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, :, -1], x[:, :, :, -1], x[..., -1] = 0, 0, 0  # nothing comes round the edge
    seen = look_both_ways(network, x)
    there = place.roll((-1, -1, -1), (0, 1, 2)).flip(0).roll(-2, 0)  # voxel i is seen at 6 - i
    expected = [torch.softmax(torch.cat([x * where, -x], 1), 1) for where in (place, there)]
    assert torch.allclose(seen, sum(expected) / 2)
    assert not torch.allclose(*expected)


class Refined(Bands):
    """Bands, and what is given to refine them; says GM everywhere."""

    def refine(self, image, maps, found):
        self.given = image, maps, found
        return torch.tensor([9.0, 0, 0]).reshape(3, 1, 1, 1).expand(maps.shape)


def test_maps_and_grey_values_are_weighed_outside_the_tumour(brain):
    image, tissues = brain
    hole = np.zeros(tissues.shape, np.uint8)
    hole[:, :20] = 1
    network = Refined()
    maps = find(network, image, tissues > 0, hole=nb.Nifti1Image(hole, image.affine), spacing=1.5)
    labels = np.where(tissues > 0, maps.argmax(0) + 1, 0)
    known = (tissues > 0) & (hole == 0)
    assert (labels[known] == 1).all()
    under = (tissues > 0) & (hole > 0)
    assert (labels == tissues)[under].mean() > 0.95
    found = network.given[-1]
    np.testing.assert_allclose(found.mean, [0.7, 1.0, 0.3], atol=0.05)


def test_a_network_that_cannot_weigh(brain):
    """The mean of both: surer than the maps where grey values are."""
    image, tissues = brain
    maps = find(Bands(), image, tissues > 0, spacing=1.5)
    labels = np.where(tissues > 0, maps.argmax(0) + 1, 0)
    assert min(dice(labels == index, tissues == index) for index in (1, 2, 3)) > 0.98


@pytest.fixture
def refining():
    torch.manual_seed(0)
    return RefinedTissueUNet(width=2)


def test_layers_that_weigh_begin_with_the_mean(refining):
    rng = np.random.default_rng(0)
    maps = rng.dirichlet([1, 1, 1], (8, 8, 8)).transpose(3, 0, 1, 2).astype(np.float32)
    image = np.tensordot([0.7, 1.0, 0.3], maps, 1) + rng.normal(0, 0.05, (8, 8, 8))
    everywhere = np.ones(image.shape, bool)
    found = fit_grey_values(image, everywhere, maps)
    logits = refining.refine(image, maps, found)
    expected = np.log((maps + found.maps) / 2 + refining.least)
    np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-5)


def test_the_scale_of_an_image_does_not_matter_to_them(refining):
    torch.nn.init.normal_(refining.head.weight)
    rng = np.random.default_rng(0)
    maps = rng.dirichlet([1, 1, 1], (8, 8, 8)).transpose(3, 0, 1, 2).astype(np.float32)
    image = np.tensordot([0.7, 1.0, 0.3], maps, 1) + rng.normal(0, 0.05, (8, 8, 8))
    everywhere = np.ones(image.shape, bool)
    one, other = (
        refining.refine(scaled, maps, fit_grey_values(scaled, everywhere, maps))
        for scaled in (image, 40 * image)
    )
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_they_alone_learn_and_an_odd_image_is_no_error(refining):
    refining.unet = Bands()
    levels = torch.tensor([0.7, 1.0, 0.3])
    image = levels[torch.randint(3, (2, 1, 32, 32, 32))] + 0.02 * torch.randn(2, 1, 32, 32, 32)
    image[1] = 1  # no T1w
    logits = refining(image)
    assert logits.shape == (2, 3, 32, 32, 32)
    logits[0, 0].mean().backward()
    assert refining.head.weight.grad.any()
    refining(image[1:]).mean().backward()  # nothing to learn
    assert not any(values.requires_grad for values in RefinedTissueUNet(2).unet.parameters())
