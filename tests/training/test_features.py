"""Feature networks: the right layers of the right weights, or a clear refusal."""

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.models.networks import load_network, save_network
from tumorreg_wf.models.partial_conv import PConvNet
from tumorreg_wf.models.unet import SlabUNet, UNet
from tumorreg_wf.training.features import VGG16, load_features
from tumorreg_wf.training.losses import inpainting_loss
from tumorreg_wf.weights import read_weights

#: Convolutions of torchvision's vgg16().features: index, channels in and out; * is pooling.
LAYERS = [
    (0, 3, 64), (2, 64, 64), '*', (5, 64, 128), (7, 128, 128), '*',
    (10, 128, 256), (12, 256, 256), (14, 256, 256), '*',
]  # fmt: skip


@pytest.fixture(scope='module')
def state():
    """Random weights under torchvision's names, with two layers nobody needs."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, before, after in [layer for layer in LAYERS if layer != '*']:
        weight = torch.randn(after, before, 3, 3, generator=generator)
        state[f'features.{index}.weight'] = weight * (2 / 9 / before) ** 0.5
        state[f'features.{index}.bias'] = 0.1 * torch.randn(after, generator=generator)
    state['features.17.weight'] = torch.zeros(512, 256, 3, 3)
    state['classifier.0.bias'] = torch.zeros(4096)
    return state


def save(state, path):
    save_file(state, path) if path.suffix == '.safetensors' else torch.save(state, path)
    return path


@pytest.mark.parametrize('name', ['vgg16.pth', 'vgg16.pt', 'vgg16.safetensors'])
def test_vgg16(state, tmp_path, name):
    path = save(state, tmp_path / name)
    features = load_features(path, 'cpu')
    assert features.name == 'VGG-16'
    assert features.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    slices = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(1))

    # by hand: grey values of -2.5 to 2.5 to red, green and blue as of photographs
    photo = torch.cat([slices / 5 + 0.5] * 3, 1).numpy()
    photo = (photo - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    x, expected = torch.tensor(photo, dtype=torch.float32), []
    for layer in LAYERS:
        if layer == '*':
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
            expected.append(x)
        else:
            names = (f'features.{layer[0]}.{part}' for part in ('weight', 'bias'))
            x = F.conv2d(x, *(state[key] for key in names), padding=1).clamp(min=0)
    found = features.maps(slices)
    shapes = [(2, 64, 8, 12), (2, 128, 4, 6), (2, 256, 2, 3)]
    assert [tuple(item.shape) for item in found] == shapes
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert one.std() > 0.1


def test_gradients_pass_through_vgg16_and_leave_it_alone(state, tmp_path):
    features = load_features(save(state, tmp_path / 'vgg16.pth'), 'cpu')
    truth = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    output = (truth + 0.5).requires_grad_(True)
    mask = torch.ones_like(truth)
    mask[..., 4:9, 4:9] = 0
    losses = inpainting_loss(output, truth, mask, torch.ones_like(mask), features.maps)
    losses['perceptual'].backward()
    assert (output.grad != 0).float().mean() > 0.9
    assert isinstance(features.maps, VGG16)
    assert all(not weight.requires_grad for weight in features.maps.parameters())


def test_segmentation_weights(tmp_path):
    torch.manual_seed(0)
    network = UNet(width=4)
    network(torch.randn(4, 2, 16, 16))  # statistics that are not those of the start
    path = tmp_path / 'segmentation.safetensors'
    save_network(network, path, name='mine', task='segmentation', config={'width': 4}, spacing=1.0)
    slices = torch.randn(2, 1, 16, 16)
    for source in (path, tmp_path):
        features = load_features(source, 'cpu')
        assert features.name == 'mine'
        found = features.maps(slices)
        assert [item.shape[1:] for item in found] == [(4, 16, 16), (8, 8, 8), (16, 4, 4)]
        lender = load_network(read_weights(path))  # as it is stored
        expected = lender.features(torch.cat([slices, 0 * slices], 1))[:3]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_other_networks_are_refused(state, tmp_path):
    slabs = tmp_path / 'slabs.safetensors'
    facts = {'config': {'width': 2}, 'spacing': 1.0}
    save_network(SlabUNet(width=2), slabs, name='x', task='segmentation', **facts)
    with pytest.raises(TumorregError, match='is a UNet or VGG-16, this is SlabUNet'):
        load_features(slabs, 'cpu')
    filling = tmp_path / 'filling.safetensors'
    save_network(PConvNet(width=2), filling, name='x', task='inpainting', **facts)
    with pytest.raises(TumorregError, match='for inpainting, not for segmentation'):
        load_features(filling, 'cpu')

    small = {key: value[:5] for key, value in state.items()}
    short = {key: value for key, value in state.items() if 'features.14' not in key}
    nothing = {'network': {}, 'step': 3}
    for number, wrong in enumerate((small, short, nothing, [1, 2])):
        path = tmp_path / f'{number}.pth'
        torch.save(wrong, path)
        with pytest.raises(TumorregError, match='not the weights of VGG-16'):
            load_features(path, 'cpu')


class Harmful:
    def __reduce__(self):
        return print, ('harm done',)


def test_no_pickled_code_is_run(tmp_path, capsys):
    torch.save({'features.0.weight': Harmful()}, tmp_path / 'vgg16.pth')
    (tmp_path / 'text.pth').write_text('not weights')
    for name in ('vgg16.pth', 'text.pth'):
        with pytest.raises(TumorregError, match=f'{name}: cannot be read as the weights'):
            load_features(tmp_path / name, 'cpu')
    assert 'harm done' not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['nowhere.pth', 'nowhere.safetensors', 'nowhere'])
def test_no_such_file(tmp_path, name):
    with pytest.raises(TumorregError, match=f'{name}: no such weights file'):
        load_features(tmp_path / name, 'cpu')
