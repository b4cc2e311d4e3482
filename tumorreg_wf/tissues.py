"""Tissues of a brain, from warped maps of the template and the grey values of its own T1w."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tumorreg_wf.images import bounding_box

#: Warped maps are blurred by this (mm), for a registration is not exact ...
BLUR = 1.0

#: ... and count as this power, for their voxels do not err apart from each other.
PRIOR_WEIGHT = 0.3

#: Pull of the six neighbours of a voxel (Markov random field).
NEIGHBOURS = 1.0

#: Steps of the fit, and those at its end in which neighbours pull.
STEPS, SMOOTH_STEPS = 20, 4

#: Grey values are fitted as a histogram of this many bins.
BINS = 256


def segment_tissues(
    t1w: np.ndarray,
    brain: np.ndarray,
    known: np.ndarray,
    priors: np.ndarray,
    spacing: np.ndarray,
) -> np.ndarray:
    """Divide a brain into GM, WM and CSF.

    Expectation maximisation of one Gaussian per tissue under spatial priors (Van Leemput et al.
    1999), with a mean-field Markov random field at the end. What is known alone decides what a
    tissue looks like, and is divided by it; elsewhere the priors stay.

    Parameters
    ----------
    t1w : (X, Y, Z), without bias field.
    brain : boolean (X, Y, Z).
    known : boolean (X, Y, Z), the part of the brain that was not replaced.
    priors : (3, X, Y, Z), probabilities of GM, WM and CSF; sum to 1 in the brain.
    spacing : voxel size, mm.

    Returns
    -------
    probabilities : float32 (3, X, Y, Z), sum to 1 in the brain; 0 elsewhere. The priors, where
        the grey values are not those of a T1w: CSF darkest, WM brightest.
    """
    result = np.where(brain, priors, 0).astype(np.float32)
    known = known & brain
    if not known.any():
        return result
    box = bounding_box(brain, margin=1)
    inside, values = brain[box], t1w[box]
    learnt = known[box][inside]
    prior = np.stack([
        ndimage.gaussian_filter(one[box], BLUR / np.asarray(spacing))[inside] for one in result
    ])  # fmt: skip
    prior = (np.clip(prior, 0, None) + 0.01) ** PRIOR_WEIGHT
    prior /= prior.sum(0)
    low, high = np.percentile(values[inside][learnt], [0.2, 99.8])
    if low >= high:
        return result
    bins = np.clip((values[inside] - low) / (high - low) * BINS, 0, BINS - 1).astype(np.intp)
    fit = _fit(bins[learnt], prior[:, learnt])
    gm, wm, csf = fit[0]
    if not csf < gm < wm:
        return result

    post = _posterior(prior, _likelihood(*fit)[:, bins])
    field = np.zeros((3, *inside.shape), np.float32)
    kernel = ndimage.generate_binary_structure(3, 1).astype(np.float32)
    kernel[1, 1, 1] = 0
    for _ in range(SMOOTH_STEPS):
        field[:, inside] = post
        pull = np.stack(
            [ndimage.convolve(one, kernel / 3, mode='constant')[inside] for one in field]
        )
        post = _posterior(prior * np.exp(NEIGHBOURS * pull), _likelihood(*fit)[:, bins])
    field[:, inside] = post
    # made-up tissue says less of what was there than the template does
    result[:, known] = field[:, known[box]]
    return result


def _fit(bins: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, in bins, of the three tissues."""
    counts = _counts(bins, prior**2)
    # the median: near the cortex the warped maps are wrong too often for the mean
    half = np.cumsum(counts, 1) >= counts.sum(1, keepdims=True) / 2
    mean, spread = half.argmax(1) + 0.5, _moments(counts)[1]
    for _ in range(STEPS):
        mean, spread = _moments(
            _counts(bins, _posterior(prior, _likelihood(mean, spread)[:, bins]))
        )
    return mean, spread


def _counts(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(bins, weights=one, minlength=BINS) for one in weights])


def _moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grey = np.arange(BINS) + 0.5
    total = counts.sum(1) + 1e-9
    mean = counts @ grey / total
    spread = np.sqrt((counts * (grey - mean[:, None]) ** 2).sum(1) / total)
    return mean, np.maximum(spread, 0.01 * BINS)


def _likelihood(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Likelihood (3, BINS) of the grey values, never 0."""
    away = (np.arange(BINS) + 0.5 - mean[:, None]) / spread[:, None]
    return np.exp(-0.5 * away**2) / spread[:, None] + 1e-12


def _posterior(prior: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    post = prior * likelihood
    return post / post.sum(0)
