"""The inpainting network: partial convolutions at one size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        dilation: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            bias=False,
        )
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.ones_in_window = in_channels * kernel_size**2  # K
        self.register_buffer('window', torch.ones(1, 1, kernel_size, kernel_size), False)

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
            known = F.conv2d(
                mask.sum(1, keepdim=True),
                self.window,
                stride=self.conv.stride,
                padding=self.conv.padding,
                dilation=self.conv.dilation,
            )
            new_mask = (known > 0.5).to(x.dtype)
            scale = new_mask * (self.ones_in_window / known.clamp(min=1))
        x = self.conv(x * mask) * scale + self.bias * new_mask
        return x, new_mask.expand(-1, x.shape[1], -1, -1)


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

    in_channels = 1

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


class PConvUNet(nn.Module):
    """A U-Net of partial convolutions that sees far (Liu et al. 2018).

    Each encoder level halves the size, so that the middle of a hole of ``2**levels`` times
    the window is known at the coarsest level; the decoder doubles it by nearest neighbour
    and joins the encoder's features and masks of its level.

    A second channel shows the brain mirrored about its midline, with a mask of its own: what
    the other hemisphere looks like there.

    Parameters
    ----------
    width : feature maps of the first level; doubled per level up to four times.
    levels : number of halvings; sizes must be multiples of ``2**levels``.
    """

    in_channels = 2

    def __init__(self, width: int = 24, levels: int = 5) -> None:
        super().__init__()
        widths = [self.in_channels, *(width * min(2**level, 4) for level in range(levels + 1))]
        self.encoder = nn.ModuleList(
            PartialConv2d(before, after, 5 if level == 0 else 3, stride=2 if level else 1)
            for level, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.encoder_norm = nn.ModuleList(
            nn.BatchNorm2d(after) if level else nn.Identity()
            for level, after in enumerate(widths[1:])
        )
        self.decoder = nn.ModuleList(
            PartialConv2d(widths[level + 1] + widths[level], widths[level])
            for level in range(levels, 0, -1)
        )
        self.decoder_norm = nn.ModuleList(
            nn.BatchNorm2d(widths[level]) for level in range(levels, 0, -1)
        )
        self.head = PartialConv2d(width + self.in_channels, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Recover slices.

        Parameters
        ----------
        x : (N, 2, H, W) normalised T1w slices and their mirror images.
        mask : (N, 2, H, W), 1 known, 0 hole, of either.

        Returns
        -------
        recovered : (N, 1, H, W) raw output.
        """
        skips = [(x * mask, mask)]
        for conv, norm in zip(self.encoder, self.encoder_norm, strict=True):
            x, mask = conv(*skips[-1])
            skips.append((F.relu(norm(x)), mask))
        x, mask = skips.pop()
        for conv, norm in zip(self.decoder, self.decoder_norm, strict=True):
            x, mask = F.interpolate(x, scale_factor=2), F.interpolate(mask, scale_factor=2)
            x, mask = _join(conv, (x, mask), skips.pop())
            x = F.leaky_relu(norm(x), 0.2)
        return _join(self.head, (x, mask), skips.pop())[0]


def _join(conv: PartialConv2d, *sources: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    features, masks = zip(*sources, strict=True)
    return conv(torch.cat(features, 1), torch.cat(masks, 1))
