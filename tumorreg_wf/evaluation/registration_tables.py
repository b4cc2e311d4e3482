"""Tables of the comparison of registrations: means by arm, tests of every two arms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tumorreg_wf.evaluation.paired import compare_all
from tumorreg_wf.evaluation.registration_arms import ORACLE
from tumorreg_wf.evaluation.registration_nodes import SHELL
from tumorreg_wf.evaluation.results import to_markdown

#: The arm the others are tested against in the tables.
BASELINE = 'original'

COLUMNS = {
    'participant_id': 'Participant.',
    'reference': 'What tissues are measured against: true labels; or those found in the T1w, '
    'without a template, outside the dilated tumour (found).',
    'tumor_ml': 'Volume of the tumour mask, ml.',
    'arm': 'What the template was registered to.',
    'region': 'outside: the brain without the dilated tumour, where the truth is known; shell: '
    f'the part of it within {SHELL:.0f} mm of the dilated tumour; inside: the brain under the '
    'dilated tumour, where the truth is what the image before the tumour showed.',
    'volume_ml': 'Volume of the region, ml.',
    'dice_csf': 'Dice of CSF: the warped maps of the template against the reference.',
    'dice_gm': 'The same of grey matter.',
    'dice_wm': 'The same of white matter.',
    'dseg_csf': 'Dice of CSF: the tissues of a run (dseg) against true labels; the same in all '
    'arms but under the tumour.',
    'dseg_gm': 'The same of grey matter.',
    'dseg_wm': 'The same of white matter.',
    'distance_mm': 'Mean over the region of the distance between the points to which the warp of '
    'this arm and that of the oracle bring a voxel, mm (in the template).',
    'distance_median_mm': 'The median of the same.',
    'distance_p95_mm': 'The 95th percentile of the same.',
    'fold_fraction': 'Part of the region where the Jacobian determinant of the warp is 0 or less.',
    'seconds': 'Time of the registration in this arm, s; without the affine where it is shared.',
}

TEST_COLUMNS = {
    'reference, region': 'As above.',
    'measure': 'What is compared.',
    'one, other': 'Arms.',
    'n': 'Participants that have both.',
    'difference, difference_sd': 'Mean and standard deviation of one minus other.',
    'cohen_d': 'Their ratio.',
    'rank_biserial': 'Sum of the ranks of positive differences minus that of negative ones, over '
    'all ranks: from -1 to 1.',
    'p_wilcoxon, p_t': 'Wilcoxon signed-rank test and paired t-test, two-sided.',
    'p_wilcoxon_holm, p_t_holm': 'The same, corrected by Holm for the number of pairs of arms.',
}

#: Measures that are tested, and their names in tables.
MEASURES = {'dice_csf': 'Dice CSF', 'dice_gm': 'Dice GM', 'dice_wm': 'Dice WM',
            'dseg_csf': 'Dice CSF, dseg', 'dseg_gm': 'Dice GM, dseg', 'dseg_wm': 'Dice WM, dseg',
            'distance_mm': 'distance to the oracle, mm'}  # fmt: skip

REFERENCES = {'labels': 'true tissues', 'found': 'tissues found in the T1w'}
REGIONS = {
    'shell': f'within {SHELL:.0f} mm of the tumour',
    'outside': 'outside the tumour',
    'inside': 'under the tumour',
}

INTRODUCTION = f"""\
# Registration of the template to brains with a tumour

Means and standard deviations over participants. p: Wilcoxon signed-rank test against `{BASELINE}`,
corrected by Holm for all pairs of arms. Gap closed: 1 minus the mean distance to the oracle over
that of `{BASELINE}`.
"""


def compare_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Test every two arms in every region and measure; see :data:`TEST_COLUMNS`."""
    tests = []
    for (reference, region), rows in table.groupby(['reference', 'region'], sort=False):
        for measure in MEASURES:
            # the atlas is asked for the tissues under the tumour alone
            if measure.startswith('dseg') and region != 'inside':
                continue
            # every warp is some way from the oracle's; its own distance of 0 is no measurement
            arms = rows[rows['arm'] != ORACLE] if measure == 'distance_mm' else rows
            found = compare_all(arms, measure, 'arm', 'participant_id')
            tests.append(found.assign(reference=reference, region=region, measure=measure))
    joined = pd.concat(tests, ignore_index=True)
    first = ['reference', 'region', 'measure']
    return joined[[*first, *joined.columns.drop(first)]]


def table_of_arms(rows: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """Lay out a region: a row per measure, a column per arm, as text.

    Parameters
    ----------
    rows : of one reference and region.
    tests : of :func:`compare_arms`, of the same.
    """
    lines = []
    for measure, title in MEASURES.items():
        line = {'': title}
        for arm, values in rows.groupby('arm', sort=False)[measure]:
            line[arm] = _mean(values)
            pair = (tests['one'] == arm) & (tests['other'] == BASELINE)
            against = tests[pair & (tests['measure'] == measure)]
            if len(against):
                line[arm] += f' ({_p(against["p_wilcoxon_holm"].iloc[0])})'
        lines.append(line)
    means = rows.groupby('arm', sort=False)[['distance_mm', 'fold_fraction', 'seconds']].mean()
    if BASELINE in means.index:
        closed = 1 - means['distance_mm'] / means.loc[BASELINE, 'distance_mm']
        lines.append({'': 'gap closed, %', **_text(100 * closed, '.0f')})
    lines.append({'': 'folded, %', **_text(100 * means['fold_fraction'], '.3g')})
    lines.append({'': 'seconds', **_text(means['seconds'], '.0f')})
    return pd.DataFrame(lines)


def table_of_tests(tests: pd.DataFrame) -> pd.DataFrame:
    """Lay out tests of one reference and region: a row per pair, a column per measure, as text."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for test in tests.itertuples():
        line = lines.setdefault((test.one, test.other), {'': f'{test.one} - {test.other}'})
        effect = 'n/a' if np.isnan(test.cohen_d) else f'{test.cohen_d:.2f}'
        text = f'{test.difference:+.4f} ({_p(test.p_wilcoxon_holm)}, d = {effect})'
        line[MEASURES[test.measure]] = text
    return pd.DataFrame(lines.values()).fillna('n/a')


def _mean(values: pd.Series) -> str:
    if values.isna().all():
        return 'n/a'
    spread = f' ± {values.std():.3f}' if values.count() > 1 else ''
    return f'{values.mean():.3f}{spread}'


def _p(value: float) -> str:
    if np.isnan(value):
        return 'p n/a'
    return 'p < 0.0005' if value < 0.0005 else f'p = {value:.2g}'


def _text(values: pd.Series, how: str) -> dict[str, str]:
    return {str(arm): 'n/a' if np.isnan(x) else format(x, how) for arm, x in values.items()}


def _parts(table: pd.DataFrame, tests: pd.DataFrame) -> Iterator[str]:
    yield INTRODUCTION
    for reference, against in REFERENCES.items():
        for region, where in REGIONS.items():
            rows, found = (
                one[(one['reference'] == reference) & (one['region'] == region)]
                for one in (table, tests)
            )
            if len(rows):
                n = rows['participant_id'].nunique()
                yield f'## {where.capitalize()}, against {against} (n = {n})\n'
                yield to_markdown(table_of_arms(rows, found))
                yield 'Mean differences:\n'
                yield to_markdown(table_of_tests(found))
    for name, columns in (('registration', COLUMNS), ('registration_tests', TEST_COLUMNS)):
        yield f'## Columns of {name}.tsv\n'
        yield ''.join(f'- `{column}`: {text}\n' for column, text in columns.items())


def summary_of(table: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Summarise in Markdown, region by region."""
    return '\n'.join(_parts(table, tests))
