"""The inpainting networks: partial convolutions over slices and over volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumorreg_wf.images import bounding_box
from tumorreg_wf.models.folding import fold, uncrop, unfold


class PartialConv2d(nn.Module):
    """Partial convolution, equations (1) and (2) of the method (Liu et al. 2018).

    Window by window, with X the features, M the mask (1 known, 0 hole), K the number of ones
    in an all-ones window::

        x' = W^T (X * M) K / sum(M) + b   where sum(M) > 0, else 0
        m' = 1                            where sum(M) > 0, else 0

    Pixels beyond the image's border count as hole.

    Parameters
    ----------
    in_channels, out_channels : feature maps in and out.
    kernel_size : odd; at stride 1 the output has the input's size.
    dilation : spacing of the window's pixels.
    stride : pixels from window to window; 2 halves the size.

    Notes
    -----
    :class:`PartialConv3d` is the same over volumes (N, C, X, Y, Z).
    """

    dimensions = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        dilation: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[self.dimensions]
        self.conv = convolution(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            bias=False,
        )
        window = [kernel_size] * self.dimensions
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.ones_in_window = in_channels * kernel_size**self.dimensions  # K
        self.register_buffer('window', torch.ones(1, 1, *window), False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve what is known.

        Parameters
        ----------
        x : (N, C, H, W) features.
        mask : (N, C, H, W), 1 known, 0 hole.

        Returns
        -------
        x : (N, C', H', W') features, 0 where no window pixel was known.
        mask : (N, C', H', W'), 1 where some window pixel was known; one map, expanded.
        """
        with torch.no_grad():
            known = (F.conv2d if self.dimensions == 2 else F.conv3d)(
                mask.sum(1, keepdim=True),
                self.window,
                stride=self.conv.stride,
                padding=self.conv.padding,
                dilation=self.conv.dilation,
            )
            new_mask = (known > 0.5).to(x.dtype)
            scale = new_mask * (self.ones_in_window / known.clamp(min=1))
        bias = self.bias.reshape(-1, *[1] * self.dimensions)
        x = self.conv(x * mask) * scale + bias * new_mask
        return x, new_mask.expand_as(x)


class PartialConv3d(PartialConv2d):
    """:class:`PartialConv2d` over volumes (N, C, X, Y, Z)."""

    dimensions = 3


class PConvNet(nn.Module):
    """The source paper's PConv-Net: an encoder-decoder of partial convolutions at one size.

    Nothing is down- or up-sampled: image, features and masks share one size. Encoder layers
    end in ReLU, decoder layers in LeakyReLU, with batch normalisation in all but the first
    encoder and the last decoder layer; skip connections join them as in a U-Net. The paper
    does not give window sizes. At one size a hole closes only as fast as the windows reach,
    so the windows are spread (``dilations``): one encoder pass reaches their sum, in pixels.

    Parameters
    ----------
    width : feature maps of every inner layer.
    dilations : window spread of the encoder layers; the decoder takes them in reverse.
    """

    dimensions = 2

    def __init__(
        self, width: int = 32, dilations: Sequence[int] = (1, 1, 2, 4, 8, 16, 32)
    ) -> None:
        super().__init__()
        depth = len(dilations)
        self.encoder = nn.ModuleList(
            PartialConv2d(width if layer else 1, width, dilation=spread)
            for layer, spread in enumerate(dilations)
        )
        self.encoder_norm = nn.ModuleList(
            nn.BatchNorm2d(width) if layer else nn.Identity() for layer in range(depth)
        )
        # decoder layer k sees the layer below and the encoder layer of its own level
        self.decoder = nn.ModuleList(
            PartialConv2d(width + (width if layer else 1), width if layer else 1, dilation=spread)
            for layer, spread in zip(
                range(depth - 1, -1, -1), [*dilations[-2::-1], 1], strict=True
            )
        )
        self.decoder_norm = nn.ModuleList(
            nn.BatchNorm2d(width) if layer else nn.Identity() for layer in range(depth - 1, -1, -1)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Recover slices.

        Parameters
        ----------
        x : (N, 1, H, W) normalised T1w slices; values in the hole are ignored.
        mask : (N, 1, H, W), 1 known, 0 hole.

        Returns
        -------
        recovered : (N, 1, H, W) raw output, defined everywhere.
        """
        skips = [(x * mask, mask)]
        for conv, norm in zip(self.encoder, self.encoder_norm, strict=True):
            x, mask = conv(*skips[-1])
            skips.append((F.relu(norm(x)), mask))
        x, mask = skips.pop()
        for conv, norm in zip(self.decoder, self.decoder_norm, strict=True):
            x, mask = _join(conv, (x, mask), skips.pop())
            x = norm(x)
            if skips:
                x = F.leaky_relu(x, 0.2)
        return x


class PConvUNet3D(nn.Module):
    """A U-Net of partial convolutions over volumes that sees far (after Liu et al. 2018).

    Each encoder level halves the size, so that the middle of a large hole is known at the
    coarsest level; the decoder doubles it by nearest neighbour and joins the encoder's features
    and masks of its level. Blocks of 2x2x2 voxels enter as channels, each with its own mask, and
    leave as voxels: full resolution at the price of half of it.

    A second image shows the brain mirrored about its midline, with a mask of its own: what the
    other hemisphere looks like there.

    Parameters
    ----------
    width : feature maps of the first level; doubled per level up to eight times.
    levels : number of halvings inside; sizes must be multiples of ``2**(levels + 1)``.
    """

    dimensions = 3

    def __init__(self, width: int = 24, levels: int = 4) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.stem = _Layer3d(16, width)
        self.down = nn.ModuleList(
            _Layer3d(before, after, stride=2)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.encoder = nn.ModuleList(_Layer3d(after, after) for after in widths[1:])
        self.decoder = nn.ModuleList(
            _Layer3d(below + above, above)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = PartialConv3d(width + 16, 8)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Recover volumes.

        Parameters
        ----------
        x : (N, 2, X, Y, Z) normalised T1w and its mirror image.
        mask : (N, 2, X, Y, Z), 1 known, 0 hole, of either.

        Returns
        -------
        recovered : (N, 1, X, Y, Z) raw output.
        """
        skips = [(fold(x * mask), fold(mask))]
        x, mask = self.stem(*skips[0])
        for down, block in zip(self.down, self.encoder, strict=True):
            skips.append((x, mask))
            x, mask = block(*down(x, mask))
        for block in self.decoder:
            x, mask = F.interpolate(x, scale_factor=2), F.interpolate(mask, scale_factor=2)
            x, mask = _join(block, (x, mask), skips.pop())
        return unfold(_join(self.head, (x, mask), skips.pop())[0])


class RefinedPConvUNet3D(nn.Module):
    """A U-Net of partial convolutions, and a few layers at full resolution that sharpen it.

    The U-Net works in blocks of 2x2x2 voxels. The last layers see single ones: what is known
    around the hole and in the mirror image, and what the U-Net filled in, to which they add. They
    alone are trained: the first is a trained :class:`PConvUNet3D`.

    Parameters
    ----------
    width : feature maps of the first level of the U-Net.
    """

    dimensions = 3

    #: Feature maps of the last layers.
    channels = 16

    #: Spread of the windows of those between the first and the last of them.
    dilations = (1, 1, 2, 4, 1)

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.unet = PConvUNet3D(width)
        self.unet.requires_grad_(False)
        self.first = nn.Conv3d(6, self.channels, 3, padding=1)
        self.middle = nn.ModuleList(
            nn.Conv3d(self.channels, self.channels, 3, padding=spread, dilation=spread)
            for spread in self.dilations
        )
        self.last = nn.Conv3d(self.channels, 1, 3, padding=1)
        for values in self.last.parameters():
            nn.init.zeros_(values)

    def train(self, mode: bool = True) -> RefinedPConvUNet3D:
        """Train or not; the U-Net's normalisation stays what it was."""
        super().train(mode)
        self.unet.eval()
        return self

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Recover volumes, as :meth:`PConvUNet3D.forward` does; sharpened in the holes alone."""
        coarse = self.unet(x, mask)
        reach = 2 + sum(self.dilations)
        results = []
        for seen, known, before in zip(x, mask, coarse, strict=True):
            box = bounding_box(known[0].cpu().numpy() == 0, margin=reach)
            where = (slice(None), *box)
            seen, known, filled = (part[where][None] for part in (seen, known, before))
            whole = torch.where(known[:, :1] > 0, seen[:, :1], filled)
            y = F.leaky_relu(self.first(torch.cat([seen * known, known, filled, whole], 1)), 0.1)
            for layer in self.middle:
                y = y + F.leaky_relu(layer(y), 0.1)
            results.append(before + uncrop(self.last(y)[0], box, before.shape[1:]))
        return torch.stack(results)


class _Layer3d(nn.Module):
    """Partial convolution, batch normalisation and LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = PartialConv3d(in_channels, out_channels, stride=stride)
        # batches hold two volumes: their statistics need a longer memory
        self.norm = nn.BatchNorm3d(out_channels, momentum=0.03)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = self.conv(x, mask)
        return F.leaky_relu(self.norm(x), 0.1), mask


def _join(conv: nn.Module, *sources: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    features, masks = zip(*sources, strict=True)
    return conv(torch.cat(features, 1), torch.cat(masks, 1))
