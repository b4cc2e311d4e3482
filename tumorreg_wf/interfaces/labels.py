"""Tissues and regions of a patient, from warped maps of the atlas and the T1w."""

from __future__ import annotations

import csv
import os
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from tumorreg_wf.images import load_image, load_on_grid, save_like, voxel_spacing
from tumorreg_wf.measures import (
    find_agreement,
    find_brain_notes,
    find_notes,
    find_place_notes,
    measure_regions,
    measure_tumor,
    read_lut,
)

#: BIDS index of the tumour; GM, WM and CSF are 1, 2 and 3.
LESION = 7

#: Look-up table of the tissue segmentations.
TISSUE_LUT = Path(str(files('tumorreg_wf') / 'data' / 'tissues.tsv'))


def complete_maps(maps: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Let tissue maps (3, X, Y, Z) of GM, WM and CSF sum to 1 in the brain, and to 0 elsewhere.

    Brain that the warped atlas does not reach lies at its rim: fluid.
    """
    maps = np.clip(maps, 0, None) * brain
    maps[2][brain & (maps.sum(0) < 0.05)] = 1
    return maps / np.where(brain, maps.sum(0), 1)


def label_tissues(
    probabilities: np.ndarray, brain: np.ndarray, tumor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label each voxel with its likeliest tissue.

    Parameters
    ----------
    probabilities : (3, X, Y, Z), GM, WM, CSF in patient space.
    brain, tumor : boolean (X, Y, Z).

    Returns
    -------
    dseg : int16, BIDS indices, the tumour labelled 7 (Lesion).
    healthy : int16, the same as if there were no tumour.
    probabilities : float32 (3, X, Y, Z); sum to 1 in the brain outside the tumour, else 0.
    """
    probabilities = complete_maps(probabilities, brain)
    healthy = np.where(brain, probabilities.argmax(0) + 1, 0).astype(np.int16)
    dseg = np.where(tumor, LESION, healthy).astype(np.int16)
    return dseg, healthy, (probabilities * ~tumor).astype(np.float32)


def tissues_of_run(
    brain: np.ndarray, hole: np.ndarray, own: np.ndarray, warped: np.ndarray
) -> np.ndarray:
    """Tissues of a brain; under the tumour by the atlas alone.

    The atlas says more of what was there than a tumour, or made-up tissue, does.

    Parameters
    ----------
    brain, hole : boolean (X, Y, Z); the hole is the dilated tumour.
    own, warped : (3, X, Y, Z), maps of GM, WM and CSF: found in the T1w, carried from the atlas.

    Returns
    -------
    probabilities : float32 (3, X, Y, Z), sum to 1 in the brain; 0 elsewhere.
    """
    both = np.where(hole, complete_maps(warped, brain), complete_maps(own, brain))
    return both.astype(np.float32)


class _CombineTissuesInputSpec(BaseInterfaceInputSpec):
    brain_mask = File(exists=True, mandatory=True, desc='brain mask (X, Y, Z)')
    in_mask = File(exists=True, mandatory=True, desc='dilated tumour on the same grid')
    tissue_maps = traits.List(
        File(exists=True), minlen=3, maxlen=3, mandatory=True, desc='GM, WM, CSF maps of the T1w'
    )
    atlas_maps = traits.List(
        File(exists=True), minlen=3, maxlen=3, mandatory=True, desc='warped GM, WM, CSF maps'
    )


class _CombineTissuesOutputSpec(TraitedSpec):
    out_files = traits.List(File(exists=True), desc='GM, WM, CSF probabilities; sum to 1 in brain')


class CombineTissues(SimpleInterface):
    """Tissues found in a T1w; under the tumour those of the atlas."""

    input_spec = _CombineTissuesInputSpec
    output_spec = _CombineTissuesOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.brain_mask)
        brain, hole = (
            np.asanyarray(one.dataobj) > 0
            for one in (image, load_on_grid(self.inputs.in_mask, image))
        )
        own, warped = (
            np.stack([load_on_grid(path, image).get_fdata(dtype=np.float32) for path in paths])
            for paths in (self.inputs.tissue_maps, self.inputs.atlas_maps)
        )
        probabilities = tissues_of_run(brain, hole, own, warped)
        self._results['out_files'] = [
            save_like(data, image, os.path.join(runtime.cwd, f'{name}.nii.gz'))
            for name, data in zip(('gm', 'wm', 'csf'), probabilities, strict=True)
        ]
        return runtime


class _LabelTissuesInputSpec(BaseInterfaceInputSpec):
    in_files = traits.List(
        File(exists=True), minlen=3, maxlen=3, mandatory=True, desc='GM, WM, CSF maps'
    )
    brain_mask = File(exists=True, mandatory=True, desc='brain mask on the same grid')
    tumor_mask = File(exists=True, mandatory=True, desc='tumour mask on the same grid')


class _LabelTissuesOutputSpec(TraitedSpec):
    out_dseg = File(exists=True, desc='1 GM, 2 WM, 3 CSF, 7 Lesion, 0 elsewhere')
    out_healthy_dseg = File(exists=True, desc='1 GM, 2 WM, 3 CSF as if without tumour')
    out_gm = File(exists=True, desc='GM probability; 0 in the tumour')
    out_wm = File(exists=True, desc='WM probability; 0 in the tumour')
    out_lut = File(exists=True, desc='BIDS look-up table of both segmentations')
    out_csf = File(exists=True, desc='CSF probability; 0 in the tumour')


class LabelTissues(SimpleInterface):
    """Tissues from maps of their probability, with the tumour as Lesion and without."""

    input_spec = _LabelTissuesInputSpec
    output_spec = _LabelTissuesOutputSpec

    def _run_interface(self, runtime):
        first = load_image(self.inputs.in_files[0])
        probabilities = np.stack(
            [load_on_grid(p, first).get_fdata(dtype=np.float32) for p in self.inputs.in_files]
        )
        brain, tumor = (
            np.asanyarray(load_on_grid(path, first).dataobj) > 0
            for path in (self.inputs.brain_mask, self.inputs.tumor_mask)
        )
        dseg, healthy, maps = label_tissues(probabilities, brain, tumor)

        def save(data, name):
            return save_like(data, first, os.path.join(runtime.cwd, f'{name}.nii.gz'))

        self._results['out_dseg'] = save(dseg, 'dseg')
        self._results['out_healthy_dseg'] = save(healthy, 'healthy')
        self._results['out_lut'] = shutil.copy(TISSUE_LUT, runtime.cwd)
        for name, data in zip(('gm', 'wm', 'csf'), maps, strict=True):
            self._results[f'out_{name}'] = save(data, name)
        return runtime


class _TumorTablesInputSpec(BaseInterfaceInputSpec):
    tumor_mask = File(exists=True, mandatory=True, desc='tumour mask in patient space')
    std_tumor_mask = File(exists=True, mandatory=True, desc='tumour mask in template space')
    t1w = File(exists=True, mandatory=True, desc='bias-corrected T1w, the tumour still there')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask in patient space')
    tissues = File(exists=True, mandatory=True, desc='1 GM, 2 WM, 3 CSF as if without tumour')
    atlas_tissues = File(exists=True, mandatory=True, desc='the same as the warped atlas says')
    dilated_mask = File(exists=True, mandatory=True, desc='what was replaced')
    atlas = File(exists=True, mandatory=True, desc='atlas labels in patient space')
    atlas_lut = File(exists=True, mandatory=True, desc='BIDS look-up table: index, name, ...')
    template_name = traits.Str(mandatory=True, desc='name of the template, for column names')
    notes = traits.List(traits.Str, usedefault=True, desc='what is to be said of the images')


class _TumorTablesOutputSpec(TraitedSpec):
    out_regions = File(exists=True, desc='TSV, a row per region')
    out_tumor = File(exists=True, desc='TSV, one row')
    out_lut = File(exists=True, desc='the look-up table, as given')
    notes = traits.List(traits.Str, desc='what is to be said of images and tumour')


class TumorTables(SimpleInterface):
    """Tables of the tumour and of the regions around it."""

    input_spec = _TumorTablesInputSpec
    output_spec = _TumorTablesOutputSpec

    def _run_interface(self, runtime):
        image = load_image(self.inputs.tumor_mask)
        tumor = np.asanyarray(image.dataobj) > 0
        std_image = load_image(self.inputs.std_tumor_mask)
        std_tumor = np.asanyarray(std_image.dataobj) > 0
        labels, brain, tissues, atlas_tissues, dilated, t1w = (
            np.asanyarray(load_on_grid(path, image).dataobj)
            for path in (
                self.inputs.atlas,
                self.inputs.brain_mask,
                self.inputs.tissues,
                self.inputs.atlas_tissues,
                self.inputs.dilated_mask,
                self.inputs.t1w,
            )
        )
        regions = measure_regions(
            # what of the warped atlas lies beyond the brain is no part of it
            np.where((brain > 0) | tumor, labels, 0).astype(int),
            tumor,
            voxel_spacing(image),
            read_lut(self.inputs.atlas_lut),
            find_agreement(tissues, atlas_tissues, (brain > 0) & (dilated == 0)),
        )
        summary = measure_tumor(
            tumor,
            image.affine,
            std_tumor,
            std_image.affine,
            self.inputs.template_name,
        )
        summary['n_regions'] = int((regions['tumor_mm3'] > 0).sum())
        for field, table in (('regions', regions), ('tumor', pd.DataFrame([summary]))):
            path = os.path.join(runtime.cwd, f'{field}.tsv')
            table.to_csv(
                path,
                sep='\t',
                index=False,
                na_rep='n/a',
                float_format='%.6g',
                quoting=csv.QUOTE_NONE,
            )
            self._results[f'out_{field}'] = path
        self._results['out_lut'] = shutil.copy(
            self.inputs.atlas_lut, os.path.join(runtime.cwd, 'out_lut.tsv')
        )
        self._results['notes'] = [
            *self.inputs.notes,
            *find_brain_notes(brain > 0, voxel_spacing(image)),
            *find_notes(tumor, dilated > 0, brain > 0, tissues, t1w, voxel_spacing(image)),
            *find_place_notes(std_tumor, std_image.affine, regions),
        ]
        return runtime
