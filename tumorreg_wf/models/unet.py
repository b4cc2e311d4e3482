"""The tumour segmentation network: a 2-D U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """U-Net over axial slices (Ronneberger et al. 2015), as the source paper uses it.

    Three levels of max-pooling down, three of transposed convolution up, skip connections.

    Parameters
    ----------
    in_channels : 2, the normalised T1w and FLAIR slice (FLAIR all 0 where there is none).
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels.
    """

    def __init__(self, in_channels: int = 2, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            ConvBlock(before, after)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 2, stride=2)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.decoder = nn.ModuleList(ConvBlock(2 * above, above) for above in widths[-2::-1])
        self.head = nn.Conv2d(width, 1, 1)
        self.pool = nn.MaxPool2d(2)

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps of each encoder level, finest first."""
        maps = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (N, C, H, W) to logits (N, 1, H, W); H and W multiples of 2**levels."""
        *skips, x = self.features(x)
        for up, block, skip in zip(self.up, self.decoder, skips[::-1], strict=True):
            x = block(torch.cat([skip, up(x)], 1))
        return self.head(x)
