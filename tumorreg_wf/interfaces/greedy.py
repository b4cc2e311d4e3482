"""Registration by greedy, with the fields of Nipype's for ANTs."""

from __future__ import annotations

import json
import os
import shlex
import sys

from nipype.interfaces.base import (
    CommandLineInputSpec,
    File,
    InputMultiPath,
    TraitedSpec,
    traits,
)

from tumorreg_wf.interfaces.commands import CheckedCommand


class GreedyRegistrationInputSpec(CommandLineInputSpec):
    fixed_image = File(
        exists=True, mandatory=True, argstr='--fixed %s', desc='image that stays (X, Y, Z)'
    )
    moving_image = File(
        exists=True, mandatory=True, argstr='--moving %s', desc='image that is warped'
    )
    fixed_maps = InputMultiPath(
        File(exists=True),
        argstr='--fixed-maps %s',
        requires=['moving_maps'],
        desc='maps of tissues on the fixed grid, for the stage tissues',
    )
    moving_maps = InputMultiPath(
        File(exists=True),
        argstr='--moving-maps %s',
        requires=['fixed_maps'],
        desc='the same tissues on the moving grid, in the same order',
    )
    fixed_image_mask = File(
        exists=True, argstr='--fixed-mask %s', desc='1 where the metric is computed; fixed grid'
    )
    settings = traits.DictStrStr(
        mandatory=True,
        argstr='--settings %s',
        desc='options of greedy for each stage: affine, by the images; then deformable, by the '
        'images, or tissues, by the maps; one of them at least',
    )
    initial_moving_transform = File(
        exists=True,
        argstr='--initial %s',
        desc='composite_transform of an affine stage alone; where settings have none',
    )
    random_seed = traits.Int(
        1,
        usedefault=True,
        argstr='--seed %d',
        desc='seed of the sampling of the affine stage; 0 counts as 1',
    )
    num_threads = traits.Int(
        1, usedefault=True, nohash=True, argstr='--threads %d', desc='CPU threads'
    )
    out_file = traits.Str(
        'std2anat_Composite.h5', usedefault=True, argstr='--out %s', desc='file to write'
    )
    out_inverse = traits.Str(
        'std2anat_InverseComposite.h5',
        usedefault=True,
        argstr='--out-inverse %s',
        desc='file to write',
    )


class GreedyRegistrationOutputSpec(TraitedSpec):
    composite_transform = File(
        exists=True, desc='ITK HDF5 that brings images from the moving to the fixed grid'
    )
    inverse_composite_transform = File(exists=True, desc='its inverse')


class GreedyRegistration(CheckedCommand):
    """Affine and deformable registration with greedy (Yushkevich et al. 2016).

    Examples
    --------
    >>> from tumorreg_wf.interfaces.greedy import GreedyRegistration
    >>> node = GreedyRegistration(
    ...     fixed_image='t1w.nii.gz',
    ...     moving_image='template.nii.gz',
    ...     settings={'affine': '-m NMI -n 100x50', 'deformable': '-m NCC 2x2x2 -n 100x50'},
    ... )  # doctest: +SKIP
    """

    _cmd = f'{shlex.quote(sys.executable)} -m tumorreg_wf.greedy_program'
    input_spec = GreedyRegistrationInputSpec
    output_spec = GreedyRegistrationOutputSpec

    def _format_arg(self, name, trait_spec, value):
        if name == 'settings':
            value = shlex.quote(json.dumps(value, sort_keys=True))
        return super()._format_arg(name, trait_spec, value)

    def _list_outputs(self) -> dict:
        return {
            'composite_transform': os.path.abspath(self.inputs.out_file),
            'inverse_composite_transform': os.path.abspath(self.inputs.out_inverse),
        }
