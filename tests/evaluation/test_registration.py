"""Ways to register a template, side by side: measures, tables, and a whole run on phantoms."""

import json
import shutil
from dataclasses import replace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.cli.evaluate import ARMS as ARMS_OF_PARSER
from tumorreg_wf.cli.evaluate import main
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation import registration
from tumorreg_wf.evaluation.registration import find_patients
from tumorreg_wf.evaluation.registration_arms import ARMS, init_case_wf, stage_name
from tumorreg_wf.evaluation.registration_nodes import (
    CorrectAlike,
    MeasureArms,
    find_regions,
    measure_region,
)
from tumorreg_wf.evaluation.registration_tables import COLUMNS, MEASURES, compare_arms, summary_of
from tumorreg_wf.template import load_template
from tumorreg_wf.weights import find_weights

#: Seconds instead of minutes.
FEW_STEPS = {
    'dimension': 3,
    'initial_moving_transform_com': 1,
    'transforms': ['Affine', 'SyN'],
    'transform_parameters': [[0.1], [0.2, 3, 0]],
    'metric': ['Mattes', 'Mattes'],
    'metric_weight': [1, 1],
    'radius_or_number_of_bins': [32, 32],
    'sampling_strategy': ['Regular', 'None'],
    'sampling_percentage': [0.5, 1],
    'number_of_iterations': [[30], [10]],
    'shrink_factors': [[2], [2]],
    'smoothing_sigmas': [[1], [1]],
    'write_composite_transform': True,
    'output_transform_prefix': 'std2anat_',
}


class TestRegions:
    def test_the_shell_is_15_mm_wide_on_any_grid(self):
        brain = np.ones((60, 40, 30), bool)
        dilated = np.zeros_like(brain)
        dilated[20:30, 15:20, 12:16] = True
        regions = find_regions(brain, dilated, np.array([1.0, 2.5, 3.0]))
        np.testing.assert_array_equal(regions['inside'], dilated)
        assert regions['outside'].sum() == brain.sum() - dilated.sum()
        shell = regions['shell']
        assert not (shell & dilated).any()
        assert list(np.flatnonzero(shell[:, 17, 14])) == [*range(5, 20), *range(30, 45)]
        assert list(np.flatnonzero(shell[25, :, 14])) == [*range(9, 15), *range(20, 26)]
        assert list(np.flatnonzero(shell[25, 17])) == [*range(7, 12), *range(16, 21)]

    def test_it_ends_with_the_brain(self):
        brain = np.zeros((30, 30, 30), bool)
        brain[:12] = True
        dilated = np.zeros_like(brain)
        dilated[5:10, 10:20, 10:20] = True
        assert not find_regions(brain, dilated, np.ones(3))['shell'][12:].any()

    def test_what_is_measured(self):
        region = np.zeros((10, 10, 10), bool)
        region[:4] = True
        truth, labels = np.full((10, 10, 10), 2), np.full((10, 10, 10), 2)
        truth[:2], labels[:1] = 1, 1  # GM: 200 voxels, of which 100 are found
        labels[5:] = 3  # outside the region
        distance, jacobian = np.ones(region.shape), np.ones(region.shape)
        distance[3], distance[3, :3], distance[5:] = 5, 13, 99  # 13 mm in 7.5 % of the region
        jacobian[0, :5], jacobian[5:] = 0, 0
        row = measure_region(region, labels, truth, truth, distance, jacobian)
        assert row['dseg_gm'] == row['dseg_wm'] == 1
        assert row['dice_gm'] == pytest.approx(2 * 100 / 300)
        assert row['dice_wm'] == pytest.approx(2 * 200 / 500)
        assert row['dice_csf'] == 1  # none there, none found
        assert (row['distance_mm'], row['distance_median_mm']) == pytest.approx((2.6, 1))
        assert row['distance_p95_mm'] == 13 and row['fold_fraction'] == 50 / 400

    def test_nothing_there(self):
        none = np.zeros((5, 5, 5), bool)
        row = measure_region(none, none * 1, None, none * 1, None, np.ones(none.shape))
        assert np.isnan(list(row.values())).all()


@pytest.fixture
def save(tmp_path, monkeypatch):
    """A function that writes an image of 2 mm, axes turned where wanted."""
    monkeypatch.chdir(tmp_path)

    def write(data, name):
        path = tmp_path / f'{name}.nii.gz'
        nb.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2, 2, 1])).to_filename(path)
        return str(path)

    return write


def test_the_oracle_shares_the_bias_field(save):
    rng = np.random.default_rng(0)
    free = rng.uniform(100, 900, (12, 12, 12)).astype(np.float32)
    free[:2] = 0
    tumor = np.zeros(free.shape, bool)
    tumor[5:8, 5:8, 5:8] = True
    before = np.where(tumor, 300, free)
    field = np.linspace(0.7, 1.3, 12, dtype=np.float32)
    after = (before * field).astype(np.float32)
    found = CorrectAlike(
        in_file=save(free, 'free'), before=save(before, 'before'), after=save(after, 'after')
    ).run()
    data = nb.load(found.outputs.out_file).get_fdata()
    np.testing.assert_array_equal(data[~tumor], after[~tumor])
    np.testing.assert_allclose(data, free * field, rtol=1e-5)


def test_arms_of_known_transforms(save, tmp_path):
    """The oracle's warp is right; the other's is 6 mm off along y."""
    shape = (30, 34, 26)
    where = np.moveaxis(np.indices(shape), 0, -1)
    brain = (((where - np.array(shape) / 2) / [12, 14, 10]) ** 2).sum(-1) < 1
    tumor = ((where - [20, 17, 13]) ** 2).sum(-1) <= 3**2
    dilated = ((where - [20, 17, 13]) ** 2).sum(-1) <= 4.5**2
    truth = np.where(brain, 1 + (where[..., 1] > 16), 0)
    maps = [truth == label for label in (1, 2, 3)]
    for name, y in (('right', 0), ('wrong', 6)):
        (tmp_path / f'{name}.txt').write_text(
            '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n'
            f'Parameters: 1 0 0 0 1 0 0 0 1 0 {y} 0\nFixedParameters: 0 0 0\n'
        )
    found = np.where(
        dilated & brain, 3 - truth, truth
    )  # the other tissue: nobody looks at it there
    known = where[..., 2] > 5
    names = ('t1w', 'brain_mask', 'tumor_mask', 'dilated_mask', 'tissues')
    arrays = (brain * (500 + 300 * (truth == 2)), brain, tumor, dilated, truth * known)
    outputs = MeasureArms(
        arms=['oracle', 'original'],
        transforms=[str(tmp_path / 'right.txt'), str(tmp_path / 'wrong.txt')],
        maps=[save(one, f'map{number}') for number, one in enumerate(maps)],
        tissue_maps=[save(found == k, f'tissue{k}') for k in (1, 2, 3)],
        atlas=save(truth, 'atlas'),
        atlas_arm='oracle',
        **{name: save(array, name) for name, array in zip(names, arrays, strict=True)},
    ).run().outputs  # fmt: skip
    with open(outputs.out_file) as stream:
        table = pd.DataFrame(json.load(stream)).set_index(['arm', 'region'])
    assert set(table['reference']) == {'labels'}
    np.testing.assert_allclose(table['tumor_ml'], tumor.sum() * 8 / 1000)
    for region in ('outside', 'shell', 'inside'):
        right, wrong = table.loc['oracle', region], table.loc['original', region]
        assert right['dice_gm'] == right['dice_wm'] == 1 and right['distance_mm'] == 0
        assert wrong['dice_gm'] < 0.95 and wrong['distance_mm'] == pytest.approx(6, abs=1e-3)
        assert wrong['fold_fraction'] == 0
        assert right['dseg_gm'] == right['dseg_wm'] == 1
        assert (wrong['dseg_gm'] == 1) == (region != 'inside')  # the atlas decides there alone
    assert (
        table.loc[('oracle', 'shell'), 'volume_ml'] < table.loc[('oracle', 'outside'), 'volume_ml']
    )
    volume = (brain & known & ~dilated).sum() * 8 / 1000
    assert table.loc[('oracle', 'outside'), 'volume_ml'] == pytest.approx(volume)
    right, wrong = (nb.load(path) for path in outputs.labels)
    reference = nb.load(outputs.reference).get_fdata()
    np.testing.assert_array_equal(right.get_fdata()[reference > 0], reference[reference > 0])
    assert wrong.shape < shape  # cropped to the brain
    with open(outputs.regions) as stream:
        found = pd.DataFrame(json.load(stream))
    assert found['index'].tolist() == [1, 2] and (found['error'] == 0).all()


class TestTables:
    @pytest.fixture
    def table(self):
        """Twelve patients; masked is better than original in all, recovered in most."""
        rng = np.random.default_rng(0)
        rows = []
        for patient in range(12):
            ease = rng.normal(0.7, 0.1)
            gains = {'original': 0, 'masked': 0.02, 'recovered': 0.03, 'oracle': 0.04}
            for number, (arm, gain) in enumerate(gains.items()):
                for region in ('outside', 'shell'):
                    row = {'participant_id': f'sub-{patient:02d}', 'reference': 'labels'}
                    row |= dict.fromkeys(('dice_csf', 'dice_gm', 'dice_wm'), ease + gain)
                    row |= {'distance_mm': (3 - number) * (1 + patient / 100), 'arm': arm}
                    row['dice_wm'] += rng.normal(0, 0.02)
                    rows.append({**row, 'region': region, 'tumor_ml': 5.0 * patient})
        return pd.DataFrame(rows, columns=list(COLUMNS)).fillna(
            {'seconds': 60, 'fold_fraction': 0.002}
        )

    def test_every_pair_in_every_region_and_measure(self, table):
        tests = compare_arms(table)
        counts = tests.groupby(['region', 'measure']).size()
        assert (counts.loc[:, ['dice_csf', 'dice_gm', 'dice_wm']] == 6).all()
        assert (counts.loc[:, 'distance_mm'] == 3).all()  # without the oracle
        first = tests.query("region == 'shell' and measure == 'dice_gm' and one == 'masked'")
        assert first['difference'].item() == pytest.approx(0.02)
        assert first['p_wilcoxon'].item() == pytest.approx(2 / 2**12)
        assert first['p_wilcoxon_holm'].item() == pytest.approx(6 * 2 / 2**12)

    def test_the_tissues_of_a_run_are_compared_under_the_tumour_alone(self, table):
        rows = table[(table['region'] == 'shell') & table['arm'].isin(['original', 'masked'])]
        rows = rows[:8].assign(dseg_gm=rows['dice_gm'])
        tests = compare_arms(pd.concat([rows, rows.assign(region='inside')]))
        assert tests['region'][tests['measure'] == 'dseg_gm'].tolist() == ['inside']

    def test_summary(self, table):
        lines = summary_of(table, compare_arms(table)).splitlines()
        assert '## Within 15 mm of the tumour, against true tissues (n = 12)' in lines
        head = lines.index('|  | original | masked | recovered | oracle |')
        assert lines[head + 3].startswith('| Dice GM | 0.') and 'p = 0.0029' in lines[head + 3]
        assert lines[head + 9] == '| gap closed, % | 0 | 33 | 67 | 100 |'
        assert lines[head + 10] == '| folded, % | 0.2 | 0.2 | 0.2 | 0.2 |'
        assert any(line.startswith('| masked - original | +0.0200 (p = 0.0029') for line in lines)

    def test_real_patients_have_no_oracle(self, table):
        real = table[table['arm'] != 'oracle'].assign(distance_mm=np.nan, reference='found')
        tests = compare_arms(real)
        assert set(tests['measure']) == {'dice_csf', 'dice_gm', 'dice_wm'}
        assert 'against tissues found in the T1w' in summary_of(real, tests)


def test_the_parser_knows_the_arms():
    assert ARMS_OF_PARSER == tuple(ARMS)


def test_what_differs_has_a_name_of_its_own():
    names = {
        stage_name('recovered-masked', settings, shared)
        for settings in ('syn', 'some/other file.json')
        for shared in (False, True)
    }
    assert len(names) == 4 and all(name.isidentifier() for name in names)


@pytest.fixture
def patients(tmp_path, phantom, turned):
    """A simulated patient, its truth stored in another orientation, and a real one."""
    root = tmp_path / 'patients'
    tumor = np.asanyarray(phantom.tumor.dataobj) > 0
    t1w = phantom.t1w.get_fdata()
    affine = phantom.t1w.affine
    tissues = np.select([t1w > 800, t1w > 450, t1w > 0], [2, 1, 3], 0)
    images = {
        'T1w': nb.Nifti1Image(np.where(tumor, 300, t1w).astype(np.float32), affine),
        'desc-tumorfree_T1w': nb.Nifti1Image(np.where(tumor, 900, t1w).astype(np.float32), affine),
        'dseg': turned(nb.Nifti1Image(tissues.astype(np.uint8), affine), 'LPI'),
        'label-tumor_mask': turned(nb.Nifti1Image(tumor.astype(np.uint8), affine), 'PIR'),
    }
    for subject in ('sim', 'real'):
        for name, image in images.items():
            folder = root / ('.' if name == 'T1w' else 'derivatives/truth') / f'sub-{subject}/anat'
            folder.mkdir(parents=True, exist_ok=True)
            if subject == 'sim' or name in ('T1w', 'label-tumor_mask'):
                image.to_filename(folder / f'sub-{subject}_{name}.nii.gz')
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


def test_what_is_known_about_patients(patients, capsys):
    simulated, real = find_patients(patients, ['sim', 'real'])
    assert simulated.tissues.name == 'sub-sim_dseg.nii.gz' and real.tissues is None
    assert simulated.arms(['oracle', 'masked', 'original']) == ['original', 'masked', 'oracle']
    assert real.arms(ARMS) == [name for name in ARMS if name != 'oracle']
    argv = [str(patients), str(patients / 'out'), '--participant-label', 'real']
    assert main(['registration', *argv, '--arms', 'oracle', '-w', str(patients / 'work')]) == 1
    assert 'no T1w without the tumour of real' in capsys.readouterr().err
    next(patients.glob('derivatives/*/sub-real/anat/*')).unlink()
    with pytest.raises(TumorregError, match='no tumour mask .* of real'):
        find_patients(patients)


def test_each_network_gets_its_weights(patients, template_phantom, tmp_path):
    own = {}
    for task in ('inpainting', 'tissues'):
        found = find_weights(task)
        own[task] = replace(found, path=tmp_path / f'{task}.safetensors')
        shutil.copy(found.path, own[task].path)
    (case,) = find_patients(patients, ['sim'])
    workflow = init_case_wf(
        case, arms=['recovered'], settings='greedy', shared_affine=False,
        template=load_template(template_phantom, tmp_path), weights=own, device='cpu',
        omp_nthreads=1, random_seed=1,
    )  # fmt: skip
    for node, task in (
        ('inpainting_wf.inpaint', 'inpainting'),
        ('recovered_tissues_wf.find', 'tissues'),
    ):
        assert workflow.get_node(node).inputs.weights == str(own[task].path)


@pytest.fixture
def evaluate(patients, template_phantom, tmp_path, monkeypatch):
    """A function that runs the command on the phantoms and reads what it wrote."""
    monkeypatch.setattr(
        registration, 'load_template', lambda _, folder: load_template(template_phantom, folder)
    )
    (tmp_path / 'few.json').write_text(json.dumps(FEW_STEPS))
    monkeypatch.chdir(tmp_path)

    def run(*more, work='work', code=0):
        argv = ['registration', patients.name, 'out', '--settings', 'few.json', '-w', work]
        assert main([*argv, '--nprocs', '2', '--device', 'cpu', *more]) == code
        out = tmp_path / 'out'
        numbers = dict.fromkeys(MEASURES, float)  # also where all happen to be whole
        table = pd.read_csv(out / 'registration.tsv', sep='\t', dtype=numbers)
        return table, json.loads((out / 'registration.json').read_text()), out

    return run


def test_a_run_goes_on_where_it_stopped(evaluate, patients, tmp_path, capsys):
    """One patient fails first; then only that one is computed."""
    mask = patients / 'derivatives/truth/sub-real/anat/sub-real_label-tumor_mask.nii.gz'
    good = nb.load(mask)
    data, affine = np.asanyarray(good.dataobj), good.affine
    away = affine.copy()
    away[:3, 3] += 1000
    nb.Nifti1Image(data, away).to_filename(mask)
    arms = ['--arms', 'oracle', 'original', 'masked']
    table, facts, out = evaluate(*arms, code=1)
    assert set(table['participant_id']) == {'sub-sim'} and facts['unfinished'] == ['real']
    said = capsys.readouterr()
    assert 'not finished: real' in said.err and 'crash' in said.err
    assert list((tmp_path / 'work/crash').glob('crash-*'))

    nb.Nifti1Image(data, affine).to_filename(mask)
    whole, facts, out = evaluate(*arms)
    assert facts['unfinished'] == [] and facts['repeats_bit_for_bit']
    simulated = whole[whole['participant_id'] == 'sub-sim'].reset_index(drop=True)
    pd.testing.assert_frame_equal(simulated, table)  # the seconds, too: nothing ran again
    assert list(simulated['arm'].unique()) == ['original', 'masked', 'oracle']
    real = whole[whole['participant_id'] == 'sub-real']
    assert list(real['arm'].unique()) == ['original', 'masked']
    assert set(real['reference']) == {'found'} and real['distance_mm'].isna().all()
    shell = simulated[simulated['region'] == 'shell'].set_index('arm')
    assert shell.loc['oracle', 'distance_mm'] == 0 < shell['distance_mm'].drop('oracle').min()
    for name in ('distance', 'gain', 'panel'):
        assert (out / f'registration_{name}.png').stat().st_size > 5000
    assert (out / 'registration_tests.tsv').read_text().startswith('reference\tregion\tmeasure')


@pytest.mark.slow
def test_bit_for_bit_and_one_affine(evaluate):
    argv = ['--participant-label', 'sim', '--shared-affine', '--arms', 'recovered', 'oracle']
    one, facts, _ = evaluate(*argv, work='one')
    other, _, _ = evaluate(*argv, work='other')
    pd.testing.assert_frame_equal(one.drop(columns='seconds'), other.drop(columns='seconds'))
    assert facts['shared_affine'] and facts['settings'] == FEW_STEPS
    apart = one[one['arm'] == 'recovered'].set_index('region')['distance_mm']
    assert 0 < apart['shell'] < 3  # the affine is one, only the deformation differs


def test_wrong_settings(patients, tmp_path, capsys):
    argv = ['registration', str(patients), str(tmp_path / 'out'), '--settings', 'none.json']
    assert main([*argv, '-w', str(tmp_path / 'work')]) == 1
    assert 'none.json: cannot be read' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
