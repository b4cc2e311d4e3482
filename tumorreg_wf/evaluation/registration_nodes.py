"""Nodes of the comparison of registrations: the oracle's image, and the measures of all arms."""

from __future__ import annotations

import json
import os

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiPath,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.reliability import measure_reliability
from tumorreg_wf.evaluation.warps import apart, carry, read_warp
from tumorreg_wf.images import (
    bounding_box,
    dilate_mask,
    load_image,
    resample,
    same_grid,
    save_like,
    voxel_spacing,
)
from tumorreg_wf.interfaces.labels import complete_maps, label_tissues
from tumorreg_wf.measures import dice

#: Tissues by their BIDS index.
TISSUES = {'csf': 3, 'gm': 1, 'wm': 2}

#: Width of the shell around the dilated tumour, mm.
SHELL = 15.0


class _CorrectAlikeInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image to correct')
    before = File(exists=True, mandatory=True, desc='another, before its bias field was removed')
    after = File(exists=True, mandatory=True, desc='the same afterwards; all on one grid')


class _CorrectAlikeOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='float32 image, corrected')


class CorrectAlike(SimpleInterface):
    """Remove from an image the bias field that was removed from another.

    Where both are equal before, they are equal afterwards, bit for bit.
    """

    input_spec = _CorrectAlikeInputSpec
    output_spec = _CorrectAlikeOutputSpec

    def _run_interface(self, runtime):
        image, before, after = (
            nb.as_closest_canonical(load_image(getattr(self.inputs, name)))
            for name in ('in_file', 'before', 'after')
        )
        if not same_grid(image, before):
            raise TumorregError(
                f'{self.inputs.in_file}: the image without the tumour must be on the grid of the '
                'T1w with it.'
            )
        data, old, new = (one.get_fdata(dtype=np.float32) for one in (image, before, after))
        gain = np.divide(new, old, out=np.ones_like(old), where=old > 0)
        corrected = np.where(data == old, new, data * gain)
        out_file = os.path.join(runtime.cwd, 'corrected.nii.gz')
        self._results['out_file'] = save_like(corrected, image, out_file)
        return runtime


class _MeasureArmsInputSpec(BaseInterfaceInputSpec):
    t1w = File(exists=True, mandatory=True, desc='T1w without bias field, tumour as it is')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask on its grid')
    tumor_mask = File(exists=True, mandatory=True, desc='tumour mask on its grid')
    dilated_mask = File(exists=True, mandatory=True, desc='dilated tumour mask on its grid')
    tissue_maps = traits.List(
        File(exists=True), minlen=3, maxlen=3, mandatory=True, desc='GM, WM, CSF maps of the T1w'
    )
    tissues = File(exists=True, desc='true tissues, any grid; default: what was found in the T1w')
    atlas = File(exists=True, desc="template's atlas, whose regions are measured in one arm ...")
    atlas_arm = traits.Str(desc='... this one')
    maps = traits.List(
        File(exists=True), minlen=3, maxlen=3, mandatory=True, desc="template's GM, WM, CSF maps"
    )
    arms = traits.List(traits.Str, mandatory=True, desc='names of the arms')
    transforms = InputMultiPath(
        File(exists=True), mandatory=True, desc='composite transform template to T1w of each arm'
    )


class _MeasureArmsOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='JSON, a list of rows: one per arm and region')
    reference = File(exists=True, desc='tissues measured against: 1 GM, 2 WM, 3 CSF; cropped')
    labels = traits.List(File(exists=True), desc='warped tissues of each arm, on the same grid')
    regions = File(exists=True, desc='JSON, a list of rows: one per region of the atlas')


class MeasureArms(SimpleInterface):
    """Compare what registrations of one patient say, by regions of the brain.

    See :data:`tumorreg_wf.evaluation.registration.COLUMNS` for the rows.
    """

    input_spec = _MeasureArmsInputSpec
    output_spec = _MeasureArmsOutputSpec

    def _run_interface(self, runtime):
        t1w = load_image(self.inputs.t1w)
        brain, tumor, dilated = (
            np.asanyarray(load_image(path).dataobj) > 0
            for path in (self.inputs.brain_mask, self.inputs.tumor_mask, self.inputs.dilated_mask)
        )
        own = np.stack(
            [load_image(path).get_fdata(dtype=np.float32) for path in self.inputs.tissue_maps]
        )
        found = complete_maps(own, brain)
        if isdefined(self.inputs.tissues):
            image = resample(load_image(self.inputs.tissues), t1w, order=0)
            truth = np.rint(image.get_fdata()).astype(np.uint8)
        else:
            truth = np.where(brain & ~dilated, 1 + found.argmax(0), 0).astype(np.uint8)
        regions = find_regions(brain & (truth > 0), dilated, voxel_spacing(t1w))
        if not isdefined(self.inputs.tissues):
            del regions['inside']  # of a real patient nobody knows what was there

        # all that is measured lies in the brain
        box = bounding_box(brain, margin=2)
        grid = t1w.slicer[box]
        grid_file = save_like(t1w.get_fdata(dtype=np.float32)[box], grid, 'grid.nii')
        brain, tumor, dilated, truth = (one[box] for one in (brain, tumor, dilated, truth))
        spacing = voxel_spacing(grid)
        found = np.stack([one[box] for one in found])
        regions = {name: region[box] for name, region in regions.items()}
        self._results['reference'] = save_like(truth, grid, 'reference.nii.gz')
        origin = {
            'reference': 'labels' if isdefined(self.inputs.tissues) else 'found',
            'tumor_ml': float(tumor.sum() * voxel_spacing(t1w).prod() / 1000),
        }

        transforms = dict(zip(self.inputs.arms, self.inputs.transforms, strict=True))
        oracle = read_warp(transforms['oracle'], grid_file) if 'oracle' in transforms else None
        rows, label_files = [], []
        for arm, transform in transforms.items():
            maps = np.stack([carry(path, transform, grid_file) for path in self.inputs.maps])
            _, labels, priors = label_tissues(maps, brain, np.zeros_like(brain))
            label_files.append(save_like(labels.astype(np.uint8), grid, f'{arm}_dseg.nii.gz'))
            known = oracle if arm == 'oracle' else None
            shifts, jacobian = known or read_warp(transform, grid_file)
            distance = None if oracle is None else apart(shifts, oracle[0])
            segmented = None
            if isdefined(self.inputs.tissues):  # what was found cannot be judged by itself
                segmented = 1 + np.where(dilated, priors, found).argmax(0)
                if arm == self.inputs.atlas_arm:
                    atlas = carry(self.inputs.atlas, transform, grid_file, 'NearestNeighbor')
                    table = measure_reliability(
                        atlas.astype(int), tumor, dilated, brain, segmented, labels, truth,
                        distance, spacing,
                    )  # fmt: skip
                    self._results['regions'] = os.path.join(runtime.cwd, 'regions.json')
                    table.to_json(self._results['regions'], orient='records')
            for name, region in regions.items():
                row = measure_region(region, labels, segmented, truth, distance, jacobian)
                row['volume_ml'] = float(region.sum() * spacing.prod() / 1000)
                rows.append({**origin, 'arm': arm, 'region': name, **row})
        os.remove(grid_file)
        self._results['labels'] = label_files
        self._results['out_file'] = os.path.join(runtime.cwd, 'rows.json')
        with open(self._results['out_file'], 'w') as stream:
            json.dump(rows, stream, indent=1)
        return runtime


def find_regions(
    brain: np.ndarray, dilated: np.ndarray, spacing: np.ndarray
) -> dict[str, np.ndarray]:
    """Divide a brain by the dilated tumour.

    Parameters
    ----------
    brain, dilated : boolean (X, Y, Z).
    spacing : voxel size, mm.

    Returns
    -------
    regions : boolean (X, Y, Z): ``inside`` the dilated tumour, ``outside`` it, and the ``shell``;
        without a tumour the first and the last are empty.
    """
    outside = brain & ~dilated
    shell = outside & dilate_mask(dilated, spacing, SHELL)
    return {'inside': brain & dilated, 'outside': outside, 'shell': shell}


def measure_region(
    region: np.ndarray,
    labels: np.ndarray,
    segmented: np.ndarray | None,
    truth: np.ndarray,
    distance: np.ndarray | None,
    jacobian: np.ndarray,
) -> dict[str, float]:
    """Measure a registration in a region.

    Parameters
    ----------
    region : boolean (X, Y, Z).
    labels, segmented, truth : (X, Y, Z), tissues by :data:`TISSUES`: of the warped atlas, of
        ``dseg`` (or None), true.
    distance : (X, Y, Z), mm, from the oracle's warp; None where there is no oracle.
    jacobian : (X, Y, Z), determinant of the warp.

    Returns
    -------
    row : dice_* of each tissue, of the warped atlas, and dseg_*, as in a run; mean, median
        and 95th percentile of the distance, mm; part of the region that is folded. NaN where
        there is nothing to measure.
    """
    row = {}
    for kind, found in (('dice', labels), ('dseg', segmented)):
        for name, index in TISSUES.items():
            row[f'{kind}_{name}'] = (
                np.nan
                if found is None or not region.any()
                else dice(found[region] == index, truth[region] == index)
            )
    near = np.full(1, np.nan) if distance is None or not region.any() else distance[region]
    return {
        **row,
        'distance_mm': float(near.mean(dtype=float)),
        'distance_median_mm': float(np.median(near)),
        'distance_p95_mm': float(np.percentile(near, 95)),
        'fold_fraction': float((jacobian[region] <= 0).mean()) if region.any() else np.nan,
    }
