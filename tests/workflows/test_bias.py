"""The bias field is removed, whatever grey values an image has."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.interfaces.images import Conform
from tumorreg_wf.workflows.bias import init_bias_correction_wf


@pytest.mark.parametrize('oddity', ['none', 'undershoot', 'scores'])
def test_shading_is_removed(tmp_path, monkeypatch, oddity):
    monkeypatch.chdir(tmp_path)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 44)] * 3, indexing='ij')
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain = radius < 0.9
    tissue = np.select([radius < 0.3, radius < 0.65], [40.0, 150.0], 100.0)
    noise = np.random.default_rng(0).normal(0, 3, brain.shape)
    image = (tissue * np.exp(0.3 * x) + noise) * brain
    if oddity == 'undershoot':
        image[20:22, 20:24, 4:6] = -400  # N4 looks at every fourth voxel
    if oddity == 'scores':
        image = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)
    affine = np.diag([4.0, 4, 4, 1])
    for name, data in (('t1w', image), ('brain', brain)):
        nb.Nifti1Image(data.astype(np.float32), affine).to_filename(f'{name}.nii')
    workflow = init_bias_correction_wf(has_flair=False)
    workflow.base_dir = tmp_path
    workflow.inputs.inputnode.t1w = Conform(in_file='t1w.nii').run().outputs.out_file
    workflow.inputs.inputnode.brain_mask = tmp_path / 'brain.nii'
    workflow.run()
    corrected = nb.load(next(tmp_path.rglob('n4_t1w/*corrected.nii.gz'))).get_fdata()
    shell = brain & (tissue == 150) & (np.abs(y) < 0.3)

    def shading(data):
        left, right = (np.median(data[shell & side]) for side in (x < -0.3, x > 0.3))
        return abs(right - left) / data[shell].mean()

    raised = nb.load(workflow.inputs.inputnode.t1w).get_fdata()
    assert shading(corrected) < shading(raised) / 3
    # N4 chooses a scale of its own
    out = nb.load(next(tmp_path.rglob('scaled.nii.gz'))).get_fdata()
    assert np.median(out[brain]) == pytest.approx(np.median(raised[brain]), rel=1e-4)
    assert np.median(corrected[brain]) != pytest.approx(np.median(raised[brain]), rel=1e-2)
