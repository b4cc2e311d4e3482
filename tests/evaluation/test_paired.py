"""Paired tests against worked examples."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tumorreg_wf.evaluation.paired import compare_all, compare_pair, holm


def test_holm_by_hand():
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 = 0.02, 0.03, 0.06, 0.04 -> 0.06
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_leaves_out_what_is_unknown():
    np.testing.assert_allclose(holm([0.8, np.nan, 0.6]), [1, np.nan, 1])
    assert len(holm([])) == 0


def test_a_worked_example():
    """Charles Darwin's maize: crossed and self-fertilised plants in pairs, eighths of an inch."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    self_fertilised = np.arange(15.0) * 3 + 100
    row = compare_pair(self_fertilised + differences, self_fertilised)
    assert row['n'] == 15
    assert row['difference'] == pytest.approx(20.933, abs=1e-3)
    assert row['difference_sd'] == pytest.approx(37.744, abs=1e-3)
    assert row['p_t'] == pytest.approx(0.0497, abs=1e-4)  # t = 2.148, 14 degrees of freedom
    # the negative ones have ranks 10 and 14 of 120 in all
    assert row['rank_biserial'] == pytest.approx((96 - 24) / 120)
    assert row['p_wilcoxon'] == pytest.approx(0.0413, abs=1e-4)
    assert row['cohen_d'] == pytest.approx(20.933 / 37.744, abs=1e-4)


def test_nothing_differs():
    row = compare_pair(np.ones(5), np.ones(5))
    assert (row['n'], row['difference'], row['difference_sd']) == (5, 0, 0)
    assert np.isnan([row['p_wilcoxon'], row['p_t'], row['cohen_d'], row['rank_biserial']]).all()


def test_differences_alike_up_to_rounding_have_no_spread():
    row = compare_pair(
        np.array([0.1 + 0.2, 0.4 + 0.2, 0.5 + 0.2, 0.9]), np.array([0.1, 0.4, 0.5, 0.7])
    )
    assert row['difference'] == pytest.approx(0.2)
    assert np.isnan([row['p_t'], row['cohen_d']]).all()


def test_one_participant_and_none():
    row = compare_pair(np.array([2.0]), np.array([1.0]))
    assert row['difference'] == row['rank_biserial'] == 1
    assert np.isnan([row['p_t'], row['difference_sd']]).all()
    assert compare_pair(np.array([]), np.array([]))['n'] == 0


def test_every_pair_on_those_who_have_both():
    rng = np.random.default_rng(0)
    values = {'a': rng.normal(0, 1, 9), 'b': rng.normal(1, 1, 9), 'c': rng.normal(3, 1, 9)}
    table = pd.DataFrame(
        [{'who': i, 'arm': arm, 'x': x} for i in range(9) for arm, x in
         ((arm, values[arm][i]) for arm in 'abc')]
    )  # fmt: skip
    table.loc[(table['arm'] == 'c') & (table['who'] == 3), 'x'] = np.nan
    tests = compare_all(table, 'x', 'arm', 'who')
    assert list(tests['one'] + tests['other']) == ['ba', 'ca', 'cb']
    assert list(tests['n']) == [9, 8, 8]
    assert tests['difference'][0] == pytest.approx((values['b'] - values['a']).mean())
    assert tests['p_t'][0] == pytest.approx(stats.ttest_rel(values['b'], values['a']).pvalue)
    for name in ('p_wilcoxon', 'p_t'):
        np.testing.assert_allclose(tests[f'{name}_holm'], holm(tests[name]))


def test_an_arm_nobody_has_is_left_out():
    table = pd.DataFrame({'who': [1, 1, 2, 2], 'arm': list('abab'), 'x': [1, np.nan, 2, np.nan]})
    tests = compare_all(table, 'x', 'arm', 'who')
    assert tests.empty and {'one', 'other', 'p_t_holm'} <= set(tests)
