"""Weights files of networks."""

import pytest
import torch

from tumorreg_wf.models.networks import ARCHITECTURES, load_network, save_network
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D, RefinedPConvUNet3D
from tumorreg_wf.models.unet import UNet
from tumorreg_wf.models.unet3d import BrainUNet, MirrorUNet
from tumorreg_wf.weights import read_weights


@pytest.mark.parametrize(
    ('network', 'config'),
    [
        (UNet, {'width': 4}),
        (MirrorUNet, {'width': 2}),
        (PConvNet, {'width': 2, 'dilations': [1, 2]}),
        (PConvUNet3D, {'width': 2, 'levels': 2}),
        (RefinedPConvUNet3D, {'width': 2}),
    ],
)
def test_round_trip(tmp_path, network, config):
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


def test_a_file_of_weights_repeats_byte_for_byte(tmp_path):
    """Weights go by the hash of their file."""
    network = BrainUNet(width=2)
    for number in range(6):
        path = tmp_path / f'{number}.safetensors'
        save_network(network, path, name='a', task='brain', config={'width': 2}, spacing=4.0)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    loaded = load_network(read_weights(tmp_path / '0.safetensors'))
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, atol=1e-2, rtol=1e-2)
