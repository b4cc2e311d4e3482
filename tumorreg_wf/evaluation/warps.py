"""What a transform does on a grid: where its points go, where it folds, what it carries there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nb
import numpy as np

from tumorreg_wf.images import load_image
from tumorreg_wf.interfaces.ants import ApplyTransforms, JacobianDeterminant


def read_warp(transform: str | Path, grid: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Compute a transform at every voxel of a grid.

    Parameters
    ----------
    transform : any transform ANTs reads, composite or not; of the kind that brings images to the
        grid.
    grid : image that lends the grid.

    Returns
    -------
    shifts : float32 (X, Y, Z, 3), mm: where a voxel's centre goes, minus the centre; world axes
        L, P, S, whatever the axes of the grid.
    jacobian : float32 (X, Y, Z), determinant of the transform; 0 where it folds (ANTs writes no
        negative ones).
    """
    with TemporaryDirectory() as folder:
        field = f'{folder}/warp.nii'
        ApplyTransforms(
            dimension=3,
            input_image=str(grid),
            reference_image=str(grid),
            transforms=[str(transform)],
            print_out_composite_warp_file=True,
            output_image=field,
        ).run()
        stored = np.asanyarray(nb.Nifti1Image.from_filename(field).dataobj)
        shifts = stored[:, :, :, 0].astype(np.float32)  # an axis for time, of length 1
        jacobian = f'{folder}/jacobian.nii'
        JacobianDeterminant(
            imageDimension=3, deformationField=field, outputImage=jacobian, doLogJacobian=0
        ).run()
        return shifts, load_image(jacobian).get_fdata(dtype=np.float32)


def carry(
    image: str | Path, transform: str | Path, grid: str | Path, interpolation: str = 'Linear'
) -> np.ndarray:
    """Bring an image to a grid as :mod:`tumorreg_wf.workflows.atlas` does; float32 (X, Y, Z)."""
    with TemporaryDirectory() as folder:
        carried = f'{folder}/carried.nii'
        ApplyTransforms(
            dimension=3,
            input_image=str(image),
            reference_image=str(grid),
            transforms=[str(transform)],
            interpolation=interpolation,
            float=True,
            output_image=carried,
        ).run()
        return load_image(carried).get_fdata(dtype=np.float32)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance (X, Y, Z) in mm between the points to which two transforms bring each voxel.

    Parameters
    ----------
    one, other : shifts (X, Y, Z, 3) of :func:`read_warp`, on one grid.
    """
    return np.linalg.norm(one - other, axis=-1)
