"""Reading images as they come: what is refused, what is mended, and what is said of it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, cast

import nibabel as nb
import numpy as np

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import unpack

#: Most voxels of an image; 0.5 mm over a whole head has a fifth of them.
MOST_VOXELS = 2**29

#: Edges of voxels that an image of a head may have, mm.
VOXEL_EDGES = (0.05, 20.0)

#: Deviation from right angles (radians) up to which an affine counts as unsheared.
SHEAR_TOLERANCE = 1e-4

#: Voxels longer than this (mm) are worth a note.
THICK = 3.5

#: Placements by sform and qform further apart than this (mm) are worth a note.
APART = 1.0

#: What lies behind the voxels of a file is read no further than this, bytes.
MOST_BEHIND = 2**20

#: What to say of a file that git-annex knows but has not fetched.
NOT_HERE = 'its content is not here. Fetch it first (datalad get, git annex get).'


def read_image(path: str | Path) -> tuple[nb.spatialimages.SpatialImage, np.ndarray]:
    """Read an image of one volume.

    Parameters
    ----------
    path : path of a NIfTI file, 3-D or 4-D with a single volume.

    Returns
    -------
    image : as nibabel loads it.
    data : float32 array (X, Y, Z), not yet finite; beyond float32 is infinite.

    Raises
    ------
    TumorregError
        If the file is missing, truncated, no image, has several volumes, or a header that makes
        no sense.
    """
    path = Path(path)
    try:
        image = cast('nb.spatialimages.SpatialImage', nb.load(path))
        check_header(image, path)
        with np.errstate(over='ignore'):
            data = np.asanyarray(image.dataobj).astype(np.float32)
    except TumorregError:
        raise
    except FileNotFoundError:
        reason = NOT_HERE if path.is_symlink() else 'no such file.'
        raise TumorregError(f'{path}: {reason}') from None
    except PermissionError:
        raise TumorregError(f'{path}: no permission to read this file.') from None
    except MemoryError:
        raise TumorregError(f'{path}: there is too little memory to read this image.') from None
    except Exception as error:  # nibabel, gzip and zlib each have their own exceptions
        if _is_pointer(path):
            raise TumorregError(f'{path}: {NOT_HERE}') from None
        raise TumorregError(
            f'{path}: this is not a readable NIfTI image ({error}). '
            'Copy or convert it again, then rerun.'
        ) from None
    if image.get_data_dtype().kind in 'iu':
        # scaled integers are exact to a step: what lies within half of it about 0 is 0
        step = abs(getattr(image.dataobj, 'slope', 1))
        data[np.abs(data) < step / 2] = 0
    return image, data.reshape(data.shape[:3])


def check_compressed(path: str | Path) -> None:
    """Read a compressed image to its end, where its checksum is; to know the voxels takes less.

    Raises
    ------
    TumorregError
        If it is damaged.
    """
    path = Path(path)
    if not path.name.endswith('.nii.gz'):
        return
    voxels = cast('Any', nb.load(path)).dataobj
    length = voxels.offset + voxels.dtype.itemsize * int(np.prod(voxels.shape))
    try:
        unpack(path, length + MOST_BEHIND)
    except (OSError, EOFError, zlib.error) as error:
        raise TumorregError(
            f'{path}: this file is damaged ({error}). Copy or convert it again, then rerun.'
        ) from None


def _is_pointer(path: Path) -> bool:
    """Tell whether a file is what git-annex puts in place of content that was not fetched."""
    if not path.is_file():
        return False
    with path.open('rb') as stream:
        return stream.read(15) == b'/annex/objects/'


def check_header(image: nb.spatialimages.SpatialImage, path: str | Path) -> None:
    """Raise :class:`TumorregError` unless a header describes one volume of real numbers.

    Nothing but the header is read: what is too large for memory is refused before it is there.
    """
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise TumorregError(
            f'{path}: a 3-D image is needed, this one has shape {image.shape}. Split its volumes.'
        )
    if np.prod(shape, dtype=float) > MOST_VOXELS:
        raise TumorregError(
            f'{path}: its header says {" x ".join(map(str, shape))} voxels, which no image of a '
            'head has. Convert it again.'
        )
    if image.get_data_dtype().kind not in 'iufb':
        raise TumorregError(
            f'{path}: voxels are {image.get_data_dtype()}, not real numbers. A grey-value image '
            'is needed: the magnitude of a complex one, no colours.'
        )
    edges = _edges(image)
    low, high = VOXEL_EDGES
    if not (np.isfinite(image.affine).all() and np.all((edges >= low) & (edges <= high))):
        raise TumorregError(
            f'{path}: its header says voxels of {" x ".join(f"{edge:g}" for edge in edges)} mm. '
            'Mend the header (sform, qform, pixdim), or convert it again.'
        )
    if abs(np.linalg.det(image.affine[:3, :3] / edges)) < 0.5:
        raise TumorregError(
            f'{path}: two axes of its sform point nearly the same way. Mend the header, or '
            'convert it again.'
        )


def _edges(image: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Edges of the voxels (mm), as the header says: nibabel makes 1 of a 0 in pixdim."""
    edges = nb.affines.voxel_sizes(image.affine)
    file = image.file_map['image'] if image.file_map else None
    if not isinstance(image.header, nb.Nifti1Header) or file is None or file.filename is None:
        return edges
    if int(image.header['sform_code']) > 0:
        return edges
    with file.get_prepare_fileobj('rb') as stream:
        stored = type(image.header).from_fileobj(stream, check=False)['pixdim'][1:4]
    return np.where(stored == 0, 0, edges)


def straighten(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Take the shear out of an affine; ANTs knows right angles only.

    Voxel sizes and the centre of the image stay; an affine without shear is returned as it is.
    The same affine always gives the same result, so that a mask stays with its image.

    Parameters
    ----------
    affine : (4, 4).
    shape : voxels along each axis.
    """
    edges = nb.affines.voxel_sizes(affine)
    if _shear(affine) <= SHEAR_TOLERANCE:
        return affine
    left, _, right = np.linalg.svd(affine[:3, :3] / edges)
    middle = (np.array(shape[:3]) - 1) / 2
    linear = (left @ right) * edges
    centre = nb.affines.apply_affine(affine, middle)
    return nb.affines.from_matvec(linear, centre - linear @ middle)


def says_where(path: str | Path) -> bool:
    """Tell whether the header of an image says how the patient lay in the scanner."""
    return _says_where(nb.load(path))


def _says_where(image) -> bool:
    header = image.header
    return not isinstance(header, nb.Nifti1Header) or any(
        int(header[code]) > 0 for code in ('sform_code', 'qform_code')
    )


def image_notes(image: nb.spatialimages.SpatialImage, data: np.ndarray) -> list[str]:
    """Say what a reader of the results should know of an image as it came.

    Parameters
    ----------
    image, data : from :func:`read_image`.
    """
    name = Path(str(image.get_filename())).name
    notes = []
    if not _says_where(image):
        notes.append(
            f'{name}: the header does not say how the patient lay (sform and qform codes are 0). '
            'Left and right may be exchanged.'
        )
    elif _forms_apart(image) > APART:
        notes.append(
            f'{name}: sform and qform of the header place it up to {_forms_apart(image):.0f} mm '
            'apart. The sform was taken; check that masks lie where they should.'
        )
    shear = _shear(image.affine)
    if shear > SHEAR_TOLERANCE:
        notes.append(
            f'{name}: the sform of the header is sheared by {np.degrees(shear):.1f} degrees. '
            'Outputs lie on the same voxels with the shear taken out.'
        )
    edges = nb.affines.voxel_sizes(image.affine)
    if edges.max() > THICK:
        notes.append(
            f'{name}: voxels are {edges.max():.3g} mm long. What is smaller cannot be told, and '
            'labels are less exact.'
        )
    if wild := int(np.count_nonzero(~np.isfinite(data))):
        voxels = '1 voxel is' if wild == 1 else f'{wild} voxels are'
        notes.append(f'{name}: {voxels} NaN or infinite, and taken as 0.')
    return notes


def _shear(affine: np.ndarray) -> float:
    """Largest deviation from right angles, radians."""
    directions = affine[:3, :3] / nb.affines.voxel_sizes(affine)
    cosines = (directions.T @ directions)[np.triu_indices(3, 1)]
    return float(np.abs(np.arcsin(np.clip(cosines, -1, 1))).max())


def _forms_apart(image: nb.spatialimages.SpatialImage) -> float:
    """Largest distance (mm) between where sform and qform place a corner of an image."""
    header = image.header
    if not isinstance(header, nb.Nifti1Header):
        return 0.0
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError:  # its quaternion is none; where there is an sform, that counts
        return 0.0
    if sform is None or qform is None:
        return 0.0
    corners = np.argwhere(np.ones((2, 2, 2))) * (np.array(image.shape[:3]) - 1)
    sform = straighten(sform, image.shape)
    between = nb.affines.apply_affine(sform, corners) - nb.affines.apply_affine(qform, corners)
    return float(np.linalg.norm(between, axis=1).max())
