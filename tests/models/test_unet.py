"""The segmentation networks."""

import pytest
import torch
from torch import nn

from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble


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

    @torch.no_grad()
    def test_an_ensemble_is_the_mean_of_its_members(self):
        torch.manual_seed(0)
        config = {'width': 4, 'levels': 2}
        kinds = [{'network': 'SlabUNet'}, {'network': 'UNet', 'needs_flair': True}]
        ensemble = UNetEnsemble([config | kind for kind in kinds]).eval()
        slabs = torch.randn(2, 10, 16, 16)
        slabs[1, 5:] = 0  # no FLAIR
        one = ensemble.members[0](slabs)
        other = ensemble.members[1](slabs[:, [2, 7]])  # sees the middle slices alone
        assert (one - other).abs().max() > 1e-3
        torch.testing.assert_close(ensemble(slabs)[0], (one + other)[0] / 2)
        torch.testing.assert_close(ensemble(slabs)[1], one[1])
        assert ensemble.offsets == SlabUNet().offsets
