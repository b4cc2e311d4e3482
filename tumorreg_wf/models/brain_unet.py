"""The brain extraction network: a U-Net over a whole head at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumorreg_wf.models.folding import fold, unfold


class BrainUNet(nn.Module):
    """U-Net over coarse volumes of a fixed field of view.

    Blocks of 2x2x2 voxels enter as channels and leave as voxels: full resolution at the price of
    half of it. The deepest level sees all of the head.

    Parameters
    ----------
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels inside.
    """

    dimensions = 3

    #: Edge of the volumes it is trained on and must be given, voxels.
    size = 64

    def __init__(self, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            nn.Sequential(*_layer(before, after), *_layer(after, after))
            for before, after in zip([8, *widths[:-1]], widths, strict=True)
        )
        # a level up has half the channels: so must what comes from below
        self.up = nn.ModuleList(
            nn.Conv3d(below, above, 1)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*_layer(2 * above, above)) for above in widths[-2::-1]
        )
        self.head = nn.Conv3d(width, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, X, Y, Z) to logits of the same shape.

        X, Y and Z are multiples of ``2**(levels + 1)``.
        """
        x, skips = fold(x), []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), F.interpolate(up(x), scale_factor=2)], 1))
        return unfold(self.head(x))


def _layer(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 3x3x3 convolution, every channel normalised by itself, and ReLU."""
    return [
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        # contrasts differ so much from head to head that the statistics of others are no guide
        nn.GroupNorm(out_channels, out_channels),
        nn.ReLU(inplace=True),
    ]
