"""Tissues of a brain by the grey values of its T1w, under maps of where they can be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tumorreg_wf.images import bounding_box

#: Indices of the tissues, as BIDS has them.
GM, WM, CSF = 1, 2, 3

#: No tissue is less likely than this anywhere in the brain: maps err.
LEAST = 0.01

#: Steps of the fit.
STEPS = 20

#: Grey values are fitted as a histogram of this many bins.
BINS = 256


class GreyValues(NamedTuple):
    """What grey values say of tissues.

    Attributes
    ----------
    maps : float32 (3, X, Y, Z), probabilities of GM, WM and CSF by grey values and maps; where
        nothing is known, the maps.
    mean, spread : (3,), mean and standard deviation of the grey values of each.
    """

    maps: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def fit_grey_values(t1w: np.ndarray, known: np.ndarray, maps: np.ndarray) -> GreyValues | None:
    """Divide a brain into GM, WM and CSF by its grey values.

    Expectation maximisation of one Gaussian per tissue under spatial priors (Van Leemput et al.
    1999).

    Parameters
    ----------
    t1w : (X, Y, Z), without bias field.
    known : boolean (X, Y, Z), the part of the brain outside the dilated tumour.
    maps : (3, X, Y, Z), probabilities of GM, WM and CSF; sum to 1 in the brain.

    Returns
    -------
    found : None where the grey values are not those of a T1w: CSF darkest, WM brightest.
    """
    if not known.any():
        return None
    box = bounding_box(known)
    learnt = known[box]
    values = t1w[box][learnt]
    prior = np.stack([one[box][learnt] for one in maps]) + LEAST
    prior /= prior.sum(0)
    low, high = np.percentile(values, [0.2, 99.8])
    if low >= high:
        return None
    width = (high - low) / BINS
    bins = np.clip((values - low) / width, 0, BINS - 1).astype(np.intp)
    mean, spread = _fit(bins, prior)
    gm, wm, csf = mean
    if not csf < gm < wm:
        return None
    found = np.array(maps, np.float32)
    found[:, known] = _posterior(prior, _likelihood(mean, spread)[:, bins])
    return GreyValues(found, low + mean * width, spread * width)


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
