"""U-Nets over volumes: tumours in a brain, the brain in a head, tissues in the brain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tumorreg_wf.models.folding import fold, uncrop, unfold
from tumorreg_wf.tissues import GreyValues, fit_grey_values


class UNet3D(nn.Module):
    """U-Net over volumes, at half the resolution inside.

    Blocks of 2x2x2 voxels enter as channels and leave as voxels: full resolution at the price of
    half of it.

    Parameters
    ----------
    in_channels : channels of the input.
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels inside.
    out_channels : channels of the logits.
    """

    dimensions = 3

    def __init__(self, in_channels: int, width: int, levels: int, out_channels: int = 1) -> None:
        super().__init__()
        self.size_multiple = 2 ** (levels + 1)
        widths = [width * 2**level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(
            nn.Sequential(*_layer(before, after), *_layer(after, after))
            for before, after in zip([8 * in_channels, *widths[:-1]], widths, strict=True)
        )
        # a level up has half the channels: so must what comes from below
        self.up = nn.ModuleList(
            nn.Conv3d(below, above, 1)
            for above, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(*_layer(2 * above, above)) for above in widths[-2::-1]
        )
        self.head = nn.Conv3d(width, 8 * out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, X, Y, Z) to logits (N, K, X, Y, Z).

        X, Y and Z are multiples of ``size_multiple``.
        """
        x, skips = fold(x), []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), F.interpolate(up(x), scale_factor=2)], 1))
        return unfold(self.head(x))


class MirrorUNet(UNet3D):
    """Finds tumours in a whole brain that is shown beside its own mirror image.

    A brain is nearly symmetric: what differs from the other hemisphere may be a tumour, which a
    slice of a T1w alone hardly tells.

    Parameters
    ----------
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels inside.
    """

    #: Size of the volumes it is trained on, mm: a brain, its mid-sagittal plane in the middle.
    field_of_view = (160, 192, 160)

    def __init__(self, width: int = 24, levels: int = 3) -> None:
        super().__init__(4, width, levels)

    def size(self, spacing: float, least: Sequence[float] = (0, 0, 0)) -> tuple[int, ...]:
        """Size in voxels of the volumes to give it.

        Parameters
        ----------
        spacing : edge of the voxels, mm.
        least : voxels needed; a brain may be larger than the field of view.
        """
        wanted = np.maximum(np.array(self.field_of_view) / spacing, least)
        return tuple((np.ceil(wanted / self.size_multiple) * self.size_multiple).astype(int))

    def forward(self, x: Tensor) -> Tensor:
        """Map brains (N, 2, X, Y, Z), T1w and FLAIR, to logits (N, 1, X, Y, Z).

        The mid-sagittal plane is in the middle of X. X, Y and Z are multiples of
        ``size_multiple``.
        """
        return super().forward(torch.cat([x, x.flip(2)], 1))


class BrainUNet(UNet3D):
    """Finds the brain in coarse volumes of a fixed field of view.

    The deepest level sees all of the head.

    Parameters
    ----------
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels inside.
    in_channels : channels of the input.
    """

    #: Edge of the volumes it is trained on and must be given, voxels.
    size = 64

    def __init__(self, width: int = 16, levels: int = 3, in_channels: int = 1) -> None:
        super().__init__(in_channels, width, levels)


class TissueUNet(UNet3D):
    """Tells grey matter, white matter and CSF apart in a brain.

    Parameters
    ----------
    width : channels of the first level; each level down doubles them.
    levels : number of down-sampling levels inside.
    """

    #: Edge of the volumes it is trained on, and must be given, voxels: statistics of a channel
    #: over all of a brain are others.
    size = 96

    def __init__(self, width: int = 24, levels: int = 3) -> None:
        super().__init__(1, width, levels, out_channels=3)


def look_both_ways(network: nn.Module, x: Tensor) -> Tensor:
    """Probabilities (N, K, S, S, S) of what is seen in images as they are, and mirrored.

    The mirrored ones are moved by a voxel along each axis, too: other eight voxels then make up a
    block of :class:`UNet3D`. The mean of both errs less than either.

    Parameters
    ----------
    network : maps images (N, 1, S, S, S) to logits (N, K, S, S, S).
    x : images (N, 1, S, S, S), the first axis from side to side.
    """
    axes = (2, 3, 4)
    seen = torch.softmax(network(x).float(), 1)
    mirrored = torch.softmax(network(x.roll((1, 1, 1), axes).flip(2)).float(), 1)
    return (seen + mirrored.flip(2).roll((-1, -1, -1), axes)) / 2


class RefinedTissueUNet(nn.Module):
    """A U-Net that tells tissues apart, and a few layers that weigh its maps and grey values.

    Grey values, fitted over the whole brain, know fine folds of a sharp image better than the
    U-Net, which knows thick slices and blur. The last layers see the image, the maps, and what
    grey values say, and draw borders. They alone are trained: the first is a trained
    :class:`TissueUNet`.

    Parameters
    ----------
    width : channels of the first level of the U-Net.
    """

    dimensions = 3

    #: As that of the U-Net.
    size = TissueUNet.size

    #: Channels of the last layers.
    channels = 16

    #: No probability is less than this before they change it.
    least = 0.02

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.unet = TissueUNet(width)
        self.unet.requires_grad_(False)
        self.image = nn.Conv3d(7, self.channels, 3, padding=1)
        self.look = nn.Linear(5, self.channels)
        self.near = nn.Conv3d(self.channels, self.channels, 3, padding=2, dilation=2)
        self.last = nn.Conv3d(self.channels, self.channels, 3, padding=1)
        self.head = nn.Conv3d(self.channels, 3, 1)
        for values in self.head.parameters():
            nn.init.zeros_(values)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, S, S, S), 0 outside the brain, to logits (N, 3, S, S, S)."""
        maps = look_both_ways(self.unet, x)
        results = []
        for image, before in zip(x, maps, strict=True):
            values, prior = image[0].float().cpu().numpy(), before.cpu().numpy()
            found = fit_grey_values(values, values > 0, prior)
            if found is None:  # there is nothing to learn, but a gradient is expected
                results.append(torch.log(before + self.least) + 0 * self.head.bias.sum())
            else:
                results.append(self.refine(values, prior, found))
        return torch.stack(results)

    def refine(self, image: np.ndarray, maps: np.ndarray, found: GreyValues) -> Tensor:
        """Logits (3, X, Y, Z) from an image, and maps of two origins.

        Parameters
        ----------
        image : (X, Y, Z), 0 outside the brain.
        maps : (3, X, Y, Z), of the U-Net.
        found : what grey values say.
        """
        device = self.head.weight.device
        gm, wm, csf = found.mean
        scaled = np.where(image > 0, np.clip((image - gm) / (wm - csf), -2, 2), -2)
        seen = np.concatenate([scaled[None], maps, found.maps]).astype(np.float32)
        look = np.clip(np.array([*found.spread, wm - gm, csf - gm]) / (wm - csf), -2, 2)
        facts = self.look(torch.tensor(look, dtype=torch.float32, device=device))
        x = torch.from_numpy(seen)[None].to(device, memory_format=torch.channels_last_3d)
        mean = (x[:, 1:4] + x[:, 4:]) / 2
        x = torch.relu(self.image(x) + facts[:, None, None, None])
        x = torch.relu(self.last(torch.relu(self.near(x))))
        return (torch.log(mean + self.least) + self.head(x).float())[0]


class TwoStageBrainUNet(nn.Module):
    """A U-Net that finds the brain in coarse voxels, and one that draws its outline in fine ones.

    The second sees the image about the brain and what the first made of it, and adds to the
    first's logits. It alone is trained: the first is a trained :class:`BrainUNet`.

    Parameters
    ----------
    width : channels of the first level of both.
    """

    dimensions = 3

    #: Edge of the volumes it must be given, voxels: twice as fine as those of the first stage.
    size = 2 * BrainUNet.size

    #: Edge of the part of them about the brain that the second stage sees, voxels.
    window = 96

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.coarse = BrainUNet(width)
        self.coarse.requires_grad_(False)
        self.fine = BrainUNet(width, levels=2, in_channels=2)
        for values in self.fine.head.parameters():
            nn.init.zeros_(values)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, S, S, S), S the ``size``, to logits of the same shape."""
        coarse = self.coarse(F.avg_pool3d(x, 2))
        logits = F.interpolate(coarse.float(), scale_factor=2, mode='trilinear')
        found = torch.sigmoid(logits)
        results = []
        for image, brain, before in zip(x, found, logits, strict=True):
            box = _box_about(brain[0] > 0.5, self.window)
            seen = torch.cat([image[box], brain[box]])[None]
            results.append(before + uncrop(self.fine(seen)[0], box[1:], before.shape[1:]))
        return torch.stack(results)


def _box_about(mask: Tensor, size: int) -> tuple[slice, ...]:
    """Cut, of all channels, a cube of some edge about the middle of a mask (S, S, S)."""
    where = mask.nonzero()
    middle = (where.amin(0) + where.amax(0) + 1) // 2 if len(where) else len(mask) // 2
    starts = torch.as_tensor(middle - size // 2).clamp(0, len(mask) - size).expand(3).tolist()
    return slice(None), *(slice(start, start + size) for start in starts)


def _layer(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 3x3x3 convolution, every channel normalised by itself, and ReLU."""
    return [
        nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
        # contrasts differ so much from head to head that the statistics of others are no guide
        nn.GroupNorm(out_channels, out_channels),
        nn.ReLU(inplace=True),
    ]
