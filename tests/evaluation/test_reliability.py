"""Reliability of regions against their true error, on phantoms."""

import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.evaluation.reliability import COLUMNS, measure_reliability, summary_of


def test_what_is_measured():
    labels = np.zeros((20, 10, 10), int)
    labels[:10], labels[10:] = 1, 4
    brain = np.ones(labels.shape, bool)
    brain[:, :, 0] = False
    truth = np.where(brain, 2, 0)
    truth[:, 9] = 0  # not known there: left out
    atlas_tissues = np.full(labels.shape, 2)
    atlas_tissues[:2] = 1  # wrong in a fifth of region 1
    tissues = np.full(labels.shape, 2)
    tumor, dilated = np.zeros_like(brain), np.zeros_like(brain)
    tumor[19], dilated[18:] = True, True
    distance = np.where(labels == 1, 3.0, 1.0)
    table = measure_reliability(
        labels, tumor, dilated, brain, tissues, atlas_tissues, truth, distance, np.ones(3)
    ).set_index('index')
    assert set(table.columns) == set(COLUMNS) - {'participant_id', 'index'}
    assert table['volume_mm3'].tolist() == [810, 810]
    np.testing.assert_allclose(table['error'], [0.2, 0])
    np.testing.assert_allclose(
        table['reliability'], [0.8, 0.8]
    )  # a fifth of region 4 was replaced
    np.testing.assert_allclose(table['warp_mm'], [3, 1])
    np.testing.assert_allclose(table['tumor_fraction'], [0, 0.1])


def test_an_atlas_without_background():
    everywhere = np.ones((9, 9, 9), int)  # more than a region must have
    nowhere = np.zeros(everywhere.shape, bool)
    table = measure_reliability(
        everywhere, nowhere, nowhere, ~nowhere, everywhere, everywhere, everywhere, None,
        np.ones(3),
    )  # fmt: skip
    assert table['index'].tolist() == [1]


def test_small_regions_are_left_out():
    labels = np.zeros((20, 5, 5), int)
    labels[:10], labels[10:] = 1, 2
    labels[19, 4, 4] = 3  # of 500, 498 and 2 mm3
    nowhere, same = np.zeros(labels.shape, bool), np.ones(labels.shape, int)
    table = measure_reliability(
        labels, nowhere, nowhere, ~nowhere, same, same, same, None, np.array([1.0, 1, 2])
    )
    assert table['index'].tolist() == [1]


def test_a_registration_that_failed():
    """No region of the atlas lies in the brain."""
    shape = (9, 9, 9)
    nothing, everywhere = np.zeros(shape, int), np.ones(shape, bool)
    table = measure_reliability(
        nothing, ~everywhere, ~everywhere, everywhere, nothing + 1, nothing + 1, nothing + 1, None,
        np.ones(3),
    )  # fmt: skip
    assert table.empty


@pytest.mark.parametrize('oracle', [True, False])
def test_summary(oracle):
    reliability = np.linspace(0.4, 0.9, 8)
    rows = [
        pd.DataFrame(
            {
                'participant_id': patient,
                'reliability': reliability,
                'distance_mm': np.arange(8) * 4.0,
                'error': 1 - reliability,
                'warp_mm': sign * reliability if oracle else np.nan,
            }
        )
        for patient, sign in (('sub-1', 1), ('sub-2', -1))
    ]
    lines = summary_of(pd.concat(rows)).splitlines()
    assert lines[2].endswith('rho -1.00 on average (-1.00 to -1.00); below 0 in 2 of 2 patients')
    assert lines[3].endswith('below 0 in 1 of 2 patients' if oracle else 'n/a')
    assert lines[4].startswith('- regions within 15 mm')


def test_regions_near_the_tumour_are_summarised_by_themselves():
    """Further away all is the other way round. The second patient has too few that are near."""
    error = np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.7, 0.8, 0.9])
    near = {'sub-1': [0, 5, 9, 12, 15, 16, 20, 30], 'sub-2': [0, 5, 9, 12, 16, 17, 20, 30]}
    rows = [
        pd.DataFrame({'participant_id': patient, 'reliability': np.linspace(0.4, 0.9, 8),
                      'distance_mm': distance, 'error': error, 'warp_mm': np.nan})
        for patient, distance in near.items()
    ]  # fmt: skip
    lines = summary_of(pd.concat(rows)).splitlines()
    assert lines[2].endswith('below 0 in 0 of 2 patients')
    assert lines[4].endswith('rho -1.00 on average (-1.00 to -1.00); below 0 in 1 of 1 patients')


def test_a_patient_whose_regions_are_all_alike_is_left_out_of_the_mean():
    one = {'reliability': np.linspace(0.4, 0.9, 8), 'distance_mm': 4.0, 'warp_mm': np.nan}
    rows = [
        pd.DataFrame({**one, 'participant_id': 'sub-1', 'error': np.linspace(0.6, 0.1, 8)}),
        pd.DataFrame({**one, 'participant_id': 'sub-2', 'error': np.zeros(8)}),
    ]
    assert 'rho -1.00 on average (-1.00 to -1.00); below 0 in 1 of 1' in summary_of(
        pd.concat(rows)
    )
