"""Random views of brains: turned, scaled, mirrored, and as another scanner would show them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tumorreg_wf.symmetry import from_corner


def random_affine(
    stack: np.ndarray | Tensor,
    centre: np.ndarray | None,
    size: Sequence[int],
    rng: np.random.Generator,
    turn: float = 15,
) -> Tensor:
    """Turn, scale, shear and mirror a stack of slices.

    Parameters
    ----------
    stack : (C, X, Y), on any device.
    centre : pixel that comes to lie at the middle of the result; None for the stack's middle.
    size : height and width of the result.
    turn : largest rotation, degrees.

    Returns
    -------
    stack : float32 tensor (C, *size), 0 beyond the input.
    """
    _, height, width = stack.shape
    angle = np.deg2rad(rng.uniform(-turn, turn))
    scale = np.exp(rng.uniform(-0.15, 0.15, 2))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[1, rng.uniform(-0.1, 0.1)], [0, 1]]) @ np.diag(scale)
    if rng.random() < 0.5:
        matrix[0] *= -1  # axis 0 is left to right in axial and coronal slices
    middle = np.array([height - 1, width - 1]) / 2
    shift = (middle if centre is None else np.asarray(centre)) - middle
    # grid_sample wants (x, y) = (axis 1, axis 0) in units of half the input's size
    halves = np.array([height, width]) / 2
    theta = matrix * (np.array(size) / 2)[None] / halves[:, None]
    theta = np.column_stack([theta, shift / halves])[::-1][:, [1, 0, 2]]
    return _read(torch.as_tensor(stack).float(), theta, size)


def random_matrix(
    centre: np.ndarray,
    size: Sequence[int],
    rng: np.random.Generator,
    *,
    jitter: float | Sequence[float],
    turn: float | Sequence[float] = 15,
    scale: float = 1.0,
) -> np.ndarray:
    """Map (4, 4) from the voxels of a grid to those of a volume: turned, scaled, mirrored.

    Parameters
    ----------
    centre : voxel of the volume about which the grid lies.
    size : of the grid, voxels.
    jitter : largest distance of the grid's middle from ``centre`` along each axis, voxels.
    turn : largest rotation about each axis, degrees.
    scale : voxels of the volume per voxel of the grid, before 15 % of chance.
    """
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-1, 1, 3) * turn)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(4)
        rotation[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        matrix = matrix @ rotation
    scales = scale * np.exp(rng.uniform(-0.15, 0.15, 3))
    if rng.random() < 0.5:
        scales[0] *= -1  # left and right
    matrix[:3, :3] *= scales
    matrix[:3, 3] = centre + rng.uniform(-1, 1, 3) * jitter
    return matrix @ from_corner(size)


def sample(
    volumes: Sequence[np.ndarray | Tensor], matrix: np.ndarray, size: Sequence[int]
) -> Tensor:
    """Read volumes (X, Y, Z) at the voxels of a grid, linearly; 0 beyond them.

    Parameters
    ----------
    volumes : of any type, on any device.
    matrix : (4, 4), maps voxels of the grid to voxels of the volumes.

    Returns
    -------
    found : float32 (C, *size).
    """
    shape = np.array(volumes[0].shape)
    edges = [[0, length - 1] for length in size]
    corners = np.stack(np.meshgrid(*edges, indexing='ij')).reshape(3, -1)
    reached = matrix[:3, :3] @ corners + matrix[:3, 3:]
    low = np.clip(np.floor(reached.min(1)).astype(int), 0, shape - 1)
    high = np.clip(np.ceil(reached.max(1)).astype(int) + 1, low + 1, shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    part = torch.stack([torch.as_tensor(volume[box]).float() for volume in volumes])
    # grid_sample counts from -1 to 1 between the outer faces, last axis first
    to_unit = np.diag([*(2 / (high - low)), 1.0])
    to_unit[:3, 3] = (1 - 2 * low) / (high - low) - 1
    from_unit = np.diag([*(np.array(size) / 2), 1.0])
    from_unit[:3, 3] = (np.array(size) - 1) / 2
    theta = (to_unit @ matrix @ from_unit)[:3]
    return _read(part, theta[::-1][:, [2, 1, 0, 3]], size)


def augment(channel: Tensor, brain: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary contrast, shading, sharpness, slice thickness and noise within the brain.

    Parameters
    ----------
    channel : normalised image (X, Y, Z).
    brain : boolean, the same shape; elsewhere the result is 0.
    """
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    channel = (torch.sigmoid(channel) ** gamma).logit(1e-4)
    shading = torch.from_numpy(rng.normal(0, 0.25, (1, 1, 3, 3, 3)).astype(np.float32))
    shading = shading.to(channel.device)
    channel = channel * float(rng.uniform(0.75, 1.3)) + float(rng.uniform(-0.3, 0.3))
    channel = channel + _resize(shading, tuple(channel.shape))[0, 0]
    if rng.random() < 0.25:  # thick slices along one axis
        size = list(channel.shape)
        axis = int(rng.integers(3))
        size[axis] = max(1, int(size[axis] / rng.uniform(1.5, 5)))
        coarse = F.adaptive_avg_pool3d(channel[None, None], size)
        channel = _resize(coarse, tuple(channel.shape))[0, 0]
    if rng.random() < 0.25:
        window = [3 if length > 2 else 1 for length in channel.shape]
        padding = [length // 2 for length in window]
        channel = F.avg_pool3d(channel[None, None], window, stride=1, padding=padding)[0, 0]
    if rng.random() < 0.4:
        source = torch.Generator(channel.device).manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(channel.shape, generator=source, device=channel.device)
        channel = channel + float(rng.uniform(0, 0.3)) * noise
    return channel * brain


def fade(channel: Tensor, tumor: Tensor, brain: Tensor, keep: float) -> Tensor:
    """Bring the grey values of a tumour nearer to those of the rest of the brain.

    Parameters
    ----------
    channel : normalised slices (K, H, W).
    tumor : the same shape, in [0, 1].
    brain : boolean, the same shape.
    keep : part of the difference of their means that stays; texture stays as it is.
    """
    inside, outside = brain & (tumor >= 0.5), brain & (tumor < 0.01)
    if not inside.any() or not outside.any():
        return channel
    difference = channel[inside].mean() - channel[outside].mean()
    soft = F.avg_pool2d(tumor[:, None], 3, stride=1, padding=1)[:, 0]
    return channel - (1 - keep) * difference * soft


def graft(channel: Tensor, donor: Tensor, tumor: Tensor, brain: Tensor) -> Tensor:
    """Lay the tumour of another brain into this one, with a soft edge.

    Parameters
    ----------
    channel, donor : normalised slices (K, H, W) of this brain and of the other.
    tumor : the other's tumour, the same shape, in [0, 1].
    brain : boolean, where both have brain.
    """
    soft = F.avg_pool2d(tumor[:, None], 3, stride=1, padding=1)[:, 0] * brain
    return channel + soft * (donor - channel)


def _read(source: Tensor, theta: np.ndarray, size: Sequence[int]) -> Tensor:
    """Channels (C, ...) at the voxels of a grid, by a matrix as ``affine_grid`` wants it."""
    matrix = torch.from_numpy(np.ascontiguousarray(theta, np.float32)).to(source.device)
    grid = F.affine_grid(matrix[None], [1, 1, *size], align_corners=False)
    return F.grid_sample(source[None], grid, align_corners=False)[0]


def _resize(volume: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(volume, size, mode='trilinear', align_corners=False)
