"""The segmentation networks."""

import pytest
import torch
from torch import nn

from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble
from tumorreg_wf.models.unet3d import MirrorUNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return UNet(width=4).eval()


@pytest.mark.parametrize('size', [(8, 8), (32, 48), (40, 24)])
def test_one_logit_a_pixel(network, size):
    assert network(torch.randn(2, 2, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize(('channels', 'levels'), [(1, 1), (3, 2), (2, 4)])
def test_other_shapes(channels, levels):
    network = UNet(channels, 4, levels)
    assert network(torch.randn(1, channels, 32, 32)).shape == (1, 1, 32, 32)
    assert len(network.features(torch.randn(1, channels, 32, 32))) == levels + 1


def test_levels_of_the_paper():
    network = UNet(width=4)
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in network.modules()) == 3
    shapes = [tuple(m.shape[1:]) for m in network.features(torch.randn(1, 2, 32, 48))]
    assert shapes == [(4, 32, 48), (8, 16, 24), (16, 8, 12), (32, 4, 6)]


def test_skips_join_the_levels(network):
    """Without the deepest level, detail still comes through."""
    for layer in network.up:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    out = network(torch.randn(1, 2, 16, 16))
    assert out.std() > 1e-4


def test_every_parameter_learns(network):
    network.train()(torch.randn(2, 2, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_moves_with_the_image(network):
    image = torch.zeros(1, 2, 64, 64)
    image[..., 24:32, 24:32] = torch.randn(1, 2, 8, 8)
    moved = torch.roll(image, (8, 16), (2, 3))
    found = torch.roll(network(image), (8, 16), (2, 3))[..., 20:50, 28:58]
    torch.testing.assert_close(network(moved)[..., 20:50, 28:58], found, atol=1e-4, rtol=0)


class TestSlabs:
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return SlabUNet(width=4, levels=2).eval()

    @torch.no_grad()
    @pytest.mark.parametrize('size', [(8, 8), (32, 48)])
    def test_one_logit_a_pixel(self, network, size):
        assert network(torch.randn(2, 10, *size)).shape == (2, 1, *size)

    @torch.no_grad()
    def test_single_pixels_are_told_apart(self, network):
        """Folding loses no detail: each pixel of a block has its own logit."""
        out = network(torch.randn(1, 10, 16, 16))
        assert len(out[0, 0, 4:6, 4:6].unique()) == 4

    @torch.no_grad()
    def test_every_neighbour_of_either_modality_is_seen(self, network):
        slab = torch.randn(1, 10, 16, 16)
        expected = network(slab)
        for channel in range(10):
            changed = slab.clone()
            changed[:, channel] += 1
            assert (network(changed) - expected).abs().max() > 1e-4

    def test_every_parameter_learns(self, network):
        network.train()(torch.randn(4, 10, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


class TestMirrorUNet:
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return MirrorUNet(width=4, levels=2).eval()

    @torch.no_grad()
    @pytest.mark.parametrize('size', [(8, 16, 8), (16, 24, 32)])
    def test_one_logit_a_voxel(self, network, size):
        out = network(torch.randn(2, 2, *size))
        assert out.shape == (2, 1, *size)
        assert len(out[0, 0, 4:6, 4:6, 4:6].unique()) == 8

    @torch.no_grad()
    def test_the_other_hemisphere_is_seen(self):
        """Norms see everything a little; the mirrored voxel counts for much more."""
        torch.manual_seed(0)
        network = MirrorUNet(width=4, levels=0).eval()
        image = torch.randn(1, 2, 64, 16, 16)
        expected = network(image)[0, 0, 4, 8, 8]
        changes = []
        for x in (59, 40):  # across the middle from 4, and elsewhere
            changed = image.clone()
            changed[:, :, x, 7:10, 7:10] += 5
            changes.append(float((network(changed)[0, 0, 4, 8, 8] - expected).abs()))
        assert changes[0] > 3 * changes[1]

    def test_every_parameter_learns(self, network):
        network.train()(torch.randn(1, 2, 16, 16, 16)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    @pytest.mark.parametrize(
        ('spacing', 'least', 'size'),
        [
            (2.0, (0, 0, 0), (80, 96, 80)),
            (2.0, (81, 90, 97), (96, 96, 112)),
            (1.0, (0, 0, 0), (160, 192, 160)),
            (3.0, (0, 0, 0), (64, 64, 64)),
        ],
    )
    def test_a_brain_fits_in(self, spacing, least, size):
        assert MirrorUNet(width=2).size(spacing, least) == size


def test_members_of_an_ensemble():
    kinds = [{'network': 'SlabUNet'}, {'network': 'UNet', 'needs_flair': True}]
    kinds += [{'network': 'MirrorUNet'}]
    ensemble = UNetEnsemble([{'width': 4, 'levels': 2, **kind} for kind in kinds])
    assert [type(one) for one in ensemble.members] == [SlabUNet, UNet, MirrorUNet]
    assert ensemble.needs_flair == [False, True, False]
