"""Weights files of networks."""

import pytest
import torch

from tumorreg_wf.models.networks import ARCHITECTURES, load_network, save_network
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D
from tumorreg_wf.models.unet import UNet
from tumorreg_wf.models.unet3d import MirrorUNet
from tumorreg_wf.weights import read_weights


@pytest.mark.parametrize(
    ('network', 'config'),
    [
        (UNet, {'width': 4}),
        (MirrorUNet, {'width': 2}),
        (PConvNet, {'width': 2, 'dilations': [1, 2]}),
        (PConvUNet3D, {'width': 2, 'levels': 2}),
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
