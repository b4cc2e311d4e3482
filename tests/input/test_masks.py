"""Masks as users give them: labels, probabilities, other grids, no header."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bring_near, fit_mask
from tumorreg_wf.interfaces.images import Conform, ConformMask

SHAPE = (24, 26, 28)


def grey(shape):
    return np.linspace(1, 2, np.prod(shape), dtype=np.float32).reshape(shape)


def put(data, affine, path, codes=True):
    image = nb.Nifti1Image(data, affine)
    if not codes:
        content = bytearray(image.to_bytes())
        content[252:256] = bytes(4)
        path.write_bytes(content)
    else:
        image.to_filename(path)
    return str(path)


def cube(dtype=np.uint8):
    mask = np.zeros(SHAPE, dtype)
    mask[5:10, 6:12, 7:15] = 1
    return mask


@pytest.fixture
def reference(tmp_path):
    return put(grey(SHAPE), np.diag([-1, -1, 1, 1]), tmp_path / 't1w.nii')


@pytest.fixture
def fit(reference, tmp_path):
    """A function that gives what the node makes of a mask on the grid of the T1w."""

    def run(data, affine=None, **options):
        affine = np.diag([-1, -1, 1, 1]) if affine is None else affine
        path = put(data, affine, tmp_path / 'mask.nii', **options)
        out = ConformMask(in_file=path, reference=reference).run(cwd=str(tmp_path)).outputs
        image = nb.load(out.out_mask)
        assert image.get_data_dtype() == np.uint8
        return np.asanyarray(image.dataobj)

    return run


@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.float32, np.float64])
def test_labels_are_one_mask(fit, dtype):
    labels = cube(dtype)
    labels[6:8, 7:9, 8:10] = 4  # BraTS: 1 core, 2 oedema, 4 enhancing
    labels[8, 8, 8] = 2
    np.testing.assert_array_equal(fit(labels), cube())


def test_probabilities_count_from_one_half(fit):
    soft = cube(np.float32) * 0.9
    soft[10:12, 6:12, 7:15] = 0.3
    soft[0] = 1e-6
    np.testing.assert_array_equal(fit(soft), cube())


def test_scaled_bytes_are_probabilities(fit, tmp_path, reference):
    image = nb.Nifti1Image(cube(np.float32) * 0.998, np.diag([-1, -1, 1, 1]))
    image.set_data_dtype(np.uint8)
    image.to_filename(tmp_path / 'soft.nii.gz')
    node = ConformMask(in_file=str(tmp_path / 'soft.nii.gz'), reference=reference)
    found = nb.load(node.run(cwd=str(tmp_path)).outputs.out_mask)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), cube())


def test_nan_and_negative_values_are_outside(fit):
    mask = cube(np.float32)
    mask[0], mask[1], mask[2] = np.nan, -1, -np.inf
    np.testing.assert_array_equal(fit(mask), cube())


def test_a_mask_that_never_reaches_one_half_is_refused(fit):
    with pytest.raises(TumorregError, match=r'no voxel of this mask reaches 0\.5'):
        fit(cube(np.float32) * 0.4)


def test_an_empty_mask_is_no_tumor(fit):
    assert not fit(np.zeros(SHAPE, np.uint8)).any()


def test_a_volume_of_a_series(fit):
    np.testing.assert_array_equal(fit(cube()[..., None]), cube())


def test_a_mask_without_orientation_is_refused(fit):
    """Its voxels may be those of the T1w, or its mirror image's."""
    with pytest.raises(TumorregError, match='does not say where it lies'):
        fit(cube(), codes=False)


def test_unless_the_image_has_none_either(tmp_path):
    """Two files of one converter that wrote no orientation: nibabel reads both alike."""
    t1w = put(grey(SHAPE), np.eye(4), tmp_path / 'raw.nii', codes=False)
    (tmp_path / 'conform').mkdir()
    conformed = Conform(in_file=t1w).run(cwd=str(tmp_path / 'conform')).outputs
    assert 'Left and right' in conformed.notes[0]
    mask = put(cube(), np.eye(4), tmp_path / 'mask.nii', codes=False)
    node = ConformMask(in_file=mask, reference=conformed.out_file)
    found = nb.load(node.run(cwd=str(tmp_path)).outputs.out_mask)
    drawn = nb.as_closest_canonical(nb.load(mask))
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(drawn.dataobj))


def test_what_lies_beyond_the_image_is_said(reference, tmp_path):
    def notes(shift):
        affine = np.diag([-1.0, -1, 1, 1])
        affine[0, 3] = shift
        mask = put(cube(), affine, tmp_path / 'mask.nii')
        node = ConformMask(in_file=mask, reference=reference)
        return node.run(cwd=str(tmp_path)).outputs.notes

    assert notes(0) == [] and notes(4) == []
    (note,) = notes(8)  # three of five layers
    assert note.startswith('mask.nii: 60% of this mask lie outside')


def test_a_sheared_mask_stays_with_its_sheared_image(tmp_path):
    """Made in Python, a mask has the sform of its image and no qform."""
    sheared = nb.affines.from_matvec([[1, 0.15, 0], [0, 1, 0], [0, 0, 2]], [3, 4, 5])
    image = nb.Nifti1Image(grey(SHAPE), np.diag([1, 1, 2, 1]))
    image.set_qform(np.diag([1, 1, 2, 1]), 1)
    image.set_sform(sheared, 1)
    image.to_filename(tmp_path / 't1w.nii')
    (tmp_path / 'conform').mkdir()
    node = Conform(in_file=str(tmp_path / 't1w.nii'))
    conformed = node.run(cwd=str(tmp_path / 'conform')).outputs.out_file
    mask = put(cube(), sheared, tmp_path / 'mask.nii')
    found = ConformMask(in_file=mask, reference=conformed).run(cwd=str(tmp_path)).outputs.out_mask
    np.testing.assert_array_equal(np.asanyarray(nb.load(found).dataobj), cube())


def test_small_lesions_survive_thick_slices():
    fine = np.zeros((30, 30, 30), np.uint8)
    fine[3:5, 3:5, 3], fine[20, 20, 13:15], fine[10:20, 10:14, 8:20] = 1, 1, 1
    mask = nb.Nifti1Image(fine, np.eye(4))
    thick = nb.Nifti1Image(np.zeros((30, 30, 5)), np.diag([1, 1, 6, 1]))
    found = fit_mask(mask, thick)
    assert found[3:5, 3:5].any() and found[20, 20].any()
    # the large one is not made larger: slices 12 and 18 of 8 to 20
    np.testing.assert_array_equal(np.unique(np.argwhere(found[10:20, 10:14])[:, 2]), [2, 3])


def test_a_thin_part_of_a_large_lesion_survives_coarse_voxels():
    """A sheet of a voxel, from a thick part on, between the centres of the coarse voxels."""
    fine = np.zeros((48, 48, 48), np.uint8)
    fine[24] = 1
    fine[24:30, :6, :6] = 1
    affine = nb.affines.from_matvec(3 * np.eye(3), [1, 1, 1])
    found = fit_mask(
        nb.Nifti1Image(fine, np.eye(4)), nb.Nifti1Image(np.zeros((16, 16, 16)), affine)
    )
    assert found[7:9].any(axis=0).mean() > 0.95  # all of the sheet
    assert found.sum() < 1.2 * 16 * 16


def test_a_small_lesion_keeps_the_voxel_it_is_in():
    fine = np.zeros((40, 40, 40), np.uint8)
    fine[13, 21, 30] = 1  # 13 / 5 = 2.6, 21 / 5 = 4.2, 30 / 5 = 6
    coarse = nb.Nifti1Image(np.zeros((8, 8, 8)), np.diag([5, 5, 5, 1]))
    found = fit_mask(nb.Nifti1Image(fine, np.eye(4)), coarse)
    np.testing.assert_array_equal(np.argwhere(found), [[3, 4, 6]])


def test_lesions_beyond_the_image_are_left_out():
    fine = np.zeros((40, 10, 10), np.uint8)
    fine[2, 2, 2] = fine[35, 5, 5] = 1
    found = fit_mask(
        nb.Nifti1Image(fine, np.eye(4)), nb.Nifti1Image(np.zeros((20,) * 3), np.eye(4))
    )
    np.testing.assert_array_equal(np.argwhere(found), [[2, 2, 2]])


class TestBringNear:
    head = nb.Nifti1Image(np.pad(grey((10, 12, 14)), 5), np.diag([-2, 2, 2, 1]))

    def moved(self, shift, box=()):
        image = self.head.slicer[box] if box else self.head
        affine = image.affine.copy()
        affine[:3, 3] += shift
        return nb.Nifti1Image(np.asanyarray(image.dataobj), affine)

    @pytest.mark.parametrize('shift', [(0, 0, 0), (4, -2, 2)])
    def test_where_it_lies_is_believed(self, shift):
        image = self.moved(shift)
        assert bring_near(image, self.head) is image

    def test_a_slab_stays_where_it_is(self):
        slab = self.moved((0, 0, 0), (slice(None), slice(None), slice(6, 9)))
        assert bring_near(slab, self.head) is slab

    @pytest.mark.parametrize('shift', [(200, 0, 0), (0, -90, 300), (25, 0, 0)])
    def test_what_lies_elsewhere_is_moved(self, shift):
        near = bring_near(self.moved(shift), self.head)
        np.testing.assert_allclose(near.affine, self.head.affine, atol=1e-4)
        np.testing.assert_allclose(near.get_qform(), near.get_sform(), atol=1e-4)

    def test_noise_in_air_is_no_head(self):
        """Images that scanners wrote are 0 nowhere."""
        data = self.head.get_fdata()
        noise = np.abs(np.random.default_rng(0).normal(0, 0.02 * data.max(), data.shape))
        noisy = nb.Nifti1Image(data + noise, self.head.affine)
        away = nb.Nifti1Image(data + noise, self.moved((25, 0, 0)).affine)
        np.testing.assert_allclose(bring_near(away, noisy).affine, noisy.affine, atol=1)
        assert bring_near(noisy, noisy) is noisy

    def test_a_head_and_its_brain_are_where_they_are(self):
        """Content of very different size and middle, in places that fit."""
        data = np.asanyarray(self.head.dataobj)
        where = np.argwhere(data != 0)
        low, high = where.min(0), where.max(0)
        part = np.zeros_like(data)
        box = tuple(slice(b - (b - a) // 3, b) for a, b in zip(low, high))
        part[box] = data[box]
        brain = nb.Nifti1Image(part, self.head.affine)
        assert np.count_nonzero(part) < 0.5 * np.count_nonzero(data)
        assert bring_near(self.head, brain) is self.head
        assert bring_near(brain, self.head) is brain

    def test_the_report_says_so(self, tmp_path):
        turned = nb.as_closest_canonical(self.head)
        turned.to_filename(tmp_path / 'T1w.nii')
        self.moved((200, 0, 0)).to_filename(tmp_path / 'FLAIR.nii')
        node = Conform(in_file=str(tmp_path / 'FLAIR.nii'), near=str(tmp_path / 'T1w.nii'))
        out = node.run(cwd=str(tmp_path)).outputs
        assert 'FLAIR.nii: its header places it away from the T1w' in out.notes[0]
        np.testing.assert_allclose(nb.load(out.out_file).affine, turned.affine, atol=1e-4)


@pytest.mark.parametrize('shape', [(5, 30, 30), (30, 30, 1)])
def test_single_slices_are_refused(tmp_path, shape):
    path = put(np.ones(shape, np.float32), np.eye(4), tmp_path / 'scout.nii')
    with pytest.raises(TumorregError, match='slices along one axis'):
        Conform(in_file=path).run(cwd=str(tmp_path))
