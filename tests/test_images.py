"""Images on their grids: reading, resampling, growing."""

import gzip

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import (
    bounding_box,
    dilate_mask,
    load_image,
    remove_small_components,
    resample,
    same_grid,
    save_like,
    to_network_grid,
    voxel_spacing,
)

ORIENTATIONS = ['RAS', 'LAS', 'LPS', 'PIR', 'oblique']


def grid(orientation, shape=(30, 36, 28), zooms=(1.0, 1.0, 1.0)):
    """An affine of that orientation, its origin off centre."""
    if orientation == 'oblique':
        turn = nb.eulerangles.euler2mat(0.2, -0.15, 0.3) @ np.diag([-1, 1, 1])
    else:
        codes = nb.orientations.axcodes2ornt(orientation)
        turn = np.zeros((3, 3))
        for axis, (world, sign) in enumerate(codes.astype(int)):
            turn[world, axis] = sign
    linear = turn * zooms
    centre = linear @ (np.array(shape) - 1) / 2
    return nb.affines.from_matvec(linear, np.array([5.0, -7.0, 3.0]) - centre)


def blob(shape, affine, point, radius=4.0):
    """A ball about a world point, grey towards its edge."""
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    distance = np.linalg.norm(where - point, axis=-1)
    return nb.Nifti1Image(np.clip(radius - distance, 0, None).astype(np.float32), affine)


def centroid(image):
    data = image.get_fdata()
    where = nb.affines.apply_affine(image.affine, np.argwhere(data > 0))
    return np.average(where, axis=0, weights=data[data > 0])


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(100, 20, (20, 22, 24)).astype(np.float32)


class TestLoadImage:
    def test_values_and_affine_are_kept(self, tmp_path, noise):
        affine = grid('oblique', noise.shape)
        nb.Nifti1Image(noise, affine).to_filename(tmp_path / 'a.nii.gz')
        image = load_image(tmp_path / 'a.nii.gz')
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), noise)
        np.testing.assert_allclose(image.affine, affine, atol=1e-6)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)

    def test_a_single_volume_of_a_series_is_taken(self, tmp_path, noise):
        nb.Nifti1Image(noise[..., None, None], np.eye(4)).to_filename(tmp_path / 'a.nii')
        np.testing.assert_array_equal(load_image(tmp_path / 'a.nii').get_fdata(), noise)

    def test_scaled_integers_are_scaled(self, tmp_path):
        header = nb.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_slope_inter(0.5, 10)
        image = nb.Nifti1Image(np.full((3, 3, 3), 12.5), np.eye(4), header)
        image.to_filename(tmp_path / 'a.nii')
        assert load_image(tmp_path / 'a.nii').get_fdata() == pytest.approx(12.5)

    def test_nan_and_infinity_become_zero(self, tmp_path, noise):
        noise[0, 0, :3] = np.nan, np.inf, -np.inf
        nb.Nifti1Image(noise, np.eye(4)).to_filename(tmp_path / 'a.nii')
        data = load_image(tmp_path / 'a.nii').get_fdata()
        np.testing.assert_array_equal(data[0, 0, :3], 0)
        np.testing.assert_array_equal(data[1:], noise[1:])

    def test_missing(self, tmp_path):
        with pytest.raises(TumorregError, match=r'a\.nii\.gz: no such file'):
            load_image(tmp_path / 'a.nii.gz')

    @pytest.mark.parametrize('kept', [0.2, 0.9])
    def test_truncated(self, tmp_path, noise, kept):
        path = tmp_path / 'a.nii.gz'
        nb.Nifti1Image(noise, np.eye(4)).to_filename(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(TumorregError, match=r'a\.nii\.gz: this is not a readable NIfTI'):
            load_image(path)

    def test_truncated_inside_intact_compression(self, tmp_path, noise):
        path = tmp_path / 'a.nii.gz'
        content = nb.Nifti1Image(noise, np.eye(4)).to_bytes()
        path.write_bytes(gzip.compress(content[: len(content) // 2]))
        with pytest.raises(TumorregError, match='not a readable NIfTI'):
            load_image(path)

    @pytest.mark.parametrize('name', ['a.nii.gz', 'a.nii', 'a.txt'])
    def test_text(self, tmp_path, name):
        (tmp_path / name).write_text('This is no image.\n' * 50)
        with pytest.raises(TumorregError, match=rf'{name}: this is not a readable NIfTI'):
            load_image(tmp_path / name)

    def test_folder(self, tmp_path):
        with pytest.raises(TumorregError, match='not a readable NIfTI'):
            load_image(tmp_path)

    def test_two_volumes(self, tmp_path, noise):
        nb.Nifti1Image(np.stack([noise, noise], -1), np.eye(4)).to_filename(tmp_path / 'a.nii')
        with pytest.raises(TumorregError, match=r'shape \(20, 22, 24, 2\)'):
            load_image(tmp_path / 'a.nii')


class TestSaveLike:
    def test_grid_of_the_reference_dtype_of_the_array(self, tmp_path, noise):
        reference = nb.Nifti1Image(noise.astype(np.int16), grid('PIR', noise.shape))
        reference.header.set_slope_inter(0.1, 3)
        path = save_like(noise, reference, tmp_path / 'a.nii.gz')
        written = nb.load(path)
        assert written.get_data_dtype() == np.float32
        assert same_grid(written, reference)
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), noise)

    def test_masks_are_stored_as_bytes(self, tmp_path, noise):
        path = save_like(noise > 100, nb.Nifti1Image(noise, np.eye(4)), tmp_path / 'm.nii.gz')
        written = nb.load(path)
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(written.get_fdata(), noise > 100)

    def test_other_shape(self, tmp_path, noise):
        with pytest.raises(ValueError, match='does not fit'):
            save_like(noise[1:], nb.Nifti1Image(noise, np.eye(4)), tmp_path / 'a.nii')


def test_same_grid_compares_shape_and_affine(noise):
    one = nb.Nifti1Image(noise, np.eye(4))
    assert same_grid(one, nb.Nifti1Image(noise * 2, np.eye(4) + 1e-5))
    assert not same_grid(one, nb.Nifti1Image(noise[1:], np.eye(4)))
    assert not same_grid(one, nb.Nifti1Image(noise, np.diag([-1, 1, 1, 1])))
    assert not same_grid(
        one, nb.Nifti1Image(noise, nb.affines.from_matvec(np.eye(3), [0.1, 0, 0]))
    )


class TestGrids:
    @pytest.mark.parametrize('orientation', ORIENTATIONS)
    def test_round_trip_at_1_mm_loses_nothing(self, orientation):
        shape = (30, 36, 28)
        mask = (np.random.default_rng(1).random(shape) > 0.5).astype(np.float32)
        image = nb.Nifti1Image(mask, grid(orientation, shape))
        there = to_network_grid(image, order=0)
        np.testing.assert_array_equal(resample(there, image, order=0).get_fdata(), mask)
        grey = resample(to_network_grid(image), image, order=1).get_fdata()
        np.testing.assert_allclose(grey, mask, atol=1e-4)

    @pytest.mark.parametrize('orientation', ORIENTATIONS)
    @pytest.mark.parametrize('spacing', [1.0, 2.0])
    @pytest.mark.parametrize('zooms', [(1, 1, 1), (0.8, 1.2, 3)])
    def test_nothing_moves_or_flips(self, orientation, spacing, zooms):
        shape = tuple(int(40 / zoom) for zoom in zooms)
        point = np.array([9.0, -15.0, 6.0])
        image = blob(shape, grid(orientation, shape, zooms), point, radius=6)
        there = to_network_grid(image, spacing=spacing)
        assert nb.aff2axcodes(there.affine) == ('R', 'A', 'S')
        np.testing.assert_allclose(voxel_spacing(there), spacing, atol=0.01)
        np.testing.assert_allclose(centroid(there), centroid(image), atol=0.15)
        np.testing.assert_allclose(centroid(there), point, atol=0.35)
        back = resample(there, image, order=1)
        assert same_grid(back, image)
        np.testing.assert_allclose(centroid(back), centroid(image), atol=0.3)
        middle = back.get_fdata() > 0.4 * back.get_fdata().max()
        original = image.get_fdata() > 0.4 * image.get_fdata().max()
        overlap = 2 * (middle & original).sum() / (middle.sum() + original.sum())
        assert overlap > 0.75

    def test_axes_of_the_network_grid_are_those_of_the_world(self):
        shape = (20, 24, 22)
        affine = grid('PIR', shape)
        data = np.zeros(shape, np.float32)
        data[3, 5, 7] = 1
        there = to_network_grid(nb.Nifti1Image(data, affine))
        voxel = np.argwhere(there.get_fdata())[0]
        np.testing.assert_allclose(
            nb.affines.apply_affine(there.affine, voxel),
            nb.affines.apply_affine(affine, [3, 5, 7]),
            atol=1e-5,
        )

    @pytest.mark.parametrize('zooms', [(1, 1, 1), (0.7, 1.3, 5), (3, 3, 3)])
    @pytest.mark.parametrize('spacing', [1.0, 2.0])
    def test_the_whole_field_of_view_is_kept(self, zooms, spacing):
        shape = (33, 21, 9)
        there = to_network_grid(
            nb.Nifti1Image(np.ones(shape, np.float32), grid('LPS', shape, zooms)), spacing=spacing
        )
        assert np.all(np.array(there.shape) * spacing >= np.array(shape) * zooms - 1e-2)
        assert np.all(np.array(there.shape) * spacing < np.array(shape) * zooms + spacing)

    @pytest.mark.parametrize('order', [0, 1])
    @pytest.mark.parametrize('zooms', [(1, 1, 1), (0.7, 1.3, 5)])
    def test_the_outermost_voxels_survive_the_round_trip(self, zooms, order):
        shape = (34, 22, 8)
        image = nb.Nifti1Image(np.ones(shape, np.float32), grid('oblique', shape, zooms))
        there = to_network_grid(image, spacing=2.0, order=order)
        assert np.all(there.get_fdata()[1:-1, 1:-1, 1:-1] > 0.999)
        assert np.all(there.get_fdata() > 0)
        back = resample(there, image, order=order).get_fdata()
        assert np.all(back > 0.1)

    def test_fine_detail_does_not_fold(self):
        stripes = np.zeros((40, 40, 40), np.float32)
        stripes[::2] = 1
        coarse = to_network_grid(nb.Nifti1Image(stripes, np.eye(4)), spacing=4.0).get_fdata()
        np.testing.assert_allclose(coarse[2:-2, 2:-2, 2:-2], 0.5, atol=0.05)

    @pytest.mark.parametrize('spacing', [1.5, 2.0])
    def test_nor_does_what_is_a_little_finer(self, spacing):
        """Noise gets less when voxels get larger; without smoothing 2 mm would keep it all."""
        noise = np.random.default_rng(0).normal(0, 1, (48, 48, 48)).astype(np.float32)
        coarse = to_network_grid(nb.Nifti1Image(noise, np.eye(4)), spacing=spacing).get_fdata()
        assert coarse[4:-4, 4:-4, 4:-4].std() < 0.35

    def test_beyond_the_image_there_is_nothing(self):
        image = nb.Nifti1Image(np.ones((5, 5, 5), np.float32), np.eye(4))
        target = nb.Nifti1Image(np.ones((9, 5, 5), np.float32), np.eye(4))
        found = resample(image, target, order=0).get_fdata()
        np.testing.assert_array_equal(found[:5], 1)
        np.testing.assert_array_equal(found[5:], 0)


class TestDilateMask:
    @pytest.mark.parametrize(
        'spacing', [(1, 1, 1), (0.5, 1, 3), (1, 1, 5), (2.5, 0.9, 1.1), (3, 3, 3), (4, 4, 4)]
    )
    @pytest.mark.parametrize('radius', [1.0, 3.0, 4.2])
    def test_against_all_pairs_of_voxels(self, spacing, radius):
        rng = np.random.default_rng(int(10 * sum(spacing) + radius))
        mask = rng.random((11, 12, 9)) > 0.995
        mask[0, 5, 8] = True  # at the border
        where = np.moveaxis(np.indices(mask.shape), 0, -1) * spacing
        distance = np.linalg.norm(where[..., None, :] - where[mask], axis=-1).min(-1)
        np.testing.assert_array_equal(
            dilate_mask(mask, np.array(spacing), radius), distance <= radius + 1e-4
        )

    def test_rounding_of_the_spacing_takes_nothing_off(self):
        mask = np.zeros((9, 9, 9), bool)
        mask[4, 4, 4] = True
        grown = dilate_mask(mask, np.full(3, 1.0000001), 3.0)
        assert grown[1, 4, 4] and not grown[0, 4, 4]

    @pytest.mark.parametrize('radius', [0.0, 3.0])
    def test_nothing_grows_to_nothing(self, radius):
        assert not dilate_mask(np.zeros((4, 4, 4), bool), np.ones(3), radius).any()

    def test_no_radius_no_growth(self):
        mask = np.random.default_rng(0).random((5, 5, 5)) > 0.5
        np.testing.assert_array_equal(dilate_mask(mask.astype(np.uint8), np.ones(3), 0), mask)


def test_bounding_box():
    mask = np.zeros((10, 10, 10), bool)
    mask[2:4, 5, 9] = True
    mask[3, 6, 8] = True  # another component
    assert bounding_box(mask) == (slice(2, 4), slice(5, 7), slice(8, 10))
    assert bounding_box(mask, 3) == (slice(0, 7), slice(2, 10), slice(5, 10))
    assert bounding_box(np.zeros((3, 4, 5), bool)) == (slice(0, 3), slice(0, 4), slice(0, 5))


def test_small_components_are_dropped_by_their_volume():
    mask = np.zeros((12, 12, 12), bool)
    mask[1:3, 1:3, 1:3] = True  # 8 voxels
    mask[3, 3, 3] = True  # joined by its corner: 9
    mask[8:10, 8:10, 8] = True  # 4 voxels
    spacing = np.array([1, 2, 3])  # 6 mm^3 a voxel
    np.testing.assert_array_equal(remove_small_components(mask, spacing, 24), mask)
    kept = remove_small_components(mask, spacing, 25)
    assert kept.sum() == 9 and kept[3, 3, 3]
    assert not remove_small_components(mask, spacing, 55).any()
    assert not remove_small_components(np.zeros_like(mask), spacing, 1).any()


def test_voxel_spacing_is_that_of_the_array_axes():
    image = nb.Nifti1Image(np.zeros((2, 2, 2)), grid('PIR', (2, 2, 2), (0.8, 1.2, 3)))
    np.testing.assert_allclose(voxel_spacing(image), (0.8, 1.2, 3))
