"""Folding fine pixels or voxels into channels: full resolution at the price of half of it."""

from __future__ import annotations

from torch import Tensor


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
