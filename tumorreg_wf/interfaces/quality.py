"""A patient's measures of quality, as a table."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import load_image, same_grid
from tumorreg_wf.quality import measure_quality


class _MeasureQualityInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='T1w with the tumour replaced')
    template = File(exists=True, mandatory=True, desc="the template's T1w warped onto it")
    jacobian = File(exists=True, mandatory=True, desc='log-Jacobian determinant of the warp')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask (0, 1)')
    in_mask = File(exists=True, mandatory=True, desc='mask (0, 1) of what was replaced')


class _MeasureQualityOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='TSV, one row')


class MeasureQuality(SimpleInterface):
    """Measure how well a patient was processed; all images lie on one grid."""

    input_spec = _MeasureQualityInputSpec
    output_spec = _MeasureQualityOutputSpec

    def _run_interface(self, runtime):
        first = load_image(self.inputs.in_file)

        def read(path: str) -> np.ndarray:
            image = load_image(path)
            if not same_grid(image, first):
                raise TumorregError(
                    f'{path}: its shape or affine differs from that of {self.inputs.in_file}.'
                )
            return np.asanyarray(image.dataobj)

        row = measure_quality(
            read(self.inputs.in_file),
            read(self.inputs.template),
            read(self.inputs.jacobian),
            read(self.inputs.brain_mask) > 0,
            read(self.inputs.in_mask) > 0,
        )
        path = os.path.join(runtime.cwd, 'quality.tsv')
        table = pd.DataFrame([row])
        table.to_csv(path, sep='\t', index=False, na_rep='n/a', float_format='%.6g')
        self._results['out_file'] = path
        return runtime
