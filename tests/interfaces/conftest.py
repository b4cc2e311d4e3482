"""Two brains to be registered."""

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture
def brains(request, tmp_path, monkeypatch):
    """Two files: a textured brain, and the same moved 6 mm along its second axis.

    The voxels run as the parameter says (RAS, LPS, oblique); RAS without one.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.standard_normal((32, 36, 30)), 2)
    where = np.moveaxis(np.indices(texture.shape), 0, -1) - np.array([16, 18, 15])
    inside = ((where / np.array([11, 12, 10])) ** 2).sum(-1) < 1
    data = (inside * (500 + 2000 * texture)).clip(0).astype(np.float32)
    axes = getattr(request, 'param', 'RAS')
    affine = np.diag([-3.0, -3, 3, 1] if axes == 'LPS' else [3.0, 3, 3, 1])
    if axes == 'oblique':
        affine[:3, :3] = nb.eulerangles.euler2mat(0.2, -0.1, 0.3) * 3
    affine[:3, 3] = 10, -20, 5
    paths = []
    for name, image in (('fixed', data), ('moving', np.roll(data, 2, axis=1))):
        path = tmp_path / f'{name}.nii.gz'
        nb.Nifti1Image(image, affine).to_filename(path)
        paths.append(str(path))
    return paths
