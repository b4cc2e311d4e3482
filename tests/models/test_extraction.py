"""Brain extraction: the field of view, the way back to the image's grid, the largest part."""

import nibabel as nb
import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import resample
from tumorreg_wf.models import extraction
from tumorreg_wf.models.extraction import (
    extract_brain,
    largest_part,
    require_brain,
    scale_intensity,
)
from tumorreg_wf.models.unet3d import BrainUNet, TwoStageBrainUNet


class Bright(nn.Module):
    """Takes what is bright for brain; remembers what it saw."""

    dimensions, size = 3, 64

    def __init__(self, cut=0.4):
        super().__init__()
        self.cut, self.seen = cut, []

    def forward(self, x):
        self.seen.append(x)
        return 40 * (x - self.cut)


@pytest.fixture(scope='module')
def head():
    """A brain with a ventricle in the bone and skin of a head; RAS, 3 mm, 240 x 270 x 210 mm."""
    shape, spacing = np.array([80, 90, 70]), 3.0
    affine = nb.affines.from_matvec(np.eye(3) * spacing, -spacing * (shape - 1) / 2)
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    radius = np.sqrt((((where - [0, 0, 15]) / [60, 75, 55]) ** 2).sum(-1))
    brain = radius < 1
    t1w = 800.0 * brain + 700 * ((radius > 1.25) & (radius < 1.35))
    t1w[((where - [0, 5, 20]) ** 2).sum(-1) < 9**2] = 100
    return nb.Nifti1Image(t1w.astype(np.float32), affine), brain


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize('axcodes', ['RAS', 'LPS', 'PIR'])
def test_the_brain_without_the_rest_of_the_head(head, turned, axcodes, monkeypatch):
    monkeypatch.setattr(extraction, 'THRESHOLD', 0.5)  # no more than the network is sure of
    image, brain = head
    halfway = Bright(0.5)  # between the brain and what is around it
    probability, mask = extract_brain(halfway, turned(image, axcodes), spacing=4.0)
    assert probability.dtype == np.float32 and 0 <= probability.min() <= probability.max() <= 1
    expected = np.asanyarray(turned(nb.Nifti1Image(brain * 1.0, image.affine), axcodes).dataobj)
    assert dice(mask, expected > 0) > 0.97  # the ventricle is filled, the skin is not there


@pytest.mark.parametrize('zooms', [(1.5, 1.5, 6), (5, 5, 5), (2, 4, 2)])
def test_any_voxel_size(head, zooms):
    image, brain = head
    linear = np.diag(zooms) @ nb.eulerangles.euler2mat(0.1, 0.15, -0.1)
    shape = np.ceil(np.array([220, 250, 200]) / np.sort(zooms)).astype(int)
    affine = nb.affines.from_matvec(linear, -linear @ (shape - 1) / 2)
    target = nb.Nifti1Image(np.zeros(shape, np.uint8), affine)
    expected = resample(nb.Nifti1Image(brain * 1.0, image.affine), target, order=1).get_fdata()
    _, mask = extract_brain(Bright(), resample(image, target, order=1), spacing=4.0)
    assert mask.shape == target.shape
    assert dice(mask, expected >= 0.5) > 0.95


def test_it_sees_one_field_of_view_about_the_brain(head):
    """However large the image is, and wherever the head is in it."""
    image, _ = head
    data = np.asanyarray(image.dataobj)
    views = []
    for before, after in ((0, 0), (40, 10)):
        network = Bright()
        affine = image.affine.copy()
        affine[:3, 3] -= 3 * before
        larger = nb.Nifti1Image(np.pad(data, [(before, after)] * 3), affine)
        _, mask = extract_brain(network, larger, spacing=4.0)
        assert mask.any()
        assert {tuple(x.shape) for x in network.seen} == {(1, 1, 64, 64, 64)}
        assert len(network.seen) == 4  # twice, each as it is and mirrored
        views.append(network.seen[-2][0, 0])  # not mirrored, the second time
    for axis in range(3):
        inside = views[0].amax(dim=[other for other in range(3) if other != axis]) > 0.4
        assert inside.float().argmax() > 5
    assert (views[0] - views[1]).abs().mean() < 0.02


def test_what_lies_beyond_the_image_is_air(head):
    image, _ = head
    network = Bright()
    extract_brain(network, image.slicer[:, :, 35:], spacing=4.0)  # the upper half
    seen = network.seen[-2][0, 0]
    assert not seen[:, :, 0].any() and not seen[:, :, -1].any()


def test_a_known_tumor_is_brain(head):
    """As dark as the bone it lies next to; what lies elsewhere in the head is not."""
    image, brain = head
    shape = np.indices(brain.shape)
    bulge = brain & (shape[0] > 52)
    data = np.where(bulge, 0, np.asanyarray(image.dataobj))
    stray = (shape[2] < 4) & (shape[0] > 74)
    tumor = nb.Nifti1Image((bulge | stray).astype(np.uint8), image.affine)
    dark = nb.Nifti1Image(data.astype(np.float32), image.affine)
    _, without = extract_brain(Bright(), dark, spacing=4.0)
    _, found = extract_brain(Bright(), dark, tumor, spacing=4.0)
    assert not without[shape[0] > 55].any()
    np.testing.assert_array_equal(found, without | bulge)


def test_scale_does_not_matter(head):
    image, _ = head
    data = np.asanyarray(image.dataobj)
    np.testing.assert_allclose(scale_intensity(data), scale_intensity(0.01 * data), atol=1e-5)
    assert scale_intensity(data).max() <= 1.5
    assert not scale_intensity(np.zeros((4, 4, 4), np.float32)).any()
    assert np.isfinite(scale_intensity(np.full((4, 4, 4), 7.0))).all()


def test_largest_part():
    mask = np.zeros((9, 9, 9), bool)
    mask[:2, :2, :2] = mask[4:8, 4:8, 4:8] = True
    assert largest_part(mask).sum() == 64
    assert not largest_part(np.zeros_like(mask)).any()


def test_no_brain_is_said(head):
    image, brain = head
    require_brain(brain, image)
    with pytest.raises(TumorregError, match=r'no brain in the T1w \(only 0 ml\)'):
        require_brain(np.zeros_like(brain), image)


def test_nothing_is_found_in_nothing():
    empty = nb.Nifti1Image(np.zeros((20, 20, 20), np.float32), np.diag([3, 3, 3, 1]))
    _, mask = extract_brain(Bright(), empty, spacing=4.0)
    assert not mask.any()


def test_network_keeps_the_size_and_sees_far():
    torch.manual_seed(0)
    network = BrainUNet(width=2).eval()
    x = torch.randn(1, 1, 64, 64, 64, requires_grad=True)
    out = network(x)
    assert out.shape == x.shape
    out[0, 0, 32, 32, 32].backward()
    reach = x.grad[0, 0].abs().sum((1, 2)).nonzero()
    assert reach.max() - reach.min() >= 60


@pytest.fixture
def staged():
    """Two stages: the first takes what is bright for brain, the second is untrained."""
    network = TwoStageBrainUNet(width=2)
    network.coarse = Bright()
    return network


@pytest.mark.parametrize('start', [(0, 0, 0), (20, 16, 12), (60, 2, 30)])
def test_a_second_stage_about_what_the_first_found(staged, start):
    """It starts by changing nothing; what it learns changes its window, not what is beyond."""
    x = torch.zeros(1, 1, 128, 128, 128)
    x[(0, 0, *(slice(low, low + 40) for low in start))] = 1
    with torch.no_grad():
        before = staged(x)
        assert torch.equal(before > 0, x > 0.5)
        staged.fine.head.bias.fill_(1.0)
        changed = (staged(x) - before)[0, 0]
    assert changed.unique().tolist() == pytest.approx([0, 1])
    where = changed.nonzero()
    assert (where.amax(0) - where.amin(0) + 1).tolist() == [96] * 3
    middle = (where.amax(0) + where.amin(0) + 1) / 2
    expected = np.clip(np.array(start) + 20, 48, 80)
    np.testing.assert_allclose(middle.numpy(), expected, atol=1)


def test_a_second_stage_where_the_first_found_nothing(staged):
    assert staged(torch.zeros(1, 1, 128, 128, 128)).shape == (1, 1, 128, 128, 128)


def test_the_first_stage_is_not_trained_with_the_second():
    network = TwoStageBrainUNet(width=2)
    network(torch.rand(1, 1, 128, 128, 128)).square().mean().backward()
    assert all(values.grad is None for values in network.coarse.parameters())
    assert network.fine.head.weight.grad.abs().sum() > 0
