"""Holes in images of any orientation and voxel size."""

import nibabel as nb
import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.images import dilate_mask, voxel_spacing
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.models.inpainting import inpaint
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D, RefinedPConvUNet3D

ORIENTATIONS = ['RAS', 'LAS', 'LPS', 'PIR']


def array(image):
    return np.asanyarray(image.dataobj)


def like(data, image):
    return nb.Nifti1Image(data.astype(np.float32), image.affine)


@pytest.fixture(
    params=[
        (PConvNet, {'dilations': (1, 2, 4, 8)}),
        (PConvUNet3D, {'levels': 3}),
        (RefinedPConvUNet3D, {}),
    ]
)
def pconv(request):
    torch.manual_seed(0)
    network, config = request.param
    return network(width=4, **config).eval()


class Constant(nn.Module):
    dimensions = 2

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, mask):
        return torch.full_like(x, self.value)


class TestInpaint:
    @staticmethod
    def holed(phantom, turned, axcodes, thick):
        """T1w with something beyond the brain, a hole that reaches out of it, and the brain."""
        noise = np.random.default_rng(0).normal(40, 9, phantom.t1w.shape).astype(np.float32)
        t1w = like(np.where(array(phantom.brain) > 0, array(phantom.t1w), noise), phantom.t1w)
        hole = dilate_mask(array(phantom.tumor) > 0, voxel_spacing(phantom.t1w), 12)
        images = t1w, like(hole, t1w), phantom.brain
        return [turned(image.slicer[:, :, ::thick], axcodes) for image in images]

    @pytest.mark.parametrize('axcodes', ORIENTATIONS)
    @pytest.mark.parametrize(('thick', 'spacing'), [(1, 2.0), (2, 2.0), (1, 3.0)])
    def test_only_brain_in_the_hole_changes(self, phantom, turned, pconv, axcodes, thick, spacing):
        t1w, hole, brain = self.holed(phantom, turned, axcodes, thick)
        data, inside = array(t1w).copy(), array(brain) > 0
        missing = (array(hole) > 0) & inside
        assert ((array(hole) > 0) & ~inside).any()
        recovered = inpaint(pconv, t1w, hole, brain, spacing=spacing)
        assert recovered.dtype == np.float32 and recovered.shape == data.shape
        assert recovered[~missing].tobytes() == data[~missing].tobytes()
        assert np.mean(recovered[missing] != data[missing]) > 0.99
        known = data[inside & ~missing]
        assert known.min() <= recovered[missing].min()
        assert recovered[missing].max() <= known.max()
        np.testing.assert_array_equal(array(t1w), data)

    def test_orientation_on_disk_does_not_matter(self, phantom, turned, pconv):
        results = []
        for axcodes in ORIENTATIONS:
            images = self.holed(phantom, turned, axcodes, 1)
            found = inpaint(pconv, *images, spacing=2.5)
            results.append(array(turned(like(found, images[0]), 'RAS')))
        for found in results[1:]:
            np.testing.assert_allclose(found, results[0], atol=0.5)

    @pytest.mark.parametrize('axcodes', ['RAS', 'PIR'])
    def test_what_was_in_the_hole_does_not_matter(self, phantom, turned, pconv, axcodes):
        t1w, hole, brain = self.holed(phantom, turned, axcodes, 2)
        wild = np.where(array(hole) > 0, 5e4, array(t1w))
        missing = (array(hole) > 0) & (array(brain) > 0)
        one, other = (
            inpaint(pconv, image, hole, brain, spacing=1.7) for image in (t1w, like(wild, t1w))
        )
        np.testing.assert_array_equal(one[missing], other[missing])

    def test_grey_values_come_back(self, phantom, monkeypatch):
        monkeypatch.setattr(
            'tumorreg_wf.models.inpainting.close_seam', lambda output, *_, **__: output
        )
        data, inside = array(phantom.t1w), array(phantom.brain) > 0
        known = inside & (array(phantom.tumor) == 0)
        values = normalize(data, known, reference_quantiles('T1w'))
        for fraction in (0.05, 0.4, 0.8):
            wanted = np.quantile(data[known], fraction)
            value = float(np.quantile(values[known], fraction))
            found = inpaint(Constant(value), phantom.t1w, phantom.tumor, phantom.brain, spacing=2)
            np.testing.assert_allclose(found[inside & ~known], wanted, rtol=0.01)

    def test_intensity_scale_does_not_matter(self, phantom, pconv):
        scaled = like(array(phantom.t1w) * 0.02, phantom.t1w)
        one, other = (
            inpaint(pconv, image, phantom.tumor, phantom.brain, spacing=2)
            for image in (phantom.t1w, scaled)
        )
        np.testing.assert_allclose(other, one * 0.02, rtol=1e-3, atol=1e-3)

    def test_slices_across_every_axis_are_seen(self, phantom):
        seen = []

        class Counting(nn.Module):
            dimensions = 2

            def forward(self, x, mask):
                assert (mask == 0).any((1, 2, 3)).all()
                seen.append(len(x))
                return torch.zeros_like(x)

        inpaint(Counting(), phantom.t1w, phantom.tumor, phantom.brain, spacing=2)
        hole = array(phantom.tumor) > 0
        assert sum(seen) == sum(hole.any(tuple({0, 1, 2} - {axis})).sum() for axis in range(3))

    def test_the_other_hemisphere_is_offered_where_it_belongs(self, phantom, turned):
        """A network that copies it, on a brain that is nearly its own mirror image."""
        data, inside = array(phantom.t1w).copy(), array(phantom.brain) > 0
        side = data.shape[0] // 2
        data[side:] = data[:side][::-1]  # also what the tumour hides
        inside[side:] = inside[:side][::-1]

        class Copy(nn.Module):
            dimensions = 3

            def forward(self, x, mask):
                return x[:, 1:]

        image, brain = like(data, phantom.t1w), like(inside, phantom.t1w)
        for axcodes in ('RAS', 'PIR'):
            t1w, hole, turned_brain = (
                turned(part, axcodes) for part in (image, phantom.tumor, brain)
            )
            found = inpaint(Copy(), t1w, hole, turned_brain, spacing=2)
            missing = (array(hole) > 0) & (array(turned_brain) > 0)
            assert np.corrcoef(found[missing], array(t1w)[missing])[0, 1] > 0.8

    def test_the_hole_is_hidden_on_the_other_side_too(self, phantom):
        """What is mirrored into the other hemisphere is the tumour itself."""
        seen = []

        class Watch(nn.Module):
            dimensions = 3

            def forward(self, x, mask):
                seen.append(mask[0])
                return x[:, :1]

        inpaint(Watch(), phantom.t1w, phantom.tumor, phantom.brain, spacing=2)
        own, other = (int((mask == 0).sum()) for mask in seen[0])
        missing = (array(phantom.tumor) > 0) & (array(phantom.brain) > 0)
        expected = missing.sum() * np.prod(voxel_spacing(phantom.t1w)) / 8
        assert own == pytest.approx(expected, rel=0.6)
        assert other == pytest.approx(own, rel=0.35)

    def test_a_hole_smaller_than_a_voxel_of_the_network(self, phantom, pconv):
        hole = np.zeros(phantom.t1w.shape)
        hole[tuple(np.argwhere(array(phantom.brain) > 0)[4000])] = 1
        fine = like(array(phantom.t1w), phantom.t1w)
        found = inpaint(pconv, fine, like(hole, fine), phantom.brain, spacing=8)
        assert np.isfinite(found).all()

    def test_nothing_to_fill(self, phantom, pconv):
        nothing = like(np.zeros(phantom.t1w.shape), phantom.t1w)
        found = inpaint(pconv, phantom.t1w, nothing, phantom.brain, spacing=2)
        np.testing.assert_array_equal(found, array(phantom.t1w))

    def test_nothing_to_fill_from(self, phantom, pconv):
        found = inpaint(pconv, phantom.t1w, phantom.brain, phantom.brain, spacing=2)
        np.testing.assert_array_equal(found, array(phantom.t1w))

    def test_integer_images(self, phantom, pconv):
        whole = nb.Nifti1Image(array(phantom.t1w).astype(np.int16), phantom.t1w.affine)
        found = inpaint(pconv, whole, phantom.tumor, phantom.brain, spacing=2)
        outside = array(phantom.tumor) == 0
        np.testing.assert_array_equal(found[outside], array(whole)[outside])
