"""Tissues of a brain, from maps of where they can be and the grey values of its T1w."""

from __future__ import annotations

import numpy as np

from tumorreg_wf.images import bounding_box

#: No tissue is less likely than this anywhere in the brain: maps err.
LEAST = 0.01

#: Steps of the fit.
STEPS = 20

#: Grey values are fitted as a histogram of this many bins.
BINS = 256


def segment_tissues(
    t1w: np.ndarray, brain: np.ndarray, known: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """Divide a brain into GM, WM and CSF.

    Expectation maximisation of one Gaussian per tissue under spatial priors (Van Leemput et al.
    1999), and the mean of what it finds and of the maps: grey values know fine folds of a sharp
    image better, the maps thick slices and blur. What is known alone decides what a tissue looks
    like, and is divided by it; elsewhere the maps stay.

    Parameters
    ----------
    t1w : (X, Y, Z), without bias field.
    brain : boolean (X, Y, Z).
    known : boolean (X, Y, Z), the part of the brain outside the dilated tumour.
    maps : (3, X, Y, Z), probabilities of GM, WM and CSF; sum to 1 in the brain.

    Returns
    -------
    probabilities : float32 (3, X, Y, Z), sum to 1 in the brain; 0 elsewhere. The maps, where
        the grey values are not those of a T1w: CSF darkest, WM brightest.
    """
    result = np.where(brain, maps, 0).astype(np.float32)
    known = known & brain
    if not known.any():
        return result
    box = bounding_box(known)
    learnt = known[box]
    values = t1w[box][learnt]
    prior = np.stack([one[box][learnt] for one in result]) + LEAST
    prior /= prior.sum(0)
    low, high = np.percentile(values, [0.2, 99.8])
    if low >= high:
        return result
    bins = np.clip((values - low) / (high - low) * BINS, 0, BINS - 1).astype(np.intp)
    mean, spread = _fit(bins, prior)
    gm, wm, csf = mean
    if csf < gm < wm:
        result[:, known] += _posterior(prior, _likelihood(mean, spread)[:, bins])
        result[:, known] /= 2
    return result


def _fit(bins: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, in bins, of the three tissues."""
    counts = _counts(bins, prior**2)
    # the median: at the cortex maps are wrong too often for the mean
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
