"""Networks and their weights files, and how networks are run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import write_aside
from tumorreg_wf.models.partial_conv import PConvNet, PConvUNet3D, RefinedPConvUNet3D
from tumorreg_wf.models.unet import SlabUNet, UNet, UNetEnsemble
from tumorreg_wf.models.unet3d import (
    BrainUNet,
    MirrorUNet,
    RefinedTissueUNet,
    TissueUNet,
    TwoStageBrainUNet,
)
from tumorreg_wf.weights import Weights

ARCHITECTURES: dict[str, type[nn.Module]] = {
    network.__name__: network
    for network in (
        UNet,
        SlabUNet,
        MirrorUNet,
        UNetEnsemble,
        PConvNet,
        PConvUNet3D,
        RefinedPConvUNet3D,
        BrainUNet,
        TwoStageBrainUNet,
        TissueUNet,
        RefinedTissueUNet,
    )
}

#: How networks over slices and over volumes are fastest.
MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}

#: Slices and volumes are padded to a multiple of this, which every architecture can halve down.
SIZE_MULTIPLE = 32

#: Slices in one forward pass; bounds memory.
BATCH = 8


def load_network(weights: Weights, device: str = 'cpu') -> nn.Module:
    """Build a network from its weights file, ready for inference."""

    def make() -> nn.Module:
        return ARCHITECTURES[weights.architecture](**weights.config)

    try:
        if re.search(r'\d{5}', json.dumps(weights.config)):
            raise ValueError('no network is that large')
        state = load_file(weights.path)
        with torch.device('meta'):  # takes no memory, whatever a damaged file says
            planned = {key: value.shape for key, value in make().state_dict().items()}
        if planned != {key: value.shape for key, value in state.items()}:
            raise ValueError('other tensors than those of the network')
        network = make()
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        if 'allocate' in str(error):  # too little memory, which is no fault of the weights
            raise
        raise TumorregError(
            f'{weights.path}: these weights do not fit the network {weights.architecture} of this '
            'version. Train them again, or use the version they were trained with.'
        ) from None
    for part in getattr(network, 'members', [network]):
        part.to(device, memory_format=MEMORY_FORMATS[part.dimensions])
    return network.eval()


def save_network(network: nn.Module, path: str | Path, *, name: str, task: str, **facts) -> None:
    """Write a network as safetensors with the metadata :func:`load_network` needs.

    ``facts`` are ``config`` (keyword arguments of the architecture) and ``spacing`` (mm).
    Windows of convolutions, nearly all there is, are stored as float16.
    """
    metadata = {
        'name': name,
        'task': task,
        'architecture': type(network).__name__,
        'config': json.dumps(facts['config']),
        'spacing': str(facts['spacing']),
    }
    state = {
        key: (value.half() if value.ndim > 2 else value).contiguous().cpu()
        for key, value in network.state_dict().items()
    }
    with write_aside(path) as part:  # safetensors' own files are for their owner alone
        part.write_bytes(_in_order(save(state, metadata)))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header in order, which otherwise differs from save to save.

    Weights go by the hash of their file.
    """
    length = int.from_bytes(data[:8], 'little')
    header = json.loads(data[8 : 8 + length])
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, 'little') + text + data[8 + length :]


@torch.inference_mode()
def run_slices(network: nn.Module, inputs: list[torch.Tensor], device: str) -> torch.Tensor:
    """Run a network over padded batches of slices (N, C, H, W)."""
    height, width = inputs[0].shape[-2:]
    padding = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
    results = []
    for start in range(0, len(inputs[0]), BATCH):
        batch = [
            nn.functional.pad(array[start : start + BATCH], padding, value=float(position > 0))
            .to(device)
            .contiguous(memory_format=torch.channels_last)
            for position, array in enumerate(inputs)  # beyond the image: 0, and known
        ]
        results.append(network(*batch)[..., :height, :width].cpu())
    return torch.cat(results)
