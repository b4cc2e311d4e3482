"""Networks on images of any orientation and voxel size."""

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.special import expit, logit
from torch import nn

from tumorreg_wf.images import dilate_mask, resample, voxel_spacing
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.models.inference import (
    ARCHITECTURES,
    EDGE,
    PEAK,
    VIEWS,
    inpaint,
    load_network,
    save_network,
    segment,
    tumor_parts,
)
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D
from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble
from tumorreg_wf.models.unet3d import MirrorUNet
from tumorreg_wf.weights import read_weights

ORIENTATIONS = ['RAS', 'LAS', 'LPS', 'PIR']


def array(image):
    return np.asanyarray(image.dataobj)


def like(data, image):
    return nb.Nifti1Image(data.astype(np.float32), image.affine)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope='module')
def patient(phantom):
    """T1w and FLAIR, normalised, brain and tumour."""
    inside = array(phantom.brain) > 0
    grey = {'t1w': ('T1w', phantom.t1w), 'flair': ('FLAIR', phantom.flair)}
    images = {
        key: like(normalize(array(image), inside, reference_quantiles(modality)), image)
        for key, (modality, image) in grey.items()
    }
    return images | {'brain': phantom.brain, 'tumor': phantom.tumor}


@pytest.fixture(params=[UNet, SlabUNet])
def unet(request, monkeypatch):
    """Random weights, sure of nothing, whose output is neither all tumour nor all brain."""
    monkeypatch.setattr('tumorreg_wf.models.inference.PEAK', 0.5)
    torch.manual_seed(0)
    network = request.param(width=4).eval()
    with torch.no_grad():
        network.head.weight.mul_(20)
    return network


@pytest.fixture(params=[(PConvNet, {'dilations': (1, 2, 4, 8)}), (PConvUNet3D, {'levels': 3})])
def pconv(request):
    torch.manual_seed(0)
    network, config = request.param
    return network(width=4, **config).eval()


class Bright(nn.Module):
    """Calls tumour what is bright in FLAIR."""

    dimensions, offsets = 2, (0,)

    def forward(self, x):
        return 20 * (x[:, 1:] - 2)


class Constant(nn.Module):
    dimensions = 2

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, mask):
        return torch.full_like(x, self.value)


class TestNetworkFiles:
    @pytest.mark.parametrize(
        ('network', 'config'),
        [
            (UNet, {'width': 4}),
            (PConvNet, {'width': 2, 'dilations': [1, 2]}),
            (PConvUNet3D, {'width': 2, 'levels': 2}),
        ],
    )
    def test_round_trip(self, tmp_path, network, config):
        written = network(**config)
        path = tmp_path / 'a.safetensors'
        save_network(written, path, name='a', task='inpainting', config=config, spacing=1.5)
        weights = read_weights(path)
        assert (weights.name, weights.task, weights.spacing) == ('a', 'inpainting', 1.5)
        assert ARCHITECTURES[weights.architecture] is network
        read = load_network(weights)
        assert not read.training
        for key, value in written.state_dict().items():
            stored = value.half().float() if value.ndim > 2 else value
            torch.testing.assert_close(read.state_dict()[key], stored, rtol=0, atol=0)


class TestSegment:
    def test_probability_and_mask(self, patient, unet):
        probability, mask = segment(
            unet, patient['t1w'], patient['flair'], patient['brain'], spacing=2
        )
        assert probability.shape == mask.shape == patient['t1w'].shape
        assert probability.dtype == np.float32 and mask.dtype == bool
        assert probability.min() >= 0 and probability.max() <= 1
        assert not probability[array(patient['brain']) == 0].any()
        assert mask.any() and not mask[probability < EDGE].any()

    @pytest.mark.parametrize('axcodes', ORIENTATIONS)
    @pytest.mark.parametrize('thick', [1, 2])
    @pytest.mark.parametrize('spacing', [1.0, 2.0])
    def test_the_tumor_is_found_where_it_is(self, patient, turned, axcodes, thick, spacing):
        images = {
            key: turned(image.slicer[:, :, ::thick], axcodes) for key, image in patient.items()
        }
        _, mask = segment(
            Bright(), images['t1w'], images['flair'], images['brain'], spacing=spacing
        )
        assert dice(mask, array(images['tumor']) > 0) > 0.85

    @pytest.mark.parametrize('spacing', [2.0, 2.5])
    def test_orientation_on_disk_does_not_matter(self, patient, turned, unet, spacing):
        results = []
        for axcodes in ('RAS', 'LPS', 'PIR'):
            images = {key: turned(image, axcodes) for key, image in patient.items()}
            found = segment(unet, images['t1w'], images['flair'], images['brain'], spacing=spacing)
            back = [array(turned(like(part, images['t1w']), 'RAS')) for part in found]
            results.append(back)
        assert 0 < results[0][1].mean() < 0.9
        for probability, mask in results[1:]:
            np.testing.assert_allclose(probability, results[0][0], atol=1e-4)
            np.testing.assert_array_equal(mask, results[0][1])

    def test_t1w_alone(self, patient, unet):
        seen = []
        unet.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
        probability, _ = segment(unet, patient['t1w'], None, patient['brain'], spacing=2)
        assert probability.max() > 0
        slices = len(unet.offsets)
        assert seen[0].shape[1] == 2 * slices
        assert not any(batch[:, slices:].any() for batch in seen)

    def test_slices_are_padded_and_put_back(self, patient, monkeypatch):
        """A network that gives its input back, against the same by hand."""
        monkeypatch.setattr('tumorreg_wf.models.inference.VIEWS', [(1.0, False)])
        t1w = array(patient['t1w'])

        class Echo(nn.Module):
            dimensions, offsets = 2, (0,)

            def forward(self, x):
                assert x.shape[-2] % 32 == 0 and x.shape[-1] % 32 == 0
                return x[:, :1]

        probability, _ = segment(Echo(), patient['t1w'], None, patient['brain'], spacing=2)
        slices = np.flatnonzero((t1w != 0).any((0, 1)))
        expected = 1 / (1 + np.exp(-t1w[..., slices].astype(float)))
        padded = np.pad(expected, ((0, 0), (0, 0), (1, 1)), mode='edge')
        expected = 0.25 * padded[..., :-2] + 0.5 * expected + 0.25 * padded[..., 2:]
        inside = array(patient['brain'])[..., slices] > 0
        assert len(slices) % 8  # the last batch is not full
        np.testing.assert_allclose(probability[..., slices][inside], expected[inside], atol=1e-5)

    def test_both_orientations_are_averaged(self, patient, monkeypatch):
        """A network that tells left from right, against the same by hand."""
        monkeypatch.setattr('tumorreg_wf.models.inference.VIEWS', [(1.0, False), (1.0, True)])

        class Ramp(nn.Module):
            dimensions, offsets = 2, (0,)

            def forward(self, x):
                return x[:, :1] * torch.linspace(0, 1, x.shape[2])[:, None]

        probability, _ = segment(Ramp(), patient['t1w'], None, patient['brain'], spacing=2)
        t1w, inside = array(patient['t1w']).astype(float), array(patient['brain']) > 0
        filled = np.flatnonzero((t1w != 0).any((1, 2)))
        ramp = np.linspace(0, 1, -(-len(filled) // 32) * 32)[: len(filled), None, None]
        expected = 1 / (1 + np.exp(-t1w[filled] * (ramp + ramp[::-1]) / 2))
        middle = slice(20, 24)  # away from the ends, smoothing does nothing to a smooth image
        difference = np.abs(probability[filled] - expected)[..., middle][
            inside[filled][..., middle]
        ]
        assert np.median(difference) < 0.01

    @pytest.mark.parametrize('view', VIEWS)
    def test_a_view_finds_what_is_there_where_it_is(self, patient, monkeypatch, view):
        monkeypatch.setattr('tumorreg_wf.models.inference.VIEWS', [view])
        images = [patient[key] for key in ('t1w', 'flair', 'brain')]
        _, mask = segment(Bright(), *images, spacing=2)
        assert dice(mask, array(patient['tumor']) > 0) > 0.85

    def test_views_differ_in_size(self, patient, monkeypatch):
        seen = []
        monkeypatch.setattr('tumorreg_wf.models.inference.SIZE_MULTIPLE', 1)

        class Watching(Bright):
            def forward(self, x):
                seen.append(x.shape[-1])
                return super().forward(x)

        segment(Watching(), patient['t1w'], patient['flair'], patient['brain'], spacing=2)
        full = seen[0]
        assert sorted(set(seen)) == [round(0.87 * full), full, round(1.15 * full)]

    def test_neighbours_are_where_the_network_wants_them(self, patient, monkeypatch):
        """2 mm up and 4 mm down, in voxels of 2 mm, of both modalities."""
        monkeypatch.setattr('tumorreg_wf.models.inference.VIEWS', [(1.0, False)])
        seen = []

        class Watching(nn.Module):
            dimensions, offsets = 2, (-4, 0, 2)

            def forward(self, x):
                seen.append(x)
                return x[:, :1]

        flair = like(2 * array(patient['t1w']), patient['t1w'])
        segment(Watching(), patient['t1w'], flair, patient['brain'], spacing=2)
        straight = torch.cat(seen)
        below, here, above = straight[:, :3].unbind(1)
        torch.testing.assert_close(below[2:], here[:-2])
        torch.testing.assert_close(above[:-1], here[1:])
        assert not below[:2].any() and not above[-1].any() and here.any()
        torch.testing.assert_close(straight[:, 3:], 2 * straight[:, :3])

    def test_a_brain_is_shown_upright_and_its_tumor_found_where_it_is(self, patient, turned):
        """Turned by 12 degrees about the long axis, off the middle."""
        seen = []

        class Bright3D(MirrorUNet):
            def forward(self, x):
                seen.append(x)
                return 20 * (x[:, 1:] - 2)

        turn = nb.affines.from_matvec(Rotation.from_euler('z', 12, degrees=True).as_matrix())
        there = nb.Nifti1Image(np.zeros((56, 60, 50)), turn @ patient['t1w'].affine)
        images = {
            key: resample(image, there, order=0 if key in ('brain', 'tumor') else 1)
            for key, image in patient.items()
        }
        probability, mask = segment(
            Bright3D(), images['t1w'], images['flair'], images['brain'], spacing=2
        )
        assert dice(mask, array(images['tumor']) > 0) > 0.8
        assert not probability[array(images['brain']) == 0].any()
        one, mirrored = seen
        assert one.shape == (1, 2, 80, 96, 80)
        assert torch.equal(one.flip(2), mirrored)
        inside = (one[:, :1] != 0).numpy()
        assert dice(inside, inside[:, :, ::-1]) > 0.95

    def test_a_brain_larger_than_the_field_of_view(self, patient, monkeypatch):
        monkeypatch.setattr(MirrorUNet, 'field_of_view', (32, 32, 32))
        monkeypatch.setattr(MirrorUNet, 'forward', lambda self, x: 20 * (x[:, 1:] - 2))
        images = [patient[key] for key in ('t1w', 'flair', 'brain')]
        _, mask = segment(MirrorUNet(width=2), *images, spacing=2)
        assert dice(mask, array(patient['tumor']) > 0) > 0.85

    @pytest.mark.parametrize('with_flair', [True, False])
    def test_an_ensemble_is_the_mean_of_its_members(self, patient, with_flair):
        torch.manual_seed(0)
        kinds = [{'network': 'SlabUNet'}, {'network': 'UNet', 'needs_flair': True}]
        kinds += [{'network': 'MirrorUNet'}]
        ensemble = UNetEnsemble([{'width': 4, 'levels': 2, **kind} for kind in kinds]).eval()
        flair = patient['flair'] if with_flair else None
        images = patient['t1w'], flair, patient['brain']
        together, _ = segment(ensemble, *images, spacing=2)
        members = [ensemble.members[k] for k in ([0, 1, 2] if with_flair else [0, 2])]
        alone = [segment(member, *images, spacing=2)[0] for member in members]
        inside = together > 0
        # smoothing over slices comes after the mean of logits
        assert np.ptp([one[inside].mean() for one in alone]) > 0.01
        expected = expit(np.mean([logit(np.clip(one[inside], 1e-6, 1)) for one in alone], 0))
        assert np.quantile(np.abs(together[inside] - expected), 0.95) < 0.015

    def test_specks_are_no_tumor(self, patient):
        flair = np.zeros(patient['t1w'].shape)
        flair[20:23, 25:29, 20:24] = 5  # 384 mm^3
        flair[20:31, 30:41, 12:30] = 5
        _, mask = segment(
            Bright(), patient['t1w'], like(flair, patient['t1w']), patient['brain'], spacing=2
        )
        assert mask[25, 35, 20] and not mask[22, 27, 22]

    def test_no_brain(self, patient, unet):
        nothing = like(np.zeros(patient['t1w'].shape), patient['t1w'])
        probability, mask = segment(unet, nothing, None, nothing, spacing=2)
        assert not probability.any() and not mask.any()


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
            'tumorreg_wf.models.inference.close_seam', lambda output, *_, **__: output
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


def test_unsure_parts_and_specks_go_but_every_confident_part_stays():
    probability = np.zeros((40, 20, 20), np.float32)
    probability[2:12, 5:15, 5:15] = 0.7  # the largest, though not sure
    probability[16:24, 5:13, 5:13] = 0.9
    probability[28:36, 5:13, 5:13] = 0.6
    probability[38, 2, 2] = 0.99
    kept = tumor_parts(probability, np.full(3, 2.0))
    assert kept[5, 10, 10] and kept[20, 8, 8]
    assert not kept[30, 8, 8] and not kept[38, 2, 2]


def test_a_part_reaches_as_far_as_it_is_likely():
    probability = np.zeros((40, 20, 20), np.float32)
    probability[2:14, 4:16, 4:16] = EDGE + 0.05
    probability[4:12, 6:14, 6:14] = 0.9
    probability[24:36, 4:16, 4:16] = PEAK - 0.05  # nowhere likely enough
    expected = np.zeros_like(probability, bool)
    expected[2:14, 4:16, 4:16] = True
    np.testing.assert_array_equal(tumor_parts(probability, np.full(3, 2.0)), expected)
