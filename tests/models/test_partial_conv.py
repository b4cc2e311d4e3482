"""Partial convolutions against equations (1) and (2), written out window by window."""

import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.models.partial_conv import (
    PartialConv2d,
    PartialConv3d,
    PConvNet,
    PConvUNet3D,
    RefinedPConvUNet3D,
)


def partial_convolution(x, mask, weight, bias, dilation, stride):
    """Equations (1) and (2); beyond the border is hole."""
    outs, ins, size, _ = weight.shape
    count, _, height, width = x.shape
    reach = dilation * (size // 2)
    rows, columns = range(0, height, stride), range(0, width, stride)
    features = np.zeros((count, outs, len(rows), len(columns)))
    new_mask = np.zeros_like(features)
    for n in range(count):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                window, known = np.zeros((2, ins, size, size))
                for a in range(size):
                    for b in range(size):
                        y, z = row - reach + a * dilation, column - reach + b * dilation
                        if 0 <= y < height and 0 <= z < width:
                            window[:, a, b], known[:, a, b] = x[n, :, y, z], mask[n, :, y, z]
                if known.sum() == 0:
                    continue
                scale = known.size / known.sum()
                for o in range(outs):
                    features[n, o, i, j] = (weight[o] * window * known).sum() * scale + bias[o]
                    new_mask[n, o, i, j] = 1
    return features, new_mask


def make_masks(kind, shape, rng):
    mask = np.ones(shape)
    if kind == 'speckled':  # differs from channel to channel
        return (rng.random(shape) > 0.5).astype(float)
    if kind == 'sparse':
        return (rng.random(shape) > 0.97).astype(float)
    if kind == 'block':
        mask[..., 2:9, 3:10] = 0
    if kind == 'border':
        mask[..., :6, :] = 0
        mask[..., -3:] = 0
    if kind == 'one channel':
        mask[:, 0] = 0
    if kind == 'nothing known':
        mask[:] = 0
    return mask


KINDS = ['speckled', 'sparse', 'block', 'border', 'one channel', 'nothing known', 'all known']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('stride', [1, 2])
def test_against_the_equations(kind, size, dilation, stride):
    rng = np.random.default_rng(size + 10 * dilation + 100 * stride)
    x = rng.standard_normal((2, 3, 12, 13))
    mask = make_masks(kind, x.shape, rng)
    layer = PartialConv2d(3, 2, size, dilation, stride).double()
    nn.init.normal_(layer.bias)
    with torch.no_grad():
        features, new_mask = layer(torch.tensor(x), torch.tensor(mask))
    weight, bias = layer.conv.weight.detach().numpy(), layer.bias.detach().numpy().ravel()
    expected, expected_mask = partial_convolution(x, mask, weight, bias, dilation, stride)
    np.testing.assert_array_equal(new_mask.numpy(), expected_mask)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-10)


def test_with_everything_known_it_is_a_convolution_away_from_the_border():
    layer = PartialConv2d(2, 4)
    nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, 9, 9)
    found, mask = layer(x, torch.ones_like(x))
    plain = layer.conv(x) + layer.bias[:, None, None]
    torch.testing.assert_close(found[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1])
    assert (mask == 1).all()


@pytest.mark.parametrize(('size', 'dilation', 'stride'), [(3, 1, 1), (3, 2, 1), (5, 1, 2)])
def test_gradients(size, dilation, stride):
    torch.manual_seed(0)
    layer = PartialConv2d(2, 2, size, dilation, stride).double()
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(1, 2, 6, 7) > 0.6).double()
    mask[..., :3, :3] = 0  # some windows are all hole

    def forward(x, weight, bias):
        parameters = {'conv.weight': weight, 'bias': bias}
        return torch.func.functional_call(layer, parameters, (x, mask))[0]

    assert torch.autograd.gradcheck(forward, (x, layer.conv.weight, layer.bias))


def test_nothing_flows_out_of_the_hole():
    layer = PartialConv2d(1, 3)
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 0
    layer(x, mask)[0].sum().backward()
    assert (x.grad[mask == 0] == 0).all()
    assert (x.grad[mask == 1] != 0).all()


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = PConvNet(width=4)
    with torch.no_grad():  # as after some training: no neutral biases and statistics
        for module in network.modules():
            if isinstance(module, PartialConv2d):
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
    return network.eval()


@pytest.fixture
def holed():
    """A slice with a round hole of 44 pixels and one at the border."""
    rows, columns = np.ogrid[:96, :64]
    hole = ((rows - 50) ** 2 + (columns - 34) ** 2 < 22**2) | (rows < 6) & (columns > 40)
    image = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(1))
    return image, torch.tensor(~hole[None, None], dtype=torch.float32)


@torch.no_grad()
def test_one_slice_of_the_same_size(network, holed):
    assert network(*holed).shape == (1, 1, 96, 64)


@torch.no_grad()
def test_values_in_the_hole_do_not_matter(network, holed):
    image, mask = holed
    expected = network(image, mask)
    for wild in (torch.zeros_like(image), 1e3 * torch.randn_like(image)):
        torch.testing.assert_close(
            network(torch.where(mask > 0, image, wild), mask), expected, rtol=0, atol=0
        )


@torch.no_grad()
def test_known_values_do_matter(network, holed):
    image, mask = holed
    changed = image + mask * torch.randn(96, 64)
    difference = (network(changed, mask) - network(image, mask))[mask == 0].abs()
    assert difference.max() > 1e-3


@torch.no_grad()
def test_defined_everywhere_across_a_big_hole(network):
    """One that leaves a strip of known tissue along one side."""
    masks = []
    for module in network.modules():
        if isinstance(module, PartialConv2d):
            module.register_forward_hook(lambda *call: masks.append(call[-1][1]))
    mask = torch.zeros(1, 1, 96, 64)
    mask[:, 0, :, :8] = 1
    out = network(torch.randn(mask.shape), mask)
    assert torch.isfinite(out).all()
    assert not masks[0].all()
    assert masks[-1].all()


@torch.no_grad()
def test_nothing_known_nothing_said(network):
    nothing = torch.zeros(1, 1, 32, 32)
    assert torch.isfinite(network(torch.randn(nothing.shape), nothing)).all()


def test_paper_network_never_changes_size_and_normalises_inside_only():
    network = PConvNet(width=4)
    sizes = []
    for module in network.modules():
        if isinstance(module, PartialConv2d):
            module.register_forward_hook(lambda *call: sizes.append(call[-1][0].shape[-2:]))
    network(torch.randn(2, 1, 20, 24), torch.ones(2, 1, 20, 24))
    assert set(sizes) == {(20, 24)}
    for norms, plain in ((network.encoder_norm, 0), (network.decoder_norm, len(sizes) // 2 - 1)):
        for position, norm in enumerate(norms):
            assert isinstance(norm, nn.Identity if position == plain else nn.BatchNorm2d)


def test_every_parameter_learns(network, holed):
    image, mask = (part.expand(2, -1, -1, -1) for part in holed)
    network.train()(image, mask).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_masks_need_no_weights():
    """The window of ones is no part of what is stored."""
    assert set(PartialConv2d(1, 1).state_dict()) == {'conv.weight', 'bias'}


class TestVolumes:
    @pytest.mark.parametrize('stride', [1, 2])
    def test_against_slices(self, stride):
        """With a window one slice thin, a volume is a stack of slices."""
        torch.manual_seed(0)
        flat, deep = PartialConv2d(2, 3, stride=stride), PartialConv3d(2, 3, stride=stride)
        nn.init.normal_(flat.bias)
        deep.bias.data.copy_(flat.bias.data)
        deep.conv.weight.data.zero_()
        deep.conv.weight.data[..., 1] = flat.conv.weight.data
        x = torch.randn(1, 2, 8, 8, 6)
        mask = (torch.rand(1, 2, 8, 8, 1) > 0.6).float().expand_as(x)
        found, found_mask = deep(x, mask)
        for k, z in enumerate(range(0, 6, stride)):
            if z in (0, 5):
                continue  # beyond the border is hole
            expected, expected_mask = flat(x[..., z], mask[..., z])
            # three times the window's ones are known three times as often
            torch.testing.assert_close(found[..., k], expected)
            torch.testing.assert_close(found_mask[..., k], expected_mask)

    def test_by_hand(self):
        layer = PartialConv3d(1, 1)
        nn.init.ones_(layer.conv.weight)
        nn.init.constant_(layer.bias, 0.5)
        mask = torch.zeros(1, 1, 7, 7, 7)
        mask[0, 0, 2, 2, 2] = mask[0, 0, 2, 2, 3] = 1
        x = torch.full((1, 1, 7, 7, 7), 9.0)
        x[0, 0, 2, 2, 2], x[0, 0, 2, 2, 3] = 2, 4
        out, new_mask = layer(x, mask)
        assert float(out.detach()[0, 0, 2, 2, 2]) == pytest.approx((2 + 4) * 27 / 2 + 0.5)
        assert float(out.detach()[0, 0, 1, 1, 1]) == pytest.approx(2 * 27 + 0.5)
        assert float(out.detach()[0, 0, 5, 5, 5]) == 0
        assert int(new_mask.sum()) == 3 * 3 * 4

    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        network = PConvUNet3D(width=4, levels=3)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, PartialConv3d):
                    module.bias.normal_(0, 0.1)
        return network.eval()

    @pytest.fixture
    def holed(self):
        grid = np.stack(np.indices((48, 32, 32))) - np.array([18, 16, 16])[:, None, None, None]
        hole = (grid**2).sum(0) < 9**2
        masks = np.stack([~hole, ~hole[::-1]])[None]
        image = torch.randn(1, 2, 48, 32, 32, generator=torch.Generator().manual_seed(1))
        return image, torch.tensor(masks, dtype=torch.float32)

    @torch.no_grad()
    def test_values_in_the_hole_do_not_matter_and_known_ones_do(self, network, holed):
        image, mask = holed
        expected = network(image, mask)
        assert expected.shape == (1, 1, 48, 32, 32)
        wild = torch.where(mask > 0, image, 1e3 * torch.randn_like(image))
        torch.testing.assert_close(network(wild, mask), expected, rtol=0, atol=0)
        for channel in range(2):
            changed = image.clone()
            changed[:, channel] += mask[:, channel]
            difference = (network(changed, mask) - expected)[mask[:, :1] == 0].abs()
            assert difference.max() > 1e-3

    @torch.no_grad()
    def test_the_middle_of_the_hole_is_reached(self, network, holed):
        image, mask = holed
        shifted = network(image + 1, mask) - network(image, mask)
        assert (shifted[0, 0, 16:20, 14:18, 14:18].abs() > 1e-4).all()

    def test_every_parameter_learns(self, network, holed):
        network.train()(*holed).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


class TestRefined:
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return RefinedPConvUNet3D(width=4).eval()

    @pytest.fixture
    def holed(self):
        """Volumes with a small hole in the middle, and with one that reaches two faces."""
        image = torch.randn(2, 2, 64, 64, 64, generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(image)
        mask[0, 0, 29:35, 27:33, 30:36] = 0
        mask[1, 0, :12, 20:30, 50:] = 0
        mask[:, 1] = mask[:, 0].flip(1)
        return image, mask

    @torch.no_grad()
    def test_before_it_learns_it_is_the_u_net(self, network, holed):
        torch.testing.assert_close(network(*holed), network.unet(*holed), rtol=0, atol=0)

    @torch.no_grad()
    def test_in_the_hole_as_if_all_were_sharpened(self, network, holed, monkeypatch):
        """To look no farther around it than the layers reach changes nothing there."""
        nn.init.normal_(network.last.weight, std=0.1)
        found = network(*holed)
        monkeypatch.setattr(
            'tumorreg_wf.models.partial_conv.bounding_box',
            lambda mask, margin: tuple(slice(0, length) for length in mask.shape),
        )
        hole = holed[1][:, :1] == 0
        whole, coarse = network(*holed), network.unet(*holed)
        torch.testing.assert_close(found[hole], whole[hole], rtol=0, atol=1e-5)
        assert (whole[hole] - coarse[hole]).abs().mean() > 1e-3
        far = found[0, 0, :8] - coarse[0, 0, :8]
        assert not far.any()

    @torch.no_grad()
    def test_values_in_the_hole_do_not_matter(self, network, holed):
        nn.init.normal_(network.last.weight, std=0.1)
        image, mask = holed
        wild = torch.where(mask > 0, image, 1e3 * torch.randn_like(image))
        expected = network(image, mask)
        torch.testing.assert_close(network(wild, mask), expected, rtol=0, atol=0)

    def test_the_last_layers_alone_learn(self, network, holed):
        nn.init.normal_(network.last.weight, std=0.1)
        before = {name: values.clone() for name, values in network.unet.state_dict().items()}
        network.train()(*holed).square().sum().backward()
        learning = {name for name, p in network.named_parameters() if p.grad is not None}
        assert learning == {
            name for name, _ in network.named_parameters() if not name.startswith('unet.')
        }
        for name, values in network.unet.state_dict().items():
            torch.testing.assert_close(values, before[name], rtol=0, atol=0)
