"""Nipype's stock ANTs interfaces, run by native ANTs or by the ANTs inside antspyx."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

import nibabel as nb
import numpy as np
from nipype.interfaces import ants
from nipype.interfaces.base import isdefined

from tumorreg_wf.images import load_image, load_on_grid, save_like, voxel_spacing
from tumorreg_wf.interfaces.commands import PLAIN, CheckedCommand


class EmbeddedANTs(CheckedCommand):
    """The native program where it is on PATH, else antspyx's of the same name."""

    @property
    def cmd(self) -> str:
        """The program, with the interpreter before it where it is embedded."""
        if shutil.which(self._cmd):
            return self._cmd
        return f'{shlex.quote(sys.executable)} -m tumorreg_wf.ants_program {self._cmd}'


class N4BiasFieldCorrection(EmbeddedANTs, ants.N4BiasFieldCorrection):
    """:class:`nipype.interfaces.ants.N4BiasFieldCorrection`, which is shown no oblique image.

    The program takes the axes of the world for those of the voxels: the field it finds in an
    image whose header turns it by 20 degrees is off by 5 %.
    """

    def _run_interface(self, runtime, correct_return_codes=(0,)):
        source = load_image(self.inputs.input_image)
        # the name of the output is made of that of the input, and the shell takes it as it is
        if _is_straight(source) and PLAIN.fullmatch(os.path.basename(self.inputs.input_image)):
            return super()._run_interface(runtime, correct_return_codes)
        given = {name: getattr(self.inputs, name)
                 for name in ('input_image', 'mask_image', 'weight_image')}  # fmt: skip
        for name, path in given.items():
            if isdefined(path):
                folder = os.path.join(runtime.cwd, name)
                setattr(self.inputs, name, _straighten(path, source, folder))
        try:
            runtime = super()._run_interface(runtime, correct_return_codes)
            outputs = self._list_outputs()
        finally:
            for name, path in given.items():
                setattr(self.inputs, name, path)
        for name, path in self._list_outputs().items():
            if isdefined(path):
                save_like(load_image(outputs[name]).get_fdata(dtype=np.float32), source, path)
        return runtime


def _is_straight(image: nb.Nifti1Image) -> bool:
    """Whether the axes of the voxels are those of the world, in whatever order."""
    turn = image.affine[:3, :3] / voxel_spacing(image)
    return np.allclose(np.abs(turn).max(0), 1, atol=1e-4)


def _straighten(path: str, source: nb.Nifti1Image, folder: str) -> str:
    """Write an image on the grid of another anew, its axes those of the world, in a new folder.

    Its name is the same, if a shell takes it as it is.
    """
    image = load_on_grid(path, source)
    os.makedirs(folder, exist_ok=True)
    name = os.path.basename(path)
    copy = os.path.join(folder, name if PLAIN.fullmatch(name) else 'image.nii.gz')
    affine = np.diag([*voxel_spacing(image), 1.0])
    nb.Nifti1Image(np.asanyarray(image.dataobj), affine).to_filename(copy)
    return copy


class Registration(EmbeddedANTs, ants.Registration):
    """:class:`nipype.interfaces.ants.Registration`."""


class ApplyTransforms(EmbeddedANTs, ants.ApplyTransforms):
    """:class:`nipype.interfaces.ants.ApplyTransforms`."""


class JacobianDeterminant(EmbeddedANTs, ants.CreateJacobianDeterminantImage):
    """:class:`nipype.interfaces.ants.CreateJacobianDeterminantImage`."""
