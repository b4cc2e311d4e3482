"""The networks as Nipype command-line interfaces, each run a process of its own.

Torch is not imported here: ``python -m tumorreg_wf.models.runner`` does the work and gives
its memory back when it ends.
"""

from __future__ import annotations

import os
import shlex
import sys

from nipype.interfaces.base import (
    CommandLineInputSpec,
    File,
    TraitedSpec,
    Undefined,
    isdefined,
    traits,
)

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.commands import CheckedCommand
from tumorreg_wf.weights import find_weights, read_weights

#: The runner as a program of this interpreter.
RUNNER = f'{shlex.quote(sys.executable)} -m tumorreg_wf.models.runner'


class _NetworkInputSpec(CommandLineInputSpec):
    weights = File(
        exists=True,
        nohash=True,
        argstr='--weights %s',
        desc='safetensors file with the weights; default: the packaged ones',
    )
    weights_sha256 = traits.Str(
        argstr='--sha256 %s',
        desc='hash the weights must have; other weights make the node run again',
    )
    device = traits.Str(
        'cpu', usedefault=True, nohash=True, argstr='--device %s', desc='torch device'
    )
    num_threads = traits.Int(
        1, usedefault=True, nohash=True, argstr='--threads %d', desc='CPU threads of torch'
    )

    @property
    def use_gpu(self) -> bool:
        """What Nipype asks of a node: no more of these run at once than there are GPUs."""
        return self.device.startswith('cuda')

    def _weights_changed(self, old, new) -> None:
        """Keep the hash that of the weights, also where they are set or connected later."""
        if isdefined(old):  # else the node is made, or comes from another process
            self.weights_sha256 = read_weights(new).sha256 if isdefined(new) else Undefined


class _NetworkCommand(CheckedCommand):
    """A subcommand of the runner with its weights filled in."""

    _task = ''

    def __init__(self, **inputs) -> None:
        super().__init__(**inputs)
        if not isdefined(self.inputs.weights) or not isdefined(self.inputs.weights_sha256):
            source = self.inputs.weights if isdefined(self.inputs.weights) else None
            found = find_weights(self._task, source)
            wanted = self.inputs.weights_sha256
            if isdefined(wanted) and wanted != found.sha256:
                raise TumorregError(
                    f'{found.path}: the hash of these weights is {found.sha256}, not {wanted}.'
                )
            self.inputs.weights = str(found.path)
            self.inputs.weights_sha256 = found.sha256

    def _list_outputs(self) -> dict:
        return {
            name: os.path.abspath(getattr(self.inputs, name))
            for name in self.output_spec().copyable_trait_names()
        }


class ExtractBrainInputSpec(_NetworkInputSpec):
    in_file = File(
        exists=True,
        mandatory=True,
        argstr='--t1w %s',
        desc='T1w of a head (X, Y, Z), any orientation, voxel size and intensity scale',
    )
    in_tumor = File(
        exists=True,
        argstr='--tumor %s',
        desc='mask of a tumour on the same grid, if known: it counts as brain',
    )
    out_mask = traits.Str(
        'brain_mask.nii.gz', usedefault=True, argstr='--out-mask %s', desc='file to write'
    )


class ExtractBrainOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc='brain mask, 1 brain, 0 elsewhere, grid of in_file')


class ExtractBrain(_NetworkCommand):
    """Find the brain in a whole head, tumour and all.

    Examples
    --------
    >>> from tumorreg_wf.interfaces.torch import ExtractBrain
    >>> node = ExtractBrain(in_file='t1w.nii.gz')  # doctest: +SKIP
    """

    _task = 'brain'
    _cmd = f'{RUNNER} strip'
    input_spec = ExtractBrainInputSpec
    output_spec = ExtractBrainOutputSpec


class SegmentTumorInputSpec(_NetworkInputSpec):
    in_file = File(
        exists=True,
        mandatory=True,
        argstr='--t1w %s',
        desc='T1w, normalised within the brain (X, Y, Z), any orientation and voxel size',
    )
    in_flair = File(
        exists=True, argstr='--flair %s', desc='FLAIR, normalised, on the same grid; optional'
    )
    brain_mask = File(
        exists=True, mandatory=True, argstr='--brain %s', desc='brain mask on the same grid'
    )
    out_probseg = traits.Str(
        'probseg.nii.gz', usedefault=True, argstr='--out-probseg %s', desc='file to write'
    )
    out_mask = traits.Str(
        'mask.nii.gz', usedefault=True, argstr='--out-mask %s', desc='file to write'
    )


class SegmentTumorOutputSpec(TraitedSpec):
    out_probseg = File(exists=True, desc='tumour probability in [0, 1], grid of in_file')
    out_mask = File(exists=True, desc='tumour mask, 1 tumour, 0 elsewhere, grid of in_file')


class SegmentTumor(_NetworkCommand):
    """Find the tumour with the U-Net.

    Examples
    --------
    >>> from tumorreg_wf.interfaces.torch import SegmentTumor
    >>> node = SegmentTumor(in_file='t1w.nii.gz', brain_mask='mask.nii.gz')  # doctest: +SKIP
    """

    _task = 'segmentation'
    _cmd = f'{RUNNER} segment'
    input_spec = SegmentTumorInputSpec
    output_spec = SegmentTumorOutputSpec


class FindTissuesInputSpec(_NetworkInputSpec):
    in_file = File(
        exists=True,
        mandatory=True,
        argstr='--t1w %s',
        desc='T1w without bias field (X, Y, Z), any orientation and spacing',
    )
    brain_mask = File(
        exists=True, mandatory=True, argstr='--brain %s', desc='brain mask on the same grid'
    )
    in_mask = File(
        exists=True,
        argstr='--hole %s',
        desc='dilated tumour on the same grid: its grey values say nothing of tissues',
    )
    out_gm = traits.Str('gm.nii.gz', usedefault=True, argstr='--out-gm %s', desc='file to write')
    out_wm = traits.Str('wm.nii.gz', usedefault=True, argstr='--out-wm %s', desc='file to write')
    out_csf = traits.Str(
        'csf.nii.gz', usedefault=True, argstr='--out-csf %s', desc='file to write'
    )


class FindTissuesOutputSpec(TraitedSpec):
    out_gm = File(exists=True, desc='probability of GM, grid of in_file; 0 outside the brain')
    out_wm = File(exists=True, desc='probability of WM')
    out_csf = File(exists=True, desc='probability of CSF')


class FindTissues(_NetworkCommand):
    """Tell grey matter, white matter and CSF apart with a U-Net and by grey values.

    Examples
    --------
    >>> from tumorreg_wf.interfaces.torch import FindTissues
    >>> node = FindTissues(in_file='t1w.nii.gz', brain_mask='mask.nii.gz')  # doctest: +SKIP
    """

    _task = 'tissues'
    _cmd = f'{RUNNER} tissues'
    input_spec = FindTissuesInputSpec
    output_spec = FindTissuesOutputSpec


class InpaintTumorInputSpec(_NetworkInputSpec):
    in_file = File(
        exists=True,
        mandatory=True,
        argstr='--t1w %s',
        desc='T1w (X, Y, Z), any orientation, voxel size and intensity scale',
    )
    in_mask = File(
        exists=True,
        mandatory=True,
        argstr='--hole %s',
        desc='mask of what to replace, on the same grid; dilate it first',
    )
    brain_mask = File(
        exists=True,
        mandatory=True,
        argstr='--brain %s',
        desc='brain mask on the same grid; only brain is filled',
    )
    out_file = traits.Str(
        'inpainted.nii.gz', usedefault=True, argstr='--out %s', desc='file to write'
    )


class InpaintTumorOutputSpec(TraitedSpec):
    out_file = File(
        exists=True, desc='T1w with normal tissue in the hole; equal to in_file outside'
    )


class InpaintTumor(_NetworkCommand):
    """Replace a tumour by plausible normal tissue with the partial-convolution network.

    Examples
    --------
    >>> from tumorreg_wf.interfaces.torch import InpaintTumor
    >>> node = InpaintTumor(
    ...     in_file='t1w.nii.gz', in_mask='dilated.nii.gz', brain_mask='mask.nii.gz'
    ... )  # doctest: +SKIP
    """

    _task = 'inpainting'
    _cmd = f'{RUNNER} inpaint'
    input_spec = InpaintTumorInputSpec
    output_spec = InpaintTumorOutputSpec
