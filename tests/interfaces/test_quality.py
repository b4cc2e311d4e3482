"""The table of quality, and the grids it refuses to mix."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.fragments import read_tsv
from tumorreg_wf.interfaces.quality import MeasureQuality
from tumorreg_wf.quality import MEASURES


@pytest.fixture
def paths(tmp_path):
    shape = (12, 12, 12)
    brain, hole = np.ones(shape), np.zeros(shape)
    hole[4:8, 4:8, 4:8] = 1
    t1w = np.random.default_rng(0).normal(100, 5, shape)
    images = {'in_file': t1w, 'template': -t1w, 'jacobian': hole * np.log(0.001)}
    images |= {'brain_mask': brain, 'in_mask': hole}
    found = {name: str(tmp_path / f'{name}.nii.gz') for name in images}
    for name, data in images.items():
        nb.Nifti1Image(data.astype(np.float32), np.eye(4)).to_filename(found[name])
    return found


def test_table(paths, tmp_path):
    (row,) = read_tsv(MeasureQuality(**paths).run(cwd=str(tmp_path)).outputs.out_file)
    assert list(row) == list(MEASURES)
    assert float(row['similarity']) == pytest.approx(-1)
    assert float(row['fold_fraction']) == pytest.approx(64 / 12**3, rel=1e-5)
    assert float(row['hole_share']) == pytest.approx(64 / 12**3, rel=1e-5)


def test_grids_are_not_mixed(paths, tmp_path):
    image = nb.load(paths['in_mask'])
    nb.Nifti1Image(image.get_fdata(), np.diag([2, 2, 2, 1])).to_filename(paths['in_mask'])
    with pytest.raises(TumorregError, match='in_mask.nii.gz: its shape or affine differs'):
        MeasureQuality(**paths).run(cwd=str(tmp_path))
