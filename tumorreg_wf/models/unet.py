"""The tumour segmentation networks: U-Nets over slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumorreg_wf.models.folding import fold, unfold
from tumorreg_wf.models.unet3d import MirrorUNet


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

    dimensions = 2
    offsets = (0,)

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


class SlabUNet(nn.Module):
    """U-Net that marks one slice and sees its neighbours, at half the resolution inside.

    Neighbouring slices come in as channels, so that what is found is smooth across slices;
    blocks of 2x2 pixels too, and leave as pixels, so that full resolution costs little.

    Parameters
    ----------
    offsets : where the slices seen lie from the one marked, mm.
    width : channels of the first level; each level down doubles them, up to eight times.
    levels : number of down-sampling levels inside.
    """

    dimensions = 2

    def __init__(
        self, offsets: Sequence[float] = (-4, -2, 0, 2, 4), width: int = 24, levels: int = 4
    ) -> None:
        super().__init__()
        self.offsets = tuple(offsets)
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            ConvBlock(before, after)
            for before, after in zip(
                [4 * 2 * len(self.offsets), *widths[:-1]], widths, strict=True
            )
        )
        self.decoder = nn.ModuleList(
            ConvBlock(below + above, above)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map slabs (N, 2 K, H, W) to logits (N, 1, H, W) of their middle slices.

        The K slices of the T1w come first, then those of the FLAIR. H and W are multiples of
        ``2**(levels + 1)``.
        """
        x, skips = fold(x), []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = block(torch.cat([skips.pop(), F.interpolate(x, scale_factor=2)], 1))
        return unfold(self.head(x))


class UNetEnsemble(nn.Module):
    """Several networks that find tumours, trained apart, whose logits are averaged.

    Parameters
    ----------
    members : the ``network`` of each by name, and its keyword arguments; one that
        ``needs_flair`` is not asked about slices without. One at least needs none.
    """

    def __init__(self, members: Sequence[dict]) -> None:
        super().__init__()
        kinds: dict[str, type[nn.Module]] = {
            kind.__name__: kind for kind in (UNet, SlabUNet, MirrorUNet)
        }
        configs = [dict(member) for member in members]
        self.needs_flair = [config.pop('needs_flair', False) for config in configs]
        self.members = nn.ModuleList(kinds[config.pop('network')](**config) for config in configs)
