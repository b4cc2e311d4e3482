"""Paired tests over participants."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values for their number (Holm 1979); NaN stays and does not count."""
    p_values = np.asarray(p_values, float)
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known])]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return corrected


def compare_pair(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Compare two measurements of the same participants, two-sided.

    Parameters
    ----------
    one, other : a value per participant, finite.

    Returns
    -------
    row : n; difference (mean of one minus other) and difference_sd; cohen_d (mean over standard
        deviation of the differences); rank_biserial (sum of the ranks of positive differences
        minus that of negative ones, over all; from -1 to 1); p_wilcoxon (signed ranks) and p_t
        (paired t). NaN where there are too few participants, or nothing differs.
    """
    differences = np.asarray(one, float) - np.asarray(other, float)
    row = dict.fromkeys(
        ('difference', 'difference_sd', 'cohen_d', 'rank_biserial', 'p_wilcoxon', 'p_t'), np.nan
    )
    row = {'n': len(differences), **row}
    if not len(differences):
        return row
    row['difference'] = differences.mean()
    unequal = differences[differences != 0]
    if len(unequal):
        ranks = stats.rankdata(np.abs(unequal))
        row['rank_biserial'] = float((ranks * np.sign(unequal)).sum() / ranks.sum())
        row['p_wilcoxon'] = float(stats.wilcoxon(unequal).pvalue)
    if len(differences) > 1:
        row['difference_sd'] = differences.std(ddof=1)
        rounding = 1e-12 * max(np.abs(one).max(), np.abs(other).max())
        if row['difference_sd'] > rounding:
            row['cohen_d'] = row['difference'] / row['difference_sd']
            row['p_t'] = float(stats.ttest_1samp(differences, 0).pvalue)
    return row


def compare_all(table: pd.DataFrame, value: str, by: str, subject: str) -> pd.DataFrame:
    """Compare every two groups of a table on the participants that both have.

    Parameters
    ----------
    table : a row per participant and group.
    value : column of the measurements; rows without one are left out.
    by, subject : columns of groups and participants. The later group comes first in a pair, so
        that a difference is that from a group that stands before it.

    Returns
    -------
    tests : a row per pair: one, other, the values of :func:`compare_pair`, and ``*_holm``, the
        p-values corrected for the number of pairs.
    """
    wide = table.pivot(index=subject, columns=by, values=value)
    groups = [group for group in table[by].unique() if wide[group].notna().any()]
    rows = []
    for other, one in combinations(groups, 2):
        both = wide[[one, other]].dropna()
        found = compare_pair(both[one].to_numpy(), both[other].to_numpy())
        rows.append({'one': one, 'other': other, **found})
    nothing = np.empty(0)
    tests = pd.DataFrame(rows, columns=['one', 'other', *compare_pair(nothing, nothing)])
    for name in ('p_wilcoxon', 'p_t'):
        tests[f'{name}_holm'] = holm(tests[name].to_numpy(float))
    return tests
