"""What a scanner does to an image: contrast curve, blur, thick slices, shading and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tumorreg_wf.training.fields import Spacing, interpolate, random_field


@dataclass(frozen=True)
class Scanner:
    """One acquisition.

    Attributes
    ----------
    bias : standard deviation of the logarithm of the bias field.
    noise : standard deviation of the noise, relative to white matter.
    gamma : exponent of the contrast curve that leaves white matter as it is.
    blur : standard deviation of the point spread, mm.
    axis, thickness : the axis across thick slices and their distance, mm; 0 for none.
    """

    bias: float
    noise: float
    gamma: float = 1.0
    blur: float = 0.0
    axis: int = 2
    thickness: float = 0.0


def random_scanner(rng: np.random.Generator, *, wild: bool) -> Scanner:
    """Draw a good scanner, or, if ``wild``, any that patients meet."""
    if not wild:
        return Scanner(bias=rng.uniform(0.02, 0.08), noise=rng.uniform(0.01, 0.025))
    return Scanner(
        bias=rng.uniform(0.02, 0.2),
        noise=np.exp(rng.uniform(np.log(0.005), np.log(0.05))),
        gamma=np.exp(rng.uniform(-0.25, 0.25)),
        blur=rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 0.0,
        axis=int(rng.choice(3, p=(0.15, 0.15, 0.7))),
        thickness=rng.uniform(2, 6) if rng.random() < 0.4 else 0.0,
    )


def scan(
    images: Sequence[np.ndarray],
    visible: np.ndarray,
    white: float,
    spacing: Spacing,
    scanner: Scanner,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Scan images with the same bias field and the same Rician noise.

    Parameters
    ----------
    images
        Non-negative arrays (X, Y, Z).
    visible
        Boolean; what the skull stripping leaves. The rest does not blur into it.
    white
        Intensity of white matter.
    spacing
        Voxel size in mm.

    Returns
    -------
    list of numpy.ndarray
        float32 (X, Y, Z), 0 where not ``visible``.
    """
    bias = np.exp(scanner.bias * random_field(visible.shape, spacing, 50.0, rng))
    sharp = scanner.blur == 0 and scanner.thickness == 0
    weight = 1.0 if sharp else np.maximum(_acquire(visible, spacing, scanner), 0.05)
    noise: np.ndarray | None = None
    scanned = []
    for image in images:
        if scanner.gamma != 1:
            image = white * (image / white) ** np.float32(scanner.gamma)
        image = _acquire(image * bias * visible, spacing, scanner) / weight
        if noise is None:
            noise = rng.standard_normal((2, *image.shape), np.float32)
            noise *= np.float32(white * scanner.noise)
        image = np.hypot(image + noise[0], noise[1])
        image = _reslice(image, visible.shape, spacing, scanner)
        scanned.append(np.where(visible, image, 0).astype(np.float32))
    return scanned


def resolve_labels(labels: np.ndarray, spacing: Spacing, scanner: Scanner) -> np.ndarray:
    """Labels as thick slices show them: in each voxel the one that has most of it."""
    if not scanner.thickness:
        return labels
    shares = np.stack(
        [
            _reslice(_acquire(labels == label, spacing, scanner), labels.shape, spacing, scanner)
            for label in range(int(labels.max()) + 1)
        ]
    )
    seen = 1 + np.argmax(shares[1:], axis=0) if len(shares) > 1 else labels
    return np.where(shares[0] < 0.5, seen, 0).astype(labels.dtype)


def _acquire(image: np.ndarray, spacing: Spacing, scanner: Scanner) -> np.ndarray:
    """Blur an image and average it over thick slices, which need not be whole voxels apart."""
    image = image.astype(np.float32)
    if scanner.blur:
        image = ndimage.gaussian_filter(image, scanner.blur / np.asarray(spacing, float))
    if scanner.thickness:
        step = max(scanner.thickness / spacing[scanner.axis], 1.0)
        thick = max(round(step), 1)
        image = ndimage.uniform_filter1d(image, thick, scanner.axis)
        # the mean over an even number of voxels is that of half a voxel before
        middles = np.arange(0, image.shape[scanner.axis], step) + (thick % 2 == 0) / 2
        image = interpolate(image, middles, scanner.axis)
    return image


def _reslice(
    image: np.ndarray, shape: Sequence[int], spacing: Spacing, scanner: Scanner
) -> np.ndarray:
    """Bring thick slices back to the voxels they were averaged from."""
    if not scanner.thickness:
        return image
    step = max(scanner.thickness / spacing[scanner.axis], 1.0)
    return interpolate(image, np.arange(shape[scanner.axis]) / step, scanner.axis)
