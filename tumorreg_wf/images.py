"""Images on their grids: reading, comparing, and the 1 mm grid the networks see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage
from skimage.filters import threshold_otsu

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.reading import read_image, straighten

#: Largest difference (mm, or mm per voxel) between two affines of one grid.
AFFINE_TOLERANCE = 1e-3


def load_image(path: str | Path) -> nb.Nifti1Image:
    """Read a 3-D image into memory as float32, with finite values.

    Parameters
    ----------
    path : path of a NIfTI file, 3-D or 4-D with a single volume.

    Returns
    -------
    image : :class:`nibabel.Nifti1Image`, shape (X, Y, Z), float32; NaN and Inf become 0. Its
        affine has no shear (:func:`tumorreg_wf.reading.straighten`).

    Raises
    ------
    TumorregError
        If the file is missing, truncated, no image, or has several volumes.
    """
    return clean_image(*read_image(path))


def require_images(paths: Iterable[Path | None]) -> None:
    """Read images as :func:`load_image` does: a message now rather than hours of work lost.

    None stands for an image that a case does not have.
    """
    for path in paths:
        if path is not None:
            load_image(path)


def clean_image(source: nb.spatialimages.SpatialImage, data: np.ndarray) -> nb.Nifti1Image:
    """Make of what :func:`tumorreg_wf.reading.read_image` gives what :func:`load_image` does."""
    affine = straighten(source.affine, data.shape)
    header = nb.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_xyzt_units('mm')
    if not np.isfinite(data).all():
        data = np.nan_to_num(data, posinf=0, neginf=0)
    image = nb.Nifti1Image(data, affine, header)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    return image


def save_like(data: np.ndarray, reference: nb.spatialimages.SpatialImage, path: str | Path) -> str:
    """Write an array on the grid of another image.

    Parameters
    ----------
    data : array of the reference's shape; its dtype is the dtype on disk.
    reference : image that lends affine and header.
    path : file to write.

    Returns
    -------
    path : the absolute path written.
    """
    if data.shape != reference.shape:
        raise ValueError(f'array {data.shape} does not fit the grid {reference.shape}')
    if data.dtype == bool:
        data = data.astype(np.uint8)
    header = nb.Nifti1Header.from_header(reference.header)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    path = Path(path).absolute()
    nb.Nifti1Image(data, reference.affine, header).to_filename(path)
    return str(path)


def reorient_like(
    image: nb.Nifti1Image, reference: nb.spatialimages.SpatialImage
) -> nb.Nifti1Image:
    """Permute and flip the axes of an image to the order in which another stores the same grid.

    Parameters
    ----------
    image : on the grid of the reference, but for the order and direction of its axes.
    reference : image as read from its file; lends the affine, without shear.

    Returns
    -------
    image : voxel values and type as they were; the same object where the order is the same.

    Raises
    ------
    TumorregError
        If the image is on another grid.
    """
    affine = straighten(reference.affine, reference.shape)
    turn = nb.orientations.ornt_transform(
        nb.io_orientation(image.affine), nb.io_orientation(affine)
    )
    turned = image.as_reoriented(turn)
    if turned.shape[:3] != reference.shape[:3] or not np.allclose(
        turned.affine, affine, atol=AFFINE_TOLERANCE
    ):
        raise TumorregError(
            f'{image.get_filename()}: not on the grid of {reference.get_filename()}. Resample it '
            'first.'
        )
    if turned is image:
        return image
    # files keep affines as float32: what was turned there and back is off by its rounding
    turned = nb.Nifti1Image(turned.dataobj, affine, turned.header)
    turned.set_sform(affine, 1)
    turned.set_qform(affine, 1)
    return turned


def same_grid(one: nb.spatialimages.SpatialImage, other: nb.spatialimages.SpatialImage) -> bool:
    """Tell whether two images share shape and affine."""
    return one.shape == other.shape and np.allclose(
        one.affine, other.affine, atol=AFFINE_TOLERANCE
    )


def load_on_grid(path: str | Path, reference: nb.spatialimages.SpatialImage) -> nb.Nifti1Image:
    """Load an image that must be on the grid of the T1w, the reference."""
    image = load_image(path)
    if not same_grid(image, reference):
        raise TumorregError(
            f'{path}: not on the grid of the T1w. Resample it first; '
            'ConformMask does so with masks.'
        )
    return image


def resample(image: nb.Nifti1Image, target: nb.Nifti1Image, *, order: int) -> nb.Nifti1Image:
    """Bring an image onto the grid of another, by their affines.

    Parameters
    ----------
    image : 3-D image.
    target : image that lends the grid.
    order : spline order; 0 (nearest neighbour) for masks and labels.

    Returns
    -------
    image : on the target's grid; 0 where the image does not reach.
    """
    if same_grid(image, target):
        return image
    return _sample(image, target.shape, target.affine, order)


def fit_mask(mask: nb.Nifti1Image, target: nb.Nifti1Image) -> np.ndarray:
    """Bring a mask onto the grid of an image, by their affines.

    Parameters
    ----------
    mask : binary, labels or probabilities on any grid; one half or more is inside.
    target : image that lends the grid.

    Returns
    -------
    inside : boolean array of the target's shape. Each part that lies in the field of view of
        the target has a voxel at least, be it smaller than one; and what is thinner than a voxel
        is not lost where a thicker part goes on from it.
    """
    parts, count = ndimage.label(np.asanyarray(mask.dataobj) >= 0.5, np.ones((3, 3, 3)))
    image = nb.Nifti1Image(parts.astype(np.int32), mask.affine)
    found = np.asanyarray(resample(image, target, order=0).dataobj)
    inside = found > 0
    lost = np.ones(count + 1, bool)
    lost[np.unique(found)] = False
    where = np.argwhere(parts)
    voxels = nb.affines.apply_affine(np.linalg.inv(target.affine) @ mask.affine, where)
    voxels = np.rint(voxels).astype(int)
    within = np.all((voxels >= 0) & (voxels < target.shape), axis=1)
    part, voxels = parts[tuple(where[within].T)], voxels[within]
    far = ~ndimage.maximum_filter(inside, 3)[tuple(voxels.T)]
    inside[tuple(voxels[lost[part] | far].T)] = True
    return inside


def share_beyond(mask: nb.Nifti1Image, target: nb.Nifti1Image) -> float:
    """Part of a mask (0 to 1) that lies outside of the field of view of an image."""
    where = np.argwhere(np.asanyarray(mask.dataobj) >= 0.5)
    if not len(where):
        return 0.0
    voxels = nb.affines.apply_affine(np.linalg.inv(target.affine) @ mask.affine, where)
    within = np.all((voxels > -1) & (voxels < target.shape), axis=1)  # a voxel of grace
    return float(1 - within.mean())


def bring_near(image: nb.Nifti1Image, target: nb.Nifti1Image) -> nb.Nifti1Image:
    """Move an image, centre on centre, to another of the same head if it lies elsewhere.

    Headers that place two images of one session apart come from conversions that lost their
    origins; a registration that starts there finds nothing.

    Parameters
    ----------
    image, target : 3-D images with content.

    Returns
    -------
    image : the same where half of it lies in the target's content or more, or half of that in
        its own: one may show the brain alone, the other all of the head; else a copy whose affine
        is shifted.
    """
    # in air there is noise
    volumes = [one.get_fdata(dtype=np.float32) for one in (image, target)]
    contents = [data > threshold_otsu(data.ravel()) / 2 for data in volumes]
    points = [
        nb.affines.apply_affine(
            one.affine,
            np.transpose(np.unravel_index(np.flatnonzero(content)[::101], content.shape)),
        )
        for one, content in zip((image, target), contents, strict=True)
    ]
    if not (len(points[0]) and len(points[1])):
        return image
    for one, content, others in (
        (target, contents[1], points[0]),
        (image, contents[0], points[1]),
    ):
        voxels = nb.affines.apply_affine(np.linalg.inv(one.affine), others)
        met = ndimage.map_coordinates(content.astype(np.uint8), voxels.T, order=0)
        if met.mean() >= 0.5:
            return image
    affine = image.affine.copy()
    affine[:3, 3] += points[1].mean(0) - points[0].mean(0)
    moved = nb.Nifti1Image(np.asanyarray(image.dataobj), affine, image.header)
    moved.set_sform(affine, 1)
    moved.set_qform(affine, 1)
    return moved


def to_network_grid(
    image: nb.Nifti1Image, *, spacing: float = 1.0, order: int = 1
) -> nb.Nifti1Image:
    """Bring an image to a grid the networks see: axes R, A, S, cubic voxels.

    Where the voxels have that size already this only permutes and flips axes, so that
    :func:`resample` back to the original grid loses nothing. Before down-sampling grey
    values are smoothed, so that fine detail does not fold into coarse voxels.

    Parameters
    ----------
    image : 3-D image of any orientation and voxel size.
    spacing : edge of the cubic voxels, mm.
    order : spline order; 0 (nearest neighbour) for masks and labels.
    """
    image = nb.as_closest_canonical(image)
    zooms = voxel_spacing(image)
    if np.allclose(zooms, spacing, atol=0.01):
        return image
    if order > 0:
        ratio = spacing / zooms
        sigma = np.where(ratio > 1.2, 0.4 * ratio, 0)
        image = nb.Nifti1Image(
            ndimage.gaussian_filter(image.get_fdata(dtype=np.float32), sigma), image.affine
        )
    shape = np.maximum(np.ceil(np.array(image.shape) * zooms / spacing - 1e-3), 1).astype(int)
    affine = image.affine.copy()
    affine[:3, :3] *= spacing / zooms
    # the centres of both grids coincide
    centre = nb.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    return _sample(image, tuple(shape), affine, order)


def _sample(
    image: nb.Nifti1Image, shape: tuple[int, ...], affine: np.ndarray, order: int
) -> nb.Nifti1Image:
    # voxels reach half their size beyond their centres, and coordinates carry rounding: in
    # mode 'constant' the outermost layer would be lost
    return resample_from_to(image, (shape, affine), order=order, mode='grid-constant')


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Smallest box around a mask, in voxels, widened by a margin; the whole array if empty."""
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, axis.start - margin), min(size, axis.stop + margin))
        for axis, size in zip(found, mask.shape, strict=True)
    )


def dilate_mask(mask: np.ndarray, spacing: np.ndarray, radius: float) -> np.ndarray:
    """Grow a mask by a distance in millimetres.

    Parameters
    ----------
    mask : boolean array (X, Y, Z).
    spacing : voxel size along each axis, mm.
    radius : distance, mm, from voxel centre to voxel centre.

    Returns
    -------
    dilated : boolean array; voxels whose centre is at most ``radius`` from one of the mask's.
    """
    mask = mask.astype(bool)
    if not mask.any() or radius <= 0:
        return mask
    margin = int(np.ceil(radius / np.min(spacing))) + 1
    box = bounding_box(mask, margin)
    dilated = np.zeros_like(mask)
    # distances along a float grid carry rounding: 3 mm means 3.0000001 too
    dilated[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing) <= radius + 1e-4
    return dilated


def remove_small_components(mask: np.ndarray, spacing: np.ndarray, volume: float) -> np.ndarray:
    """Drop the 26-connected components of a mask that are smaller than ``volume`` mm^3."""
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count == 0:
        return mask.astype(bool)
    sizes = np.bincount(labels.ravel()) * float(np.prod(spacing))
    keep = sizes >= volume
    keep[0] = False
    return keep[labels]


def voxel_spacing(image: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Voxel size along each of the three array axes, mm, from the affine."""
    return nb.affines.voxel_sizes(image.affine)
