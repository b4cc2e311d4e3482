"""The workflow stores every figure the report asks for."""

from importlib.resources import files

import nibabel as nb
import numpy as np
import pytest
import yaml

from tumorreg_wf.template import load_template
from tumorreg_wf.weights import TASKS, find_weights
from tumorreg_wf.workflows.reports import init_reportlets_wf

IMAGES = (
    't1w_preproc',
    'flair_preproc',
    'brain_mask',
    'tumor_mask',
    'dilated_mask',
    't1w_inpainted',
    'template_in_t1w',
    'dseg',
    'jacobian',
)
WEIGHTS = {task: find_weights(task) for task in TASKS}


def wanted_by_report():
    spec = yaml.safe_load((files('tumorreg_wf') / 'data' / 'reports-spec.yml').read_text())
    return {part['desc'] for section in spec for part in section['parts']}


@pytest.fixture(scope='module')
def make_workflow(tmp_path_factory):
    template = load_template(None, tmp_path_factory.mktemp('templates'))

    def make(tmp_path, **given):
        return init_reportlets_wf(
            out_dir=str(tmp_path / 'out'), template=template, weights=WEIGHTS, **given
        )

    return make


@pytest.mark.parametrize('flair', ['/raw/flair.nii.gz', None])
def test_nodes_match_the_report(tmp_path, make_workflow, flair):
    workflow = make_workflow(tmp_path, flair=flair, skull_strip=True)
    sinks = {name[3:] for name in workflow.list_node_names() if name.startswith('ds_')}
    assert sinks == wanted_by_report()
    assert workflow.get_node('tumor').inputs.names == (['T1w', 'FLAIR'] if flair else ['T1w'])


def test_a_stripped_brain_needs_no_outline(tmp_path, make_workflow):
    assert make_workflow(tmp_path).get_node('brain') is None
    assert make_workflow(tmp_path, brain_mask='/mine/brain.nii.gz').get_node('brain') is not None


@pytest.mark.parametrize(
    ('given', 'mask', 'weights'),
    [
        ({}, 'what is not 0 in the T1w, holes filled, specks left out', 'not used'),
        ({'brain_mask': '/mine/brain.nii.gz'}, '/mine/brain.nii.gz', 'not used'),
        ({'skull_strip': True}, 'found by the network', WEIGHTS['brain'].name),
    ],
)
def test_whose_brain_mask(tmp_path, make_workflow, given, mask, weights):
    rows = dict(make_workflow(tmp_path, **given).get_node('provenance').inputs.rows)
    assert rows['Brain mask'] == mask
    assert rows['Weights, brain'].startswith(weights)


@pytest.mark.parametrize('mask', ['/mine/mask.nii.gz', None])
def test_provenance(tmp_path, make_workflow, mask):
    workflow = make_workflow(tmp_path, user_mask=mask)
    rows = dict(workflow.get_node('provenance').inputs.rows)
    assert rows['Weights, recovery'].endswith(WEIGHTS['inpainting'].sha256)
    if mask:
        assert (rows['Weights, tumour'], rows['Tumour mask']) == ('not used', mask)
    else:
        assert rows['Weights, tumour'].endswith(WEIGHTS['segmentation'].sha256)
        assert rows['Tumour mask'] == 'found by the network'
    assert workflow.get_node('summary').inputs.user_mask == (mask or '')


@pytest.mark.parametrize('empty', [False, True])
def test_run(tmp_path, make_workflow, empty):
    out_dir = tmp_path / 'out'
    workflow = make_workflow(tmp_path, flair='/raw/sub-01_FLAIR.nii.gz', skull_strip=True)
    workflow.base_dir = str(tmp_path / 'work')
    inputs = workflow.get_node('inputnode').inputs
    rng = np.random.default_rng(0)
    for name in IMAGES:
        data = rng.random((16, 18, 14)).astype(np.float32)
        if name.endswith('mask'):
            data = np.zeros_like(data)
            if name == 'brain_mask' or not empty:
                data[4:12, 4:12, 4:12] = 1
        path = tmp_path / f'{name}.nii.gz'
        nb.Nifti1Image(data, np.diag([-1, -1, 1, 1])).to_filename(path)
        setattr(inputs, name, str(path))
    inputs.source_file = str(tmp_path / 'raw/sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz')
    warp = nb.Nifti1Image(rng.random((16, 18, 14, 1, 3)), np.diag([-1, -1, 1, 1]))
    warp.to_filename(tmp_path / 'warp.nii.gz')
    inputs.warp = str(tmp_path / 'warp.nii.gz')
    inputs.tumor_tsv = str(tmp_path / 'tumor.tsv')
    (tmp_path / 'tumor.tsv').write_text(
        'volume_mm3\themisphere\tmidline_crossing\tn_components\tn_regions\n'
        + ('0\tn/a\tFalse\t0\t0\n' if empty else '512\tL\tFalse\t1\t1\n')
    )
    inputs.quality_tsv = str(tmp_path / 'quality.tsv')
    (tmp_path / 'quality.tsv').write_text(
        'similarity\tfold_fraction\thole_share\tseam_contrast\n'
        + ('0.7\t0\t0\tn/a\n' if empty else '0.7\t0\t0.1\t1\n')
    )
    inputs.regions_tsv = str(tmp_path / 'regions.tsv')
    (tmp_path / 'regions.tsv').write_text(
        'index\tname\themisphere\tvolume_mm3\ttumor_mm3\ttumor_fraction\tdistance_mm\treliability\n'
        f'1\tInsula\tleft\t900\t{0 if empty else 90}\t0.1\t0\t0.8\n'
    )
    workflow.run()
    tables = {'summary', 'regions', 'provenance'}
    assert {path.name for path in (out_dir / 'sub-01' / 'figures').iterdir()} == {
        f'sub-01_ses-a_run-1_desc-{desc}_T1w.{"html" if desc in tables else "svg"}'
        for desc in wanted_by_report()
    }
