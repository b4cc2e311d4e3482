"""Volumes for networks: voxels folded into channels, and boxes put back where they were cut."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def fold(x: Tensor) -> Tensor:
    """Turn blocks of 2 voxels a side into channels.

    (N, C, X, Y, Z) becomes (N, 8C, X/2, Y/2, Z/2), and (N, C, H, W) becomes (N, 4C, H/2, W/2).
    """
    n, c, *size = x.shape
    d = len(size)
    x = x.reshape(n, c, *(part for length in size for part in (length // 2, 2)))
    x = x.permute(0, 1, *range(3, 3 + 2 * d, 2), *range(2, 2 + 2 * d, 2))
    return x.reshape(n, c * 2**d, *(length // 2 for length in size))


def unfold(x: Tensor) -> Tensor:
    """Turn channels back into pixels or voxels, the inverse of :func:`fold`."""
    n, c, *size = x.shape
    d = len(size)
    x = x.reshape(n, c // 2**d, *[2] * d, *size)
    x = x.permute(0, 1, *(axis for k in range(2, 2 + d) for axis in (k + d, k)))
    return x.reshape(n, c // 2**d, *(2 * length for length in size))


def uncrop(values: Tensor, box: Sequence[slice], shape: Sequence[int]) -> Tensor:
    """Put channels (..., X, Y, Z) back where a box was cut out of a shape; 0 around it."""
    sides = zip(reversed(box), reversed(shape), strict=True)
    return F.pad(values, [edge for side, end in sides for edge in (side.start, end - side.stop)])
