"""Real patients as scanners with larger voxels would show them."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.images import load_image, resample, voxel_spacing
from tumorreg_wf.intensity import normalize, reference_quantiles
from tumorreg_wf.measures import dice
from tumorreg_wf.models.networks import load_network
from tumorreg_wf.models.segmentation import segment
from tumorreg_wf.weights import find_weights

GLIOMA = Path(__file__).parents[3] / 'shared' / 'data' / 'glioma'


def find_tumor(t1w, flair):
    """The mask, as an image, that the packaged weights find in a stripped patient."""
    brain = ndimage.binary_fill_holes(t1w.get_fdata(dtype=np.float32) > 0.5)
    images = [
        nb.Nifti1Image(
            normalize(image.get_fdata(dtype=np.float32), brain, reference_quantiles(name)),
            image.affine,
        )
        for name, image in (('T1w', t1w), ('FLAIR', flair))
    ]
    weights = find_weights('segmentation')
    brain = nb.Nifti1Image(brain.astype(np.uint8), t1w.affine)
    _, mask = segment(load_network(weights), *images, brain, spacing=weights.spacing)
    return nb.Nifti1Image(mask.astype(np.float32), t1w.affine)


@pytest.mark.slow
@pytest.mark.parametrize('label', ['gli00000', 'du7294', 'ssa00012'])
def test_a_real_tumor_in_other_voxels(on_voxels, label):
    """It is found where it is in voxels of 1 mm, and of nearly the same size."""
    folder = GLIOMA / f'sub-{label}' / 'anat'
    if not folder.is_dir():
        pytest.skip(f'the real patients are not here: {GLIOMA}')
    images = [
        nb.as_closest_canonical(load_image(folder / f'sub-{label}_{name}.nii.gz'))
        for name in ('T1w', 'FLAIR')
    ]
    expected = find_tumor(*images)
    volumes = []
    for zooms in ((1, 1, 1), (2, 2, 2), (3, 3, 3), (1, 1, 6)):
        found = find_tumor(*(on_voxels(image, zooms) for image in images))
        back = resample(found, expected, order=1).get_fdata() >= 0.5
        assert dice(back, expected.get_fdata() > 0) > 0.9
        volumes.append(found.get_fdata().sum() * np.prod(voxel_spacing(found)))
    assert np.allclose(volumes[1:], volumes[0], rtol=0.12)
