"""The recovery before a workflow that knows no tumours."""

import nibabel as nb
import numpy as np
import pytest
import recovery_before_tissues as example
from scipy import ndimage


@pytest.fixture
def files(phantom, tmp_path):
    """A T1w and masks as files."""
    images = {'t1w': phantom.t1w, 'tumor_mask': phantom.tumor, 'brain_mask': phantom.brain}
    for name, image in images.items():
        image.to_filename(tmp_path / f'{name}.nii.gz')
    return {name: tmp_path / f'{name}.nii.gz' for name in images}


def read(path):
    return np.asanyarray(nb.load(path).dataobj)


def test_tissues_beside_the_tumour(files, tmp_path):
    example.main([*map(str, files.values()), str(tmp_path / 'out')])
    dseg = read(tmp_path / 'out' / 'dseg.nii.gz')
    t1w, tumor, brain = (read(path) for path in files.values())
    brain, tumor = brain > 0, tumor > 0
    assert (dseg[~brain] == 0).all()
    assert (dseg[tumor & brain] == example.MADE_UP).all()
    made_up = dseg == example.MADE_UP
    away = ndimage.distance_transform_edt(~tumor, sampling=2.0)
    np.testing.assert_array_equal(made_up, (away <= 3) & brain)
    beside = brain & ~made_up
    # the phantom's grey values: CSF 250, GM 600, WM 900
    truth = np.digitize(t1w, [425, 750]) + 1
    assert (dseg[beside] == truth[beside]).mean() > 0.95


def test_the_foreign_workflow_sees_no_tumour():
    workflow = example.init_recovered_tissues_wf()
    (link,) = (
        data['connect']
        for source, target, data in workflow._graph.edges(data=True)
        if (source.name, target.name) == ('inpainting_wf', 'atropos_wf')
    )
    assert link == [('outputnode.t1w', 'inputnode.t1w')]
