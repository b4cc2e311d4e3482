"""Reading what the networks learn from."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training.datasets import read_healthy, read_patients, read_shapes


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture
def dataset(tmp_path, phantom, turned):
    """Two patients, stored alike in different orientations; the second without FLAIR."""
    for name, axcodes in (('sub-1', 'RAS'), ('sub-2', 'LPS')):
        anat = tmp_path / name / 'anat'
        write(turned(phantom.t1w, axcodes), anat / f'{name}_T1w.nii.gz')
        label = tmp_path / 'derivatives' / 'truth' / name / 'anat'
        write(turned(phantom.tumor, axcodes), label / f'{name}_label-tumor_mask.nii.gz')
        # a program's outputs are no reference
        other = tmp_path / 'derivatives' / 'a_program' / name / 'anat'
        write(phantom.brain, other / f'{name}_label-tumor_desc-dilated_mask.nii.gz')
    write(phantom.flair, tmp_path / 'sub-1' / 'anat' / 'sub-1_FLAIR.nii.gz')
    return tmp_path


class TestReading:
    def test_patients(self, dataset, phantom):
        one, two = read_patients(dataset, spacing=2.0)
        assert (one.name, two.name) == ('sub-1', 'sub-2')
        assert two.flair is None
        assert one.tumor.sum() == (phantom.tumor.get_fdata() > 0).sum()
        for key in ('t1w', 'tumor', 'brain'):
            np.testing.assert_allclose(
                getattr(one, key).astype(float), getattr(two, key).astype(float), atol=1e-2
            )
        assert one.t1w.shape == one.flair.shape == one.tumor.shape == one.brain.shape
        assert np.median(one.flair[one.tumor]) > 2
        assert not one.t1w[~one.brain].any()

    @pytest.mark.parametrize('name', ['2', 'sub-2'])
    def test_exclude(self, dataset, name):
        cases = read_patients(dataset, spacing=4.0, exclude=[name])
        assert [case.name for case in cases] == ['sub-1']
        assert not read_healthy(dataset, spacing=4.0, exclude=['1', name])

    def test_patient_without_label(self, dataset):
        (dataset / 'derivatives/truth/sub-2/anat/sub-2_label-tumor_mask.nii.gz').unlink()
        with pytest.raises(TumorregError, match='sub-2: no reference label'):
            read_patients(dataset, spacing=4.0)

    def test_patient_without_t1w(self, dataset):
        (dataset / 'sub-1/anat/sub-1_T1w.nii.gz').unlink()
        with pytest.raises(TumorregError, match=r'sub-1_T1w\.nii\.gz: no such file'):
            read_patients(dataset, spacing=4.0)

    def test_healthy_in_sessions(self, dataset):
        """Nobody would notice that none are learnt from."""
        anat = dataset / 'sub-2' / 'anat'
        (dataset / 'sub-2' / 'ses-1').mkdir()
        anat.rename(dataset / 'sub-2' / 'ses-1' / 'anat')
        with pytest.raises(TumorregError, match='without sessions'):
            read_healthy(dataset, spacing=4.0)

    def test_healthy(self, dataset):
        cases = read_healthy(dataset, spacing=4.0)
        assert [case.name for case in cases] == ['sub-1', 'sub-2']
        assert all(case.flair is None and not case.tumor.any() for case in cases)

    def test_shapes_are_cropped_labels(self, tmp_path, turned):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[4:8, 5:11, 6:9] = 1
        labels[5:7, 6:9, 7] = 3
        for number in range(3):
            write(nb.Nifti1Image(labels, np.eye(4)), tmp_path / f'{number}.nii.gz')
        shapes = read_shapes(tmp_path, spacing=1.0, only=slice(2))
        assert len(shapes) == 2
        np.testing.assert_array_equal(shapes[0], labels[4:8, 5:11, 6:9])
