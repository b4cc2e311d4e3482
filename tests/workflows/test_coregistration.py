"""The FLAIR comes to the T1w, also where only one of the two shows the whole head."""

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.images import resample
from tumorreg_wf.workflows.coregistration import init_coregistration_wf


def in_a_head(image):
    """The brain with fluid, bone and scalp around it."""
    data = np.pad(image.get_fdata(dtype=np.float32), 8)
    away = ndimage.distance_transform_edt(data == 0, sampling=2.0)
    around = np.select([away <= end for end in (3, 8, 13)], [100, 40, 800], 0)
    affine = image.affine @ nb.affines.from_matvec(np.eye(3), [-8] * 3)
    return nb.Nifti1Image(np.where(data > 0, data, around).astype(np.float32), affine)


@pytest.mark.parametrize('shown', ['t1w', 'flair', 'both'])
def test_one_may_show_the_head_and_the_other_not(phantom, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    t1w = in_a_head(phantom.t1w) if shown != 'flair' else phantom.t1w
    flair = in_a_head(phantom.flair) if shown != 't1w' else phantom.flair
    # the patient moved by 4 mm and turned by 5 degrees in between
    moved = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.06, 0.04, -0.05), [4, -2, 1])
    before = resample(nb.Nifti1Image(flair.get_fdata(), moved @ flair.affine), flair, order=1)
    t1w.to_filename('t1w.nii.gz')
    before.to_filename('flair.nii.gz')
    workflow = init_coregistration_wf(random_seed=1)
    workflow.base_dir = str(tmp_path)
    workflow.inputs.inputnode.t1w = str(tmp_path / 't1w.nii.gz')
    workflow.inputs.inputnode.flair = str(tmp_path / 'flair.nii.gz')
    workflow.run()
    (found,) = tmp_path.rglob('resample/*.nii.gz')
    brain = phantom.brain.get_fdata() > 0
    truth = phantom.flair.get_fdata()[brain]

    def likeness(image):
        image = resample(image, phantom.brain, order=1)
        return np.corrcoef(image.get_fdata()[brain], truth)[0, 1]

    assert likeness(nb.load(found)) > 0.95 > likeness(before)
