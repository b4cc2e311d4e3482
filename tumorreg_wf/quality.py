"""How well a patient was processed, in four numbers, and who stands out by them."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: The measures, as their data dictionary says it.
MEASURES = {
    'similarity': {
        'Description': 'Correlation of the recovered T1w with the template warped onto it, over '
        'the brain outside the hole'
    },
    'fold_fraction': {
        'Description': 'Part of the brain where the warp folds: its Jacobian determinant is '
        'below 0.002'
    },
    'hole_share': {'Description': 'Part of the brain that was replaced (the dilated tumour mask)'},
    'seam_contrast': {
        'Description': 'Mean absolute step of the recovered T1w between neighbours on either '
        'side of the edge of the hole, over that of the next step outwards on the same line; '
        'well above 1 is a visible seam'
    },
}

#: Spreads below these matter to nobody, so that one folded voxel is no outlier among zeros.
SMALLEST_SPREAD = {
    'similarity': 0.005,
    'fold_fraction': 1e-4,
    'hole_share': 0.005,
    'seam_contrast': 0.05,
}

#: ANTs keeps determinants from 0.001 up before it takes the logarithm.
FOLDED = np.log(0.002)

#: With fewer patients nobody stands out; beyond this robust z (either sign) one does.
FEWEST_PATIENTS, HIGHEST_Z = 5, 3.5


def measure_quality(
    recovered: np.ndarray,
    template: np.ndarray,
    log_jacobian: np.ndarray,
    brain: np.ndarray,
    hole: np.ndarray,
) -> dict[str, float]:
    """Measure how well a patient was processed.

    Parameters
    ----------
    recovered : (X, Y, Z), T1w with the tumour replaced.
    template : (X, Y, Z), the template's T1w warped onto it.
    log_jacobian : (X, Y, Z), logarithm of the Jacobian determinant of the warp, from ANTs.
    brain, hole : boolean (X, Y, Z); the hole is what was to be replaced, and is not where it
        leaves nothing of the brain.

    Returns
    -------
    row : a value for each of :data:`MEASURES`; NaN where there is nothing to measure.
    """
    known = brain & ~hole
    if not known.any():
        hole = np.zeros_like(hole)
    size = max(int(brain.sum()), 1)
    return {
        'similarity': _correlation(recovered[known], template[known]),
        'fold_fraction': float((log_jacobian[brain] < FOLDED).sum() / size),
        'hole_share': float((hole & brain).sum() / size),
        'seam_contrast': _seam_contrast(recovered, brain, hole),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return float('nan')
    return float(np.corrcoef(one, other)[0, 1])


def _seam_contrast(image: np.ndarray, brain: np.ndarray, hole: np.ndarray) -> float:
    """Compare steps across the edge with those next to them, direction by direction."""
    edge = next_to_it = 0.0
    for axis in range(3):
        for backwards in (False, True):
            line, inside, known = (
                np.moveaxis(np.flip(array, axis) if backwards else array, axis, 0)
                for array in (image, hole & brain, brain & ~hole)
            )
            at = inside[:-2] & known[1:-1] & known[2:]
            edge += np.abs(line[1:-1] - line[:-2])[at].sum()
            next_to_it += np.abs(line[2:] - line[1:-1])[at].sum()
    return float(edge / next_to_it) if next_to_it else float('nan')


def find_outliers(values: pd.DataFrame, patients: pd.Series) -> pd.Series:
    """Tell who stands out, and by what.

    A value stands out if its robust z, its distance from the median over 1.4826 times the median
    absolute deviation, is above 3.5. The spread is taken as no less than
    :data:`SMALLEST_SPREAD`.

    Parameters
    ----------
    values : a row per T1w, a column per measure; NaN where it is not known.
    patients : whose row it is; with fewer than 5 patients that have a measure, nobody stands out.

    Returns
    -------
    outliers : for each row the names of the measures, joined by commas; empty for most.
    """
    flags = pd.DataFrame(False, index=values.index, columns=values.columns)
    for name, column in values.items():
        if patients[column.notna()].nunique() >= FEWEST_PATIENTS:
            away = (column - column.median()).abs()
            spread = max(1.4826 * away.median(), SMALLEST_SPREAD[str(name)])
            flags[name] = away / spread > HIGHEST_Z
    return flags.apply(lambda row: ','.join(row.index[row]), axis=1).astype(object)
