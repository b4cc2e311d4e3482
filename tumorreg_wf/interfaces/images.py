"""Images made fit for the workflow: grids, masks, grey values."""

from __future__ import annotations

import os

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import (
    bounding_box,
    bring_near,
    clean_image,
    dilate_mask,
    fit_mask,
    load_image,
    load_on_grid,
    same_grid,
    save_like,
    share_beyond,
    voxel_spacing,
)
from tumorreg_wf.intensity import (
    SPIKE,
    cut_spikes,
    is_stripped,
    normalize_modality,
    raise_negative,
    require_content,
    stripped_brain_mask,
)
from tumorreg_wf.reading import check_compressed, image_notes, read_image, says_where


class _ConformInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image, 3-D, or 4-D with one volume')
    near = File(exists=True, desc='image of the same head; in_file is moved there if far away')


class _ConformOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='float32 NIfTI (X, Y, Z), finite, on the same grid')
    notes = traits.List(traits.Str, desc='oddities of the image, for the reader of the report')


class Conform(SimpleInterface):
    """Check an image and write it as 3-D float32 without NaN, Inf or values below 0.

    Its voxels stay, its axes are brought as near to R, A, S as that allows, so that what comes
    out does not depend on the order in which it was stored. Where its header places it far from
    another image of the head, its affine is shifted.
    """

    input_spec = _ConformInputSpec
    output_spec = _ConformOutputSpec

    def _run_interface(self, runtime):
        source, read = read_image(self.inputs.in_file)
        check_compressed(self.inputs.in_file)
        notes = image_notes(source, read)
        image = nb.as_closest_canonical(clean_image(source, read))
        data = image.get_fdata(dtype=np.float32)
        require_content(data, self.inputs.in_file)
        name = os.path.basename(self.inputs.in_file)
        data, shift = raise_negative(data)
        if shift:
            notes.append(
                f'{name}: its grey values go below 0, as if they had been normalised. '
                f'{shift:.3g} was added to all but the background.'
            )
        data, spikes = cut_spikes(data)
        if spikes:
            voxels = '1 voxel is' if spikes == 1 else f'{spikes} voxels are'
            notes.append(
                f'{name}: {voxels} more than {SPIKE:g} times as bright as nearly all others, and '
                'cut to that.'
            )
        out_file = os.path.join(runtime.cwd, 'conformed.nii.gz')
        if isdefined(self.inputs.near):
            near = bring_near(image, load_image(self.inputs.near))
            if near is not image:
                image = near
                notes.append(
                    f'{name}: its header places it away from the T1w. It was moved there, centre '
                    'on centre, before it was registered.'
                )
        self._results['out_file'] = save_like(data, image, out_file)
        self._results['notes'] = notes
        return runtime


class _ConformMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='mask or labels, any grid; 0.5 is inside')
    reference = File(exists=True, mandatory=True, desc='image that lends the grid')


class _MaskOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc='mask, uint8, 1 inside, 0 outside')


class _ConformMaskOutputSpec(_MaskOutputSpec):
    notes = traits.List(traits.Str, desc='oddities of the mask, for the reader of the report')


#: Less of a mask than this may lie beyond its image without a word.
BEYOND = 0.01


class ConformMask(SimpleInterface):
    """Bring a mask to the grid of an image by their affines; see `fit_mask`."""

    input_spec = _ConformMaskInputSpec
    output_spec = _ConformMaskOutputSpec

    def _run_interface(self, runtime):
        reference = load_image(self.inputs.reference)
        mask = load_image(self.inputs.in_file)
        # the image was turned to R, A, S, the mask was not
        alike = same_grid(*map(nb.as_closest_canonical, (mask, reference)))
        if not (says_where(self.inputs.in_file) or alike):
            raise TumorregError(
                f'{self.inputs.in_file}: the header of this mask does not say where it lies '
                '(sform and qform codes are 0). Give it the header of the image it was drawn on.'
            )
        values = np.asanyarray(mask.dataobj)
        found = fit_mask(mask, reference)
        if values.any() and not (values >= 0.5).any():
            raise TumorregError(
                f'{self.inputs.in_file}: no voxel of this mask reaches 0.5. A mask has 1 inside, '
                'a map of labels whole numbers.'
            )
        if values.any() and not found.any():
            raise TumorregError(
                f'{self.inputs.in_file}: this mask does not overlap its T1w. Their headers place '
                'them apart; check that both are of one session and space.'
            )
        self._results['notes'] = []
        beyond = share_beyond(mask, reference)
        if beyond > BEYOND:
            self._results['notes'] = [
                f'{os.path.basename(self.inputs.in_file)}: {beyond:.0%} of this mask lie outside '
                "of the T1w's field of view, and were left out. Check that their headers agree."
            ]
        out_file = os.path.join(runtime.cwd, 'mask.nii.gz')
        self._results['out_mask'] = save_like(found, reference, out_file)
        return runtime


class _BrainMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='conformed T1w')
    source_file = File(desc='the user file behind in_file, for messages')
    skull_strip = traits.Enum(
        'auto',
        'skip',
        usedefault=True,
        desc='auto: check that the image is stripped; skip: take it as stripped',
    )


class StrippedBrainMask(SimpleInterface):
    """Brain mask of a skull-stripped image."""

    input_spec = _BrainMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_file)
        data = image.get_fdata(dtype=np.float32)
        if self.inputs.skull_strip == 'auto' and not is_stripped(data, voxel_spacing(image)):
            source = self.inputs.source_file
            raise TumorregError(
                f'{source if isdefined(source) else self.inputs.in_file}: this looks like a whole '
                "head. Strip the skull first, give a brain mask, or choose skull_strip='force', "
                "which finds the brain; 'skip' takes the image as it is."
            )
        out_file = os.path.join(runtime.cwd, 'brain_mask.nii.gz')
        self._results['out_mask'] = save_like(stripped_brain_mask(data), image, out_file)
        return runtime


class _ApplyMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image')
    in_mask = File(exists=True, mandatory=True, desc='mask on the same grid')


class _ImageOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='float32 image on the grid of in_file')


class _KeepScaleInputSpec(_ApplyMaskInputSpec):
    reference = File(exists=True, mandatory=True, desc='image on the same grid, of the scale')


class KeepScale(SimpleInterface):
    """Multiply an image so that its median in a mask is that of another.

    N4 is free to choose the scale of its result.
    """

    input_spec = _KeepScaleInputSpec
    output_spec = _ImageOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_file)
        mask = load_on_grid(self.inputs.in_mask, image)
        inside = np.asanyarray(mask.dataobj) > 0
        data = image.get_fdata(dtype=np.float32)
        reference = load_on_grid(self.inputs.reference, image)
        wanted = reference.get_fdata(dtype=np.float32)[inside]
        if inside.any() and (found := np.median(data[inside])) > 0 < np.median(wanted):
            data = data * np.float32(np.median(wanted) / found)
        out_file = os.path.join(runtime.cwd, 'scaled.nii.gz')
        self._results['out_file'] = save_like(data, image, out_file)
        return runtime


class _CropInputSpec(_ApplyMaskInputSpec):
    margin = traits.Range(low=0.0, value=15.0, usedefault=True, desc='margin to keep, mm')


class CropToMask(SimpleInterface):
    """Set what is outside a mask to 0 and cut the image down to the mask and a margin.

    Clinical grids are mostly background; a registration takes as long as its grid is large.
    """

    input_spec = _CropInputSpec
    output_spec = _ImageOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_file)
        mask = load_on_grid(self.inputs.in_mask, image)
        inside = np.asanyarray(mask.dataobj) > 0
        data = image.get_fdata(dtype=np.float32) * inside
        margin = int(np.ceil(self.inputs.margin / voxel_spacing(image).min()))
        box = bounding_box(inside, margin)
        cropped = image.slicer[box]
        out_file = os.path.join(runtime.cwd, 'cropped.nii.gz')
        self._results['out_file'] = save_like(data[box], cropped, out_file)
        return runtime


class _InvertMaskInputSpec(BaseInterfaceInputSpec):
    in_mask = File(exists=True, mandatory=True, desc='mask, > 0 inside')


class InvertMask(SimpleInterface):
    """Everything but a mask, on its grid; all there is, where the mask leaves nothing.

    For no metric can be computed nowhere.
    """

    input_spec = _InvertMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_mask)
        out_file = os.path.join(runtime.cwd, 'inverted.nii.gz')
        left = image.get_fdata() <= 0
        self._results['out_mask'] = save_like(left if left.any() else ~left, image, out_file)
        return runtime


class _NormalizeInputSpec(_ApplyMaskInputSpec):
    modality = traits.Enum('T1w', 'FLAIR', usedefault=True, desc='reference histogram')


class _NormalizeOutputSpec(_ImageOutputSpec):
    notes = traits.List(traits.Str, desc='what the reader of the report should know')


#: Less of a brain than this without FLAIR is not worth a word: a slice, fluid that is 0.
NO_FLAIR = 0.03


class NormalizeIntensity(SimpleInterface):
    """Histogram matching to a reference, then z-score, both within the brain.

    What is computed is in ``tumorreg_wf.intensity.normalize_modality``.
    """

    input_spec = _NormalizeInputSpec
    output_spec = _NormalizeOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_file)
        mask = load_on_grid(self.inputs.in_mask, image)
        data = image.get_fdata(dtype=np.float32)
        inside = np.asanyarray(mask.dataobj) > 0
        notes = []
        if self.inputs.modality == 'FLAIR' and inside.any():
            missing = 1 - np.mean(data[inside] != 0)
            if missing > NO_FLAIR:
                notes.append(
                    f'The FLAIR does not show {missing:.0%} of the brain: there the tumour was '
                    'looked for in the T1w alone.'
                )
        self._results['notes'] = notes
        data = normalize_modality(data, inside, self.inputs.modality)
        out_file = os.path.join(runtime.cwd, 'normalized.nii.gz')
        self._results['out_file'] = save_like(data, image, out_file)
        return runtime


class _DilateInputSpec(BaseInterfaceInputSpec):
    in_mask = File(exists=True, mandatory=True, desc='mask, > 0 inside')
    radius = traits.Range(low=0.0, value=3.0, usedefault=True, desc='distance to grow, mm')


class DilateMask(SimpleInterface):
    """Grow a mask by a distance in true millimetres, on any grid."""

    input_spec = _DilateInputSpec
    output_spec = _MaskOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.in_mask)
        mask = np.asanyarray(image.dataobj) > 0
        dilated = dilate_mask(mask, voxel_spacing(image), self.inputs.radius)
        out_file = os.path.join(runtime.cwd, 'dilated.nii.gz')
        self._results['out_mask'] = save_like(dilated, image, out_file)
        return runtime
