"""Ways to fill a hole in a brain."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nb
import numpy as np
from skimage.restoration import inpaint_biharmonic
from torch import nn

from tumorreg_wf.images import bounding_box
from tumorreg_wf.models.inpainting import inpaint
from tumorreg_wf.symmetry import fit_mirror, mirror

#: Fills a voided image (X, Y, Z) given hole and brain; what it says outside the hole is ignored.
Fill = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def fill_mean(voided: np.ndarray, hole: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fill with the mean of the known brain."""
    return np.full_like(voided, voided[brain & ~hole].mean())


def fill_biharmonic(voided: np.ndarray, hole: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fill smoothly from the edge of the hole, the background included, in axial slices."""
    filled = voided.copy()
    for k in np.flatnonzero(hole.any(axis=(0, 1))):
        box = (*bounding_box(hole[..., k], margin=10), k)
        filled[box] = inpaint_biharmonic(voided[box], hole[box])
    return filled


def fill_mirror(voided: np.ndarray, hole: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fill with the other hemisphere; with the mean where that is unknown too."""
    known = brain & ~hole
    matrix = fit_mirror(voided, known)
    there = mirror(known.astype(np.float32), matrix) > 0.99
    return np.where(there, mirror(voided, matrix), voided[known].mean())


CLASSICAL: dict[str, Fill] = {
    'mean': fill_mean,
    'biharmonic': fill_biharmonic,
    'mirror': fill_mirror,
}

#: Methods that are networks, and the weights :func:`find_weights` is asked for.
NETWORKS = {'paper': 'paper', 'default': None}
METHODS = (*CLASSICAL, *NETWORKS)


def with_network(network: nn.Module, spacing: float, device: str) -> Fill:
    """Make a method of an inpainting network."""

    def fill(voided: np.ndarray, hole: np.ndarray, brain: np.ndarray) -> np.ndarray:
        t1w, *masks = (
            nb.Nifti1Image(array.astype(np.float32), np.eye(4)) for array in (voided, hole, brain)
        )
        return inpaint(network, t1w, *masks, spacing=spacing, device=device)

    return fill
