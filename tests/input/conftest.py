"""How many examples hypothesis tries: few and the same ones, or `--hypothesis-profile=fuzz`."""

import nibabel as nb
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from scipy import ndimage

from tumorreg_wf.images import resample, voxel_spacing

SHARED = {
    'deadline': None,
    'suppress_health_check': [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile('quick', max_examples=20, derandomize=True, **SHARED)
settings.register_profile('fuzz', max_examples=100_000, **SHARED)
settings.load_profile('quick')


@pytest.fixture(scope='session')
def on_voxels():
    """A function that brings an image to other voxels; thick ones are means."""

    def bring(image, zooms):
        before = voxel_spacing(image)
        if np.allclose(zooms, before):
            return image
        thick = [max(round(size), 1) for size in zooms / before]
        source = ndimage.uniform_filter(image.get_fdata(dtype=np.float32), thick)
        shape = np.ceil(np.array(image.shape) * before / zooms).astype(int)
        affine = image.affine @ np.diag([*np.array(zooms) / before, 1.0])
        grid = nb.Nifti1Image(np.zeros(shape, np.uint8), affine)
        return resample(nb.Nifti1Image(source, image.affine), grid, order=1)

    return bring
