"""fMRIPrep finds every file of the example: by the queries it asks, not by names we think of."""

import derivatives_for_fmriprep as example
import nibabel as nb
import numpy as np
import pytest
from bids import BIDSLayout
from niworkflows import data as niworkflows_data

# What sMRIPrep 0.19.5 (of fMRIPrep 25.2.7) asks pybids for, with its data/io_spec.json.
IMAGE = {'datatype': 'anat', 'space': None, 'extension': ['.nii.gz', '.nii']}
XFM = {'datatype': 'anat', 'mode': 'image', 'suffix': 'xfm', 'extension': ['.h5', '.txt']}
QUERIES = {
    't1w_preproc': (1, {**IMAGE, 'desc': 'preproc', 'suffix': 'T1w'}),
    't1w_mask': (1, {**IMAGE, 'desc': 'brain', 'suffix': 'mask'}),
    't1w_dseg': (1, {**IMAGE, 'desc': None, 'suffix': 'dseg'}),
    't1w_tpms': (3, {**IMAGE, 'label': ['GM', 'WM', 'CSF'], 'suffix': 'probseg'}),
    'forward': (1, {**XFM, 'from': 'T1w', 'to': 'Phantom'}),
    'reverse': (1, {**XFM, 'from': 'Phantom', 'to': 'T1w'}),
}


@pytest.fixture(scope='module')
def written(bids_phantom, template_phantom, tmp_path_factory):
    """The folder the example writes for sub-01."""
    folder = tmp_path_factory.mktemp('example')
    t1w = bids_phantom / 'sub-01/anat/sub-01_T1w.nii.gz'
    image = nb.load(t1w)
    brain = nb.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), image.affine)
    brain.to_filename(folder / 'brain.nii.gz')
    lesion = bids_phantom / 'derivatives/manual/sub-01/anat/sub-01_label-lesion_roi.nii.gz'
    example.main(
        [
            *(str(t1w), str(folder / 'out'), '--tumor-mask', str(lesion)),
            *('--brain-mask', str(folder / 'brain.nii.gz')),
            *('--template', str(template_phantom), '--sloppy'),
        ]
    )
    return folder / 'out'


@pytest.fixture(scope='module')
def layout(written):
    return BIDSLayout(written, config=niworkflows_data.load('nipreps.json'), validate=False)


@pytest.mark.parametrize('field', QUERIES)
def test_fmriprep_finds(layout, field):
    number, query = QUERIES[field]
    assert len(layout.get(subject='01', return_type='filename', **query)) == number


def test_nothing_else_is_written(layout, written):
    found = {
        path
        for _, query in QUERIES.values()
        for path in layout.get(subject='01', return_type='filename', **query)
    }
    images = {str(path) for path in written.rglob('*') if path.suffix in ('.gz', '.h5')}
    assert images == found


def test_the_t1w_is_recovered_and_the_tissues_leave_the_tumour_out(layout, written, bids_phantom):
    lesion = nb.load(
        bids_phantom / 'derivatives/manual/sub-01/anat/sub-01_label-lesion_roi.nii.gz'
    )
    tumor = nb.as_closest_canonical(lesion).get_fdata() > 0

    def read(field):
        _, query = QUERIES[field]
        paths = layout.get(subject='01', return_type='filename', **query)
        return [nb.as_closest_canonical(nb.load(path)).get_fdata() for path in paths]

    assert set(np.unique(read('t1w_dseg')[0][tumor])) == {7}
    assert all((tissue[tumor] == 0).all() for tissue in read('t1w_tpms'))
    # the tumour of the phantom is as dark as no white matter is: 650 among 900
    white = (read('t1w_dseg')[0] == 2) & ~tumor
    t1w = read('t1w_preproc')[0]
    assert np.median(t1w[tumor]) > 0.85 * np.median(t1w[white])
