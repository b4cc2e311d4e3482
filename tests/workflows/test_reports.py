"""The workflow stores every figure the report asks for."""

from importlib.resources import files

import nibabel as nb
import numpy as np
import pytest
import yaml

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


def wanted_by_report():
    spec = yaml.safe_load((files('tumorreg_wf') / 'data' / 'reports-spec.yml').read_text())
    queries = (item['bids'] for section in spec['sections'] for item in section['reportlets'])
    return {query['desc'] for query in queries} - {'about', 'errors'}


@pytest.mark.parametrize('has_flair', [True, False])
def test_nodes_match_the_report(tmp_path, has_flair):
    workflow = init_reportlets_wf(out_dir=str(tmp_path), template_name='MNI', has_flair=has_flair)
    sinks = {name[3:] for name in workflow.list_node_names() if name.startswith('ds_')}
    assert sinks == wanted_by_report() - (set() if has_flair else {'tumorFLAIR'})


@pytest.mark.parametrize('empty', [False, True])
def test_run(tmp_path, empty):
    out_dir = tmp_path / 'out'
    workflow = init_reportlets_wf(out_dir=str(out_dir), template_name='MNI', has_flair=True)
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
    inputs.mask_source = 'U-Net unet-1.0'
    inputs.tumor_tsv = str(tmp_path / 'tumor.tsv')
    (tmp_path / 'tumor.tsv').write_text(
        'volume_mm3\themisphere\tmidline_crossing\tn_components\tn_regions\n'
        + ('0\tn/a\tn/a\t0\t0\n' if empty else '512\tleft\tno\t1\t1\n')
    )
    inputs.regions_tsv = str(tmp_path / 'regions.tsv')
    (tmp_path / 'regions.tsv').write_text(
        'index\tname\themisphere\tvolume_mm3\ttumor_mm3\ttumor_fraction\tdistance_mm\n'
        f'1\tInsula\tleft\t900\t{0 if empty else 90}\t0.1\t0\n'
    )
    workflow.run()
    tables = {'summary', 'regions'}
    assert {path.name for path in (out_dir / 'sub-01' / 'figures').iterdir()} == {
        f'sub-01_ses-a_run-1_desc-{desc}_T1w.{"html" if desc in tables else "svg"}'
        for desc in wanted_by_report()
    }
