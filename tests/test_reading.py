"""Images as they come: what is refused, what is mended, what is said of it."""

import gzip
import struct
import warnings

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import load_image, save_like, voxel_spacing
from tumorreg_wf.reading import check_compressed, image_notes, read_image, straighten

TURN = nb.eulerangles.euler2mat(0.1, 0.2, 0.3)
SHEARED = nb.affines.from_matvec(TURN @ [[1, 0.1, 0], [0, 1, 0.05], [0, 0, 3]], [-9, 5, -20])


@pytest.fixture
def data():
    values = np.random.default_rng(0).uniform(100, 900, (20, 22, 24)).astype(np.float32)
    values[:4] = 0
    return values


@pytest.fixture
def write(tmp_path, data):
    """A function that writes an image with some bytes of its header changed."""

    def make(values=data, affine=None, name='a.nii', **fields):
        affine = np.eye(4) if affine is None else affine
        image = nb.Nifti1Image(values, affine, dtype=values.dtype)
        content = bytearray(image.to_bytes())
        at = {
            'dim': (40, '8h'),
            'pixdim': (76, '8f'),
            'quatern': (256, '3f'),
            'slope': (112, '2f'),
            'codes': (252, '2h'),
            'srow': (280, '12f'),
        }
        for field, numbers in fields.items():
            offset, kind = at[field]
            struct.pack_into(f'<{kind}', content, offset, *np.ravel(numbers))
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith('gz') else content)
        return path

    return make


class TestScaling:
    @pytest.mark.parametrize('dtype', [np.int16, np.uint8, np.uint16])
    def test_the_background_of_scaled_integers_is_zero(self, tmp_path, data, dtype):
        data[10, 0, 0] = -37.3  # so that 0 falls between two steps
        image = nb.Nifti1Image(data, np.eye(4))
        image.set_data_dtype(dtype)
        image.to_filename(tmp_path / 'a.nii.gz')
        stored = nb.load(tmp_path / 'a.nii.gz')
        assert stored.dataobj.slope != 1 and stored.get_fdata()[:4].any()
        found = load_image(tmp_path / 'a.nii.gz').get_fdata()
        assert not found[:4].any()
        step = stored.dataobj.slope
        np.testing.assert_allclose(found[4:], data[4:], atol=0.51 * step)

    def test_no_grey_value_of_an_unscaled_image_is_lost(self, write, data):
        values = data.astype(np.int16)
        values[5, 5, :3] = 1, -1, 2
        np.testing.assert_array_equal(load_image(write(values)).get_fdata(), values)
        small = data / 1e6
        np.testing.assert_array_equal(load_image(write(small)).get_fdata(), small)

    @pytest.mark.parametrize('slope', [0, np.nan, np.inf])
    def test_a_slope_that_is_none(self, write, data, slope):
        np.testing.assert_array_equal(load_image(write(slope=(slope, 0))).get_fdata(), data)

    def test_an_offset_that_is_no_number_is_refused(self, write):
        with pytest.raises(TumorregError, match='not a readable NIfTI'):
            load_image(write(slope=(1, np.nan)))

    def test_beyond_float32_is_zero_and_said(self, write, data):
        values = data.astype(float)
        values[5, 5, :3] = 1e300, -1e300, np.nan
        path = write(values)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            np.testing.assert_array_equal(load_image(path).get_fdata()[5, 5, :3], 0)
        assert image_notes(*read_image(path)) == [
            'a.nii: 3 voxels are NaN or infinite, and taken as 0.'
        ]

    def test_an_ordinary_image_needs_no_note(self, write):
        assert image_notes(*read_image(write(affine=np.diag([-1, 1.2, 3, 1])))) == []


class TestDamage:
    """What a reader of voxels alone does not see."""

    def test_a_checksum_that_is_wrong(self, write, data):
        path = write(name='a.nii.gz')
        check_compressed(path)
        content = path.read_bytes()
        for damaged in (content[:-8] + bytes(4) + content[-4:], content[:-8]):
            path.write_bytes(damaged)
            np.testing.assert_array_equal(load_image(path).get_fdata(), data)
            with pytest.raises(TumorregError, match=r'a\.nii\.gz: this file is damaged'):
                check_compressed(path)

    def test_what_lies_behind_is_not_read_for_ever(self, write, monkeypatch):
        path = write(name='a.nii.gz')
        monkeypatch.setattr('tumorreg_wf.reading.MOST_BEHIND', 1)
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**22)) + b'garbage')
        check_compressed(path)

    def test_files_that_are_not_compressed(self, write):
        check_compressed(write())


class TestPlacement:
    @pytest.mark.parametrize('pixdim', [(1, 3, 3, 0, 1, 1, 1, 1), (1, 0, 0, 0, 1, 1, 1, 1)])
    @pytest.mark.parametrize('codes', [(1, 0), (0, 0)])
    def test_axes_without_length(self, write, pixdim, codes):
        """nibabel would make them 1 mm long, which no volume that follows would show."""
        with pytest.raises(TumorregError, match='header says voxels of .* 0 mm'):
            load_image(write(pixdim=pixdim, codes=codes))
        load_image(write(pixdim=pixdim, codes=(1, 1)))  # there is an sform

    def test_a_quaternion_that_is_none(self, write):
        image, values = read_image(write(quatern=(0.9, 0.9, 0.9)))
        assert image_notes(image, values) == []

    def test_shear_is_taken_out_about_the_centre(self, write, data):
        path = write(affine=SHEARED)
        image = load_image(path)
        directions = image.affine[:3, :3] / voxel_spacing(image)
        np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
        np.testing.assert_allclose(
            voxel_spacing(image), np.linalg.norm(SHEARED[:3, :3], axis=0), rtol=1e-6
        )
        middle = (np.array(data.shape) - 1) / 2
        np.testing.assert_allclose(
            nb.affines.apply_affine(image.affine, middle),
            nb.affines.apply_affine(SHEARED, middle),
            atol=1e-4,
        )
        np.testing.assert_array_equal(image.get_fdata(), data)
        (note,) = image_notes(*read_image(path))
        assert 'sheared' in note and 'degrees' in note

    def test_ants_and_we_read_the_same_place(self, write, tmp_path, data):
        """ITK knows no shear: it once had other corners than nibabel."""
        image = load_image(write(affine=SHEARED))
        written = nb.load(save_like(data, image, tmp_path / 'b.nii.gz'))
        np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-4)

    def test_the_same_header_gives_the_same_grid(self):
        """A mask made in Python has the sform of its image alone; see nibabel's defaults."""
        one, other = straighten(SHEARED, (9, 9, 9)), straighten(SHEARED.copy(), (9, 9, 9, 1))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(straighten(one, (9, 9, 9)), one)

    def test_an_oblique_affine_is_left_alone(self):
        affine = nb.affines.from_matvec(TURN * [1, 1.2, 3], [1, 2, 3])
        assert straighten(affine, (5, 5, 5)) is affine

    def test_the_sform_comes_first_and_disagreement_is_said(self, tmp_path, data):
        image = nb.Nifti1Image(data, np.eye(4))
        image.set_sform(np.diag([-1, 1, 1, 1]), 1)
        image.set_qform(np.eye(4), 1)
        image.to_filename(tmp_path / 'a.nii')
        np.testing.assert_array_equal(
            load_image(tmp_path / 'a.nii').affine, np.diag([-1, 1, 1, 1])
        )
        (note,) = image_notes(*read_image(tmp_path / 'a.nii'))
        assert 'up to 38 mm apart' in note

    def test_a_qform_alone_counts(self, tmp_path, data):
        image = nb.Nifti1Image(data, None)
        image.set_qform(np.diag([-1, 1, 1, 1]), 1)
        image.to_filename(tmp_path / 'a.nii')
        np.testing.assert_array_equal(
            load_image(tmp_path / 'a.nii').affine, np.diag([-1, 1, 1, 1])
        )
        assert image_notes(*read_image(tmp_path / 'a.nii')) == []

    def test_a_header_without_orientation_is_said(self, write):
        (note,) = image_notes(*read_image(write(codes=(0, 0))))
        assert 'Left and right may be exchanged' in note

    def test_thick_slices_are_said(self, write):
        (note,) = image_notes(*read_image(write(affine=np.diag([1, 1, 6, 1]))))
        assert 'voxels are 6 mm long' in note

    @pytest.mark.parametrize(
        'rows',
        [
            np.diag([1, 0, 1, 1]),
            np.diag([1, np.nan, 1, 1]),
            np.diag([1e-3, 1e-3, 1e-3, 1]),
            np.diag([1, 1, 1000, 1]),
            [[1, 1, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1, 0]],
        ],
    )
    def test_a_grid_that_cannot_be_is_refused(self, write, rows):
        with pytest.raises(TumorregError, match=r'a\.nii: .*header'):
            load_image(write(srow=np.asarray(rows, float)[:3]))


class TestKind:
    @pytest.mark.parametrize(
        'dtype', [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint64, np.float64]
    )
    @pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
    def test_every_number_type(self, write, data, dtype, name):
        values = (data / 8).astype(dtype)
        np.testing.assert_array_equal(load_image(write(values, name=name)).get_fdata(), values)

    def test_big_endian(self, tmp_path, data):
        header = nb.Nifti1Header(endianness='>')
        header.set_data_dtype(np.int16)
        nb.Nifti1Image(data.astype(np.int16), np.eye(4), header).to_filename(tmp_path / 'a.nii')
        np.testing.assert_array_equal(
            load_image(tmp_path / 'a.nii').get_fdata(), data.astype(np.int16)
        )

    def test_nifti2(self, tmp_path, data):
        nb.Nifti2Image(data, np.eye(4)).to_filename(tmp_path / 'a.nii.gz')
        np.testing.assert_array_equal(load_image(tmp_path / 'a.nii.gz').get_fdata(), data)

    def test_complex_images_are_refused(self, write, data):
        with pytest.raises(TumorregError, match='real numbers'):
            load_image(write(data.astype(np.complex64)))

    def test_colours_are_refused(self, write):
        colours = np.zeros((6, 6, 6), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
        with pytest.raises(TumorregError, match='real numbers'):
            load_image(write(colours))


class TestSize:
    @pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
    def test_absurd_sizes_are_refused_before_they_are_read(self, write, name):
        path = write(name=name, dim=(3, 30000, 30000, 30000, 1, 1, 1, 1))
        with pytest.raises(TumorregError, match='30000 x 30000 x 30000 voxels'):
            load_image(path)

    def test_a_bomb_is_refused_unread(self, write, tmp_path):
        """A few megabytes that unpack to gigabytes: the size in the header is enough."""
        path = write(dim=(3, 2000, 2000, 2000, 1, 1, 1, 1))
        bomb = tmp_path / 'bomb.nii.gz'
        bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000)))
        assert bomb.stat().st_size < 1e6
        with pytest.raises(TumorregError, match='no image of a head'):
            load_image(bomb)

    def test_a_long_series_is_refused_unread(self, write):
        with pytest.raises(TumorregError, match='Split its volumes'):
            load_image(write(dim=(4, 200, 200, 200, 3000, 1, 1, 1)))

    @pytest.mark.parametrize('size', [0, -5])
    def test_no_voxels(self, write, size):
        with pytest.raises(TumorregError):
            load_image(write(dim=(3, 20, size, 24, 1, 1, 1, 1)))


class TestAbsentContent:
    """datalad's datasets are links to files that may not have been fetched."""

    def test_link_to_nothing(self, tmp_path):
        (tmp_path / 'a.nii.gz').symlink_to('.git/annex/objects/x.nii.gz')
        with pytest.raises(TumorregError, match='datalad get'):
            load_image(tmp_path / 'a.nii.gz')

    def test_pointer(self, tmp_path):
        (tmp_path / 'a.nii.gz').write_text('/annex/objects/MD5E-s100--abc.nii.gz\n')
        with pytest.raises(TumorregError, match='datalad get'):
            load_image(tmp_path / 'a.nii.gz')

    def test_link_to_content(self, write, tmp_path, data):
        write(name='content.nii.gz')
        (tmp_path / 'a.nii.gz').symlink_to('content.nii.gz')
        np.testing.assert_array_equal(load_image(tmp_path / 'a.nii.gz').get_fdata(), data)
