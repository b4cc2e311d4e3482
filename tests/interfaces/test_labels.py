import numpy as np

from tumorreg_wf.interfaces.labels import label_tissues


def test_tissues_with_and_without_the_tumour():
    brain = np.array([1, 1, 1, 1, 1, 0], bool)
    tumor = np.array([0, 1, 0, 0, 0, 0], bool)
    # GM, GM, WM, CSF, beyond the warped atlas, outside the brain
    maps = np.array(
        [[0.9, 0.8, 0.1, 0.1, 0, 1], [0.1, 0.2, 0.9, 0.1, 0, 0], [0, 0, 0, 0.8, 0, 0]]
    )[:, :, None, None]
    shape = (6, 1, 1)
    dseg, healthy, probabilities = label_tissues(maps, brain.reshape(shape), tumor.reshape(shape))
    assert dseg.ravel().tolist() == [1, 7, 2, 3, 3, 0]
    assert healthy.ravel().tolist() == [1, 1, 2, 3, 3, 0]
    np.testing.assert_allclose(probabilities.sum(0).ravel(), [1, 0, 1, 1, 1, 0], atol=1e-6)
