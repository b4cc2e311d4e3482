"""Fixed feature networks Psi of the perceptual and style losses, equations (5) to (7)."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.models.networks import load_network
from tumorreg_wf.weights import find_weights

#: Convolutions of VGG-16 up to its third pooling: channels out, and the pooling after a stage.
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256))

#: Mean and standard deviation of photographs, red, green and blue, in [0, 1].
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class VGG16(nn.Module):
    """VGG-16 (Simonyan and Zisserman 2015) up to its third pooling, as in Liu et al. 2018.

    Parameters have torchvision's names. A normalised slice, whose grey values are about -2.5 to
    2.5, is brought to [0, 1], repeated for red, green and blue, and normalised as the photographs
    of ImageNet are.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage in VGG16_STAGES:
            for after in stage:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        for name, numbers in zip(('mean', 'std'), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(numbers).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map slices (N, 1, H, W) to the maps after each pooling; H and W of 8 or more."""
        x = ((x / 5 + 0.5).expand(-1, 3, -1, -1) - self.mean) / self.std
        maps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
        return maps


class Features(NamedTuple):
    """A feature network, ready to use.

    Attributes
    ----------
    maps : maps slices (N, 1, H, W) to a list of feature maps (N, C_p, H_p, W_p).
    name : for the model card.
    sha256 : of the weights.
    """

    maps: Callable[[Tensor], list[Tensor]]
    name: str
    sha256: str


def load_features(source: Path | None, device: str) -> Features:
    """Load a feature network.

    Parameters
    ----------
    source : weights of VGG-16 with torchvision's names (``.pth``, ``.pt`` or ``.safetensors``),
        or segmentation weights of a U-Net over slices, as ``tumorreg-train`` writes them (the
        finer three levels of its encoder, fed with T1w alone); None for the packaged ones.
    device : torch device.

    Raises
    ------
    TumorregError
        If the weights are of another network.
    """
    state = None if source is None else _read_state(source)
    if source is not None and state is not None:
        network = VGG16()
        try:
            # the rest of VGG-16 is not needed
            network.load_state_dict({key: state[key] for key in network.state_dict()})
        except (KeyError, RuntimeError):
            raise TumorregError(
                f"{source}: not the weights of VGG-16 with torchvision's names "
                '(features.0.weight and so on).'
            ) from None
        network = network.to(device).eval().requires_grad_(False)
        return Features(network, 'VGG-16', hashlib.sha256(source.read_bytes()).hexdigest())

    weights = find_weights('segmentation', source or 'paper')
    if weights.architecture != 'UNet':
        raise TumorregError(
            f'{weights.path}: a feature network is a UNet or VGG-16, this is '
            f'{weights.architecture}. Name other weights with --features.'
        )
    lender = load_network(weights, device).requires_grad_(False)
    return Features(
        lambda x: lender.features(torch.cat([x, torch.zeros_like(x)], 1))[:3],
        weights.name,
        weights.sha256,
    )


def _read_state(path: Path) -> dict[str, Tensor] | None:
    """Tensors of VGG-16 by name; None for what is to be read as segmentation weights."""
    if path.suffix in ('.pth', '.pt'):
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
        except OSError:
            raise TumorregError(f'{path}: no such weights file.') from None
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise TumorregError(
                f'{path}: cannot be read as the weights of a network, and nothing else is loaded '
                f'from a .pth file ({str(error).splitlines()[0]}).'
            ) from None
        return state if isinstance(state, dict) else {}
    if path.is_file():
        try:
            state = load_file(path)
        except SafetensorError:
            return None
        return state if 'features.0.weight' in state else None
    return None
