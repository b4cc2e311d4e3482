"""Tumours in images of any orientation and voxel size."""

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.special import expit, logit
from torch import nn

from tumorreg_wf.images import dilate_mask, resample, voxel_spacing
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.models.segmentation import EDGE, PEAK, VIEWS, segment, tumor_parts
from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble
from tumorreg_wf.models.unet3d import MirrorUNet

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
    monkeypatch.setattr('tumorreg_wf.models.segmentation.PEAK', 0.5)
    torch.manual_seed(0)
    network = request.param(width=4).eval()
    with torch.no_grad():
        network.head.weight.mul_(20)
    return network


class Bright(nn.Module):
    """Calls tumour what is bright in FLAIR."""

    dimensions, offsets = 2, (0,)

    def forward(self, x):
        return 20 * (x[:, 1:] - 2)


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
        monkeypatch.setattr('tumorreg_wf.models.segmentation.VIEWS', [(1.0, False)])
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
        monkeypatch.setattr('tumorreg_wf.models.segmentation.VIEWS', [(1.0, False), (1.0, True)])

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
        monkeypatch.setattr('tumorreg_wf.models.segmentation.VIEWS', [view])
        images = [patient[key] for key in ('t1w', 'flair', 'brain')]
        _, mask = segment(Bright(), *images, spacing=2)
        assert dice(mask, array(patient['tumor']) > 0) > 0.85

    def test_views_differ_in_size(self, patient, monkeypatch):
        seen = []
        monkeypatch.setattr('tumorreg_wf.models.networks.SIZE_MULTIPLE', 1)

        class Watching(Bright):
            def forward(self, x):
                seen.append(x.shape[-1])
                return super().forward(x)

        segment(Watching(), patient['t1w'], patient['flair'], patient['brain'], spacing=2)
        full = seen[0]
        assert sorted(set(seen)) == [round(0.87 * full), full, round(1.15 * full)]

    def test_neighbours_are_where_the_network_wants_them(self, patient, monkeypatch):
        """2 mm up and 4 mm down, in voxels of 2 mm, of both modalities."""
        monkeypatch.setattr('tumorreg_wf.models.segmentation.VIEWS', [(1.0, False)])
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
        # tissue, where the FLAIR is below 2, is none
        tissue = array(images['brain']) > 0
        tissue &= ~dilate_mask(array(images['tumor']) > 0, voxel_spacing(there), 6)
        assert np.median(probability[tissue]) < 0.01
        assert not probability[array(images['brain']) == 0].any()
        one, mirrored, smaller, _, larger, _ = seen
        assert one.shape == (1, 2, 80, 96, 80)
        assert torch.equal(one.flip(2), mirrored)
        shown = [int((view[:, 0] != 0).sum()) for view in (smaller, one, larger)]
        np.testing.assert_allclose(
            np.array(shown) / shown[1], np.array([0.89, 1, 1.12]) ** 3, 0.05
        )
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
        assert np.ptp([one[inside].mean() for one in alone]) > 0.005
        expected = expit(np.mean([logit(np.clip(one[inside], 1e-6, 1)) for one in alone], 0))
        assert np.quantile(np.abs(together[inside] - expected), 0.95) < 0.015

    def test_who_needs_a_flair_is_asked_where_there_is_one(self, patient):
        """A FLAIR of the upper slices: below, the T1w is all there is."""
        torch.manual_seed(0)
        kinds = [{'network': 'SlabUNet'}, {'network': 'UNet', 'needs_flair': True}]
        ensemble = UNetEnsemble([{'width': 4, 'levels': 2, **kind} for kind in kinds]).eval()
        part = array(patient['flair']).copy()
        part[:, :, :20] = 0
        images = patient['t1w'], like(part, patient['t1w']), patient['brain']
        together, _ = segment(ensemble, *images, spacing=2)
        slabs, unet = (segment(member, *images, spacing=2)[0] for member in ensemble.members)
        inside = together > 0
        below, above = inside.copy(), inside.copy()
        below[:, :, 19:], above[:, :, :21] = False, False  # away from the smoothing over slices
        assert below.any() and above.any()
        np.testing.assert_allclose(together[below], slabs[below], atol=1e-5)
        lower, upper = np.minimum(slabs, unet), np.maximum(slabs, unet)
        assert np.abs(together - slabs)[above].max() > 0.01
        between = (together >= lower - 0.02) & (together <= upper + 0.02)
        assert between[above].mean() > 0.95

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


def test_unsure_parts_and_specks_go_but_every_confident_part_stays():
    probability = np.zeros((40, 20, 20), np.float32)
    probability[2:12, 5:15, 3:17] = 0.7  # not sure, but the largest by far
    probability[16:24, 5:13, 5:13] = 0.95
    probability[28:36, 5:13, 5:13] = 0.6
    probability[38, 2, 2] = 0.99
    kept = tumor_parts(probability, np.full(3, 2.5))
    assert kept[5, 10, 10] and kept[20, 8, 8]
    assert not kept[30, 8, 8] and not kept[38, 2, 2]
    kept = tumor_parts(probability, np.full(3, 2.0))  # 11 ml are not enough
    assert not kept[5, 10, 10] and kept[20, 8, 8]


def test_a_large_part_counts_if_it_is_likely_somewhere():
    probability = np.zeros((40, 40, 40), np.float32)
    probability[5:35, 5:35, 5:35] = PEAK - 0.05  # 27 ml
    assert not tumor_parts(probability, np.ones(3)).any()
    probability[20, 20, 20] = PEAK + 0.05
    assert tumor_parts(probability, np.ones(3)).sum() == 30**3


def test_a_part_reaches_as_far_as_it_is_likely():
    probability = np.zeros((40, 20, 20), np.float32)
    probability[2:14, 4:16, 4:16] = EDGE + 0.05
    probability[4:12, 6:14, 6:14] = 0.9
    probability[24:36, 4:16, 4:16] = PEAK - 0.05  # nowhere likely enough
    expected = np.zeros_like(probability, bool)
    expected[2:14, 4:16, 4:16] = True
    np.testing.assert_array_equal(tumor_parts(probability, np.full(3, 2.0)), expected)
