"""Transforms whose effect on every point is known."""

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.evaluation.warps import apart, carry, read_warp

#: RAS to the LPS of ANTs.
LPS = np.diag([-1.0, -1, 1, 1])


def write_affine(matrix, path):
    """Write a transform (4 x 4, from LPS mm to LPS mm) as ITK text."""
    numbers = ' '.join(f'{number:.12g}' for number in [*matrix[:3, :3].ravel(), *matrix[:3, 3]])
    path.write_text(
        '#Insight Transform File V1.0\n#Transform 0\n'
        f'Transform: AffineTransform_double_3_3\nParameters: {numbers}\nFixedParameters: 0 0 0\n'
    )
    return path


def write_field(shifts, affine, path):
    """Write shifts (X, Y, Z, 3), LPS mm, as a displacement field of ITK."""
    image = nb.Nifti1Image(shifts[:, :, :, None].astype(np.float32), affine)
    image.header.set_intent('vector')
    image.to_filename(path)
    return path


@pytest.fixture(params=['RAS', 'LPS', 'PIR', 'oblique'])
def grid(request, turned, tmp_path):
    """Path of an image of unequal voxels, and its voxels' centres (X, Y, Z, 3), LPS mm."""
    affine = np.array([[2.0, 0, 0, -20], [0, 2.5, 0, -14], [0, 0, 3, -30], [0, 0, 0, 1]])
    if request.param == 'oblique':
        angle = np.deg2rad(20)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine = turn @ affine
    data = np.random.default_rng(0).random((18, 16, 14)).astype(np.float32)
    image = nb.Nifti1Image(data, affine)
    if request.param != 'oblique':
        image = turned(image, request.param)
    image.to_filename(tmp_path / 'grid.nii.gz')
    voxels = np.moveaxis(np.indices(image.shape), 0, -1)
    return tmp_path / 'grid.nii.gz', nb.affines.apply_affine(LPS @ image.affine, voxels)


def test_affine(grid, tmp_path):
    path, points = grid
    matrix = np.array([[1.1, 0.05, 0, 3], [-0.02, 0.9, 0.1, -2], [0, 0.03, 1.2, 5], [0, 0, 0, 1]])
    shifts, jacobian = read_warp(write_affine(matrix, tmp_path / 'affine.txt'), path)
    expected = nb.affines.apply_affine(matrix, points) - points
    np.testing.assert_allclose(shifts, expected, atol=1e-3)
    inner = (slice(2, -2),) * 3  # at the edge ANTs takes other differences
    np.testing.assert_allclose(jacobian[inner], np.linalg.det(matrix[:3, :3]), rtol=1e-3)


def test_deformation_and_the_distance_of_two(grid, tmp_path):
    path, points = grid
    bend = 3 * np.sin(points[..., [1, 2, 0]] / 10)
    affine = nb.load(path).affine
    warp = read_warp(write_field(bend, affine, tmp_path / 'bend.nii.gz'), path)[0]
    np.testing.assert_allclose(warp, bend, atol=1e-3)
    shift = np.eye(4)
    shift[:3, 3] = [1, 2, 2]
    moved = read_warp(write_affine(shift, tmp_path / 'shift.txt'), path)[0]
    expected = np.linalg.norm(bend - [1, 2, 2], axis=-1)
    np.testing.assert_allclose(apart(warp, moved), expected, atol=1e-3)


def test_a_fold_is_seen(grid, tmp_path):
    """x goes to x + s(x); where the slope of s is below -1, the order of points is reversed."""
    path, points = grid
    shifts = np.zeros(points.shape)
    shifts[..., 0] = -1.5 * np.clip(points[..., 0], -8, 8)
    field = write_field(shifts, nb.load(path).affine, tmp_path / 'fold.nii.gz')
    _, jacobian = read_warp(field, path)
    inner = np.zeros(jacobian.shape, bool)
    inner[2:-2, 2:-2, 2:-2] = True
    x = np.abs(points[..., 0])
    assert not jacobian[inner & (x < 3)].any()  # -0.5, of which ANTs makes 0
    np.testing.assert_allclose(jacobian[inner & (x > 13)], 1, atol=1e-3)


def test_images_are_carried(grid, tmp_path):
    """A transform says where in the image a voxel of the grid finds its value."""
    path, points = grid
    affine = nb.load(path).affine
    ramp = points @ [1.0, 2, 3] + 500
    nb.Nifti1Image(ramp.astype(np.float32), affine).to_filename(tmp_path / 'ramp.nii.gz')
    shift = np.eye(4)
    shift[:3, 3] = [2, -1, 1]
    xfm = write_affine(shift, tmp_path / 'shift.txt')
    carried = carry(tmp_path / 'ramp.nii.gz', xfm, path)
    inner = (slice(2, -2),) * 3  # further out the image ends
    np.testing.assert_allclose((carried - ramp)[inner], 2 - 2 + 3, atol=1e-2)


def test_labels_are_carried_whole(grid, tmp_path):
    path, points = grid
    labels = (np.floor(points[..., 0] / 6) % 2 * 7).astype(np.float32)
    nb.Nifti1Image(labels, nb.load(path).affine).to_filename(tmp_path / 'labels.nii.gz')
    shift = np.eye(4)
    shift[:3, 3] = [0.9, 0.4, 1.1]
    xfm = write_affine(shift, tmp_path / 'shift.txt')
    found = carry(tmp_path / 'labels.nii.gz', xfm, path, 'NearestNeighbor')
    assert set(np.unique(found)) == {0, 7}
    assert len(np.unique(carry(tmp_path / 'labels.nii.gz', xfm, path))) > 2
