"""Whether the reliability of a region, as every patient's table has it, goes with its error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from tumorreg_wf.measures import find_agreement, measure_regions

COLUMNS = {
    'participant_id': 'Participant.',
    'index': 'Region of the atlas.',
    'volume_mm3': 'Its volume in the patient.',
    'tumor_fraction': 'Part of it under the tumour mask.',
    'distance_mm': 'From the tumour.',
    'reliability': 'Part of it where the warped atlas says of the tissue what the image says.',
    'error': 'Part of it where the warped atlas is wrong about the tissue: known from the truth, '
    'under the tumour too.',
    'warp_mm': "Mean distance between this warp and the oracle's in the region, mm.",
}

#: Smaller regions say little, mm^3.
SMALLEST_REGION = 500.0


def measure_reliability(
    labels: np.ndarray,
    tumor: np.ndarray,
    dilated: np.ndarray,
    brain: np.ndarray,
    tissues: np.ndarray,
    atlas_tissues: np.ndarray,
    truth: np.ndarray,
    distance: np.ndarray | None,
    spacing: np.ndarray,
) -> pd.DataFrame:
    """Measure each region's reliability and its true error; see :data:`COLUMNS`.

    Parameters
    ----------
    labels : integer (X, Y, Z), the warped atlas; regions are those that occur.
    tumor, dilated, brain : boolean (X, Y, Z).
    tissues, atlas_tissues, truth : (X, Y, Z), those of a run, of the warped atlas alone,
        and as they are (0 where that is not known).
    distance : (X, Y, Z), mm, from the oracle's warp; None where there is no oracle.
    spacing : voxel size, mm.
    """
    labels = np.where(brain & (truth > 0), labels, 0)
    index = np.setdiff1d(labels, 0)
    lut = pd.DataFrame({'index': index, 'name': index.astype(str)})
    agreement = find_agreement(tissues, atlas_tissues, brain & ~dilated)
    table = measure_regions(labels, tumor, spacing, lut, agreement)
    table['error'] = ndimage.mean(atlas_tissues != truth, labels, index)
    table['warp_mm'] = np.nan if distance is None else ndimage.mean(distance, labels, index)
    table = table[table['volume_mm3'] >= SMALLEST_REGION]
    return table[[column for column in COLUMNS if column in table]]


def summary_of(table: pd.DataFrame) -> str:
    """Say in Markdown how reliability goes with error: Spearman's correlation within patients."""
    lines = ['## Reliability of regions\n']
    for near, where in ((False, 'all regions'), (True, 'regions within 15 mm of the tumour')):
        rows = table[table['distance_mm'] <= 15] if near else table
        for measure, title in (
            ('error', 'error of the tissue'),
            ('warp_mm', 'distance to the oracle'),
        ):
            found = [
                stats.spearmanr(one['reliability'], one[measure]).statistic
                for _, one in rows.groupby('participant_id')
                if len(one) >= 5
                and one[measure].notna().all()
                # nothing goes with what is the same everywhere
                and min(one['reliability'].nunique(), one[measure].nunique()) > 1
            ]
            lines.append(f'- {where}, {title}: {_describe(found)}')
    return '\n'.join(lines) + '\n'


def _describe(found: Sequence[float]) -> str:
    if not len(found):
        return 'n/a'
    below = int(np.sum(np.array(found) < 0))
    return (
        f"Spearman's rho {np.mean(found):.2f} on average ({min(found):.2f} to {max(found):.2f}); "
        f'below 0 in {below} of {len(found)} patients'
    )
