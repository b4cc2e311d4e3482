"""Measures of quality on blocks whose values are known, and who stands out by them."""

import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.quality import MEASURES, find_outliers, measure_quality


@pytest.fixture
def blocks():
    """Recovered T1w, template, log-Jacobian, brain and hole: a cube in a cube, smooth noise."""
    brain, hole = np.zeros((2, 20, 20, 20), bool)
    brain[2:18, 2:18, 2:18] = True
    hole[6:12, 6:12, 6:12] = True
    t1w = np.random.default_rng(0).normal(100, 5, brain.shape) * brain
    return {
        'recovered': t1w,
        'template': 3 * t1w + 7,
        'log_jacobian': np.zeros(brain.shape),
        'brain': brain,
        'hole': hole,
    }


def test_perfect(blocks):
    row = measure_quality(**blocks)
    assert set(row) == set(MEASURES)
    assert row['similarity'] == pytest.approx(1)
    assert row['fold_fraction'] == 0
    assert row['hole_share'] == pytest.approx(6**3 / 16**3)
    assert row['seam_contrast'] == pytest.approx(1, abs=0.15)


def test_what_is_made_up_is_not_compared(blocks):
    blocks['template'][blocks['hole']] = 0
    assert measure_quality(**blocks)['similarity'] == pytest.approx(1)
    blocks['template'][2:10] = 0
    assert measure_quality(**blocks)['similarity'] < 0.5


def test_folds_count_in_the_brain(blocks):
    blocks['log_jacobian'][:2] = np.log(0.001)
    blocks['log_jacobian'][2, 2:18, 2:18] = np.log(np.float32(0.001))
    blocks['log_jacobian'][3, 2:18, 2:18] = np.log(0.003)
    assert measure_quality(**blocks)['fold_fraction'] == pytest.approx(1 / 16)


@pytest.mark.parametrize('axis', range(3))
def test_a_seam_shows_along_every_axis(blocks, axis):
    hole = np.zeros_like(blocks['hole'])
    hole[(slice(2, 18),) * axis + (slice(2, 8),)] = True
    blocks['hole'] = hole & blocks['brain']
    before = measure_quality(**blocks)['seam_contrast']
    blocks['recovered'] = blocks['recovered'] + 40 * blocks['hole']
    assert before == pytest.approx(1, abs=0.2)
    assert measure_quality(**blocks)['seam_contrast'] > 5


def test_a_rim_of_one_voxel_has_no_step_next_to_it(blocks):
    """Beyond it is no brain: there is nothing to compare the step across the edge with."""
    hole = np.zeros_like(blocks['hole'])
    hole[3:17, 3:17, 3:17] = True
    assert np.isnan(measure_quality(**{**blocks, 'hole': hole})['seam_contrast'])


def test_edges_of_the_brain_are_no_seam(blocks):
    blocks['recovered'][~blocks['brain']] = -1e6
    assert measure_quality(**blocks)['seam_contrast'] == pytest.approx(1, abs=0.15)


def test_nothing_to_measure(blocks):
    row = measure_quality(**blocks | {'hole': np.zeros_like(blocks['hole'])})
    assert row['hole_share'] == 0 and np.isnan(row['seam_contrast'])
    row = measure_quality(**blocks | {'brain': np.zeros_like(blocks['brain'])})
    assert np.isnan(row['similarity']) and row['fold_fraction'] == 0


def test_a_hole_that_leaves_nothing_is_not_filled(blocks):
    row = measure_quality(**blocks | {'hole': np.ones_like(blocks['hole'])})
    assert row['hole_share'] == 0 and np.isnan(row['seam_contrast'])


def outliers(patients=None, **values):
    table = pd.DataFrame(values)
    who = pd.Series(table.index.astype(str) if patients is None else patients)
    return find_outliers(table, who).tolist()


def test_outliers_are_named():
    similar = [0.86, 0.87, 0.85, 0.88, 0.86, 0.4]
    holes = [0.01, 0.02, 0.03, 0.02, 0.9, 0.9e-2]
    found = outliers(similarity=similar, hole_share=holes)
    assert found == ['', '', '', '', 'hole_share', 'similarity']
    both = outliers(similarity=similar, hole_share=sorted(holes))
    assert both[-1] == 'similarity,hole_share'


def test_robust_z_by_hand():
    # median 0.5, median absolute deviation 0.1: the limit lies 3.5 * 0.14826 away
    values = [0.3, 0.4, 0.4, 0.5, 0.5, 0.6, 0.6]
    assert outliers(seam_contrast=[*values, 0.5 + 0.51]) == [''] * 8
    assert outliers(seam_contrast=[*values, 0.5 + 0.53])[-1] == 'seam_contrast'


def test_one_folded_voxel_is_no_outlier():
    assert outliers(fold_fraction=[0, 0, 0, 0, 0, 1e-6]) == [''] * 6
    assert outliers(fold_fraction=[0, 0, 0, 0, 0, 1e-2])[-1] == 'fold_fraction'


def test_few_patients():
    values = [0.86, 0.87, 0.85, 0.86, 0.1]
    assert outliers(similarity=values)[-1] == 'similarity'
    assert outliers(similarity=values[1:]) == [''] * 4
    assert outliers(similarity=[*values[:4], np.nan]) == [''] * 5
    # five images, four patients
    assert outliers(list('aabcd'), similarity=values) == [''] * 5
