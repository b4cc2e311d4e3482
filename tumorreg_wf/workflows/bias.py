"""Bias-field correction."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.ants import N4BiasFieldCorrection
from tumorreg_wf.interfaces.images import KeepScale
from tumorreg_wf.workflows.ants import ants_settings


def init_bias_correction_wf(
    *,
    has_flair: bool = True,
    whole_head: bool = False,
    omp_nthreads: int = 1,
    name: str = 'bias_correction_wf',
) -> Workflow:
    """Correct the bias field of T1w and FLAIR with N4.

    Parameters
    ----------
    has_flair : whether there is a FLAIR.
    whole_head : whether more than the brain is shown: all of it is corrected then, by the field
        found in the brain.
    omp_nthreads : threads of ANTs.
    name : name of the workflow.

    Inputs
    ------
    t1w, flair, brain_mask
        On the grid of the T1w.

    Outputs
    -------
    t1w, flair
        Corrected, on the same grid; the median in the brain is what it was.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        'Images were corrected for intensity non-uniformity with N4 [@n4] within the brain. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'flair', 'brain_mask']), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=['t1w', 'flair']), name='outputnode')
    # ANTs corrects within a mask alone, which would leave a step at the edge of the brain
    where = 'weight_image' if whole_head else 'mask_image'
    for image in ['t1w', 'flair'] if has_flair else ['t1w']:
        n4 = pe.Node(
            N4BiasFieldCorrection(num_threads=omp_nthreads, **ants_settings(f'n4_{image}')),
            name=f'n4_{image}',
            n_procs=omp_nthreads,
            mem_gb=1,
        )
        scale = pe.Node(KeepScale(), name=f'scale_{image}', mem_gb=0.7)
        workflow.connect([
            (inputnode, n4, [(image, 'input_image'), ('brain_mask', where)]),
            (inputnode, scale, [(image, 'reference'), ('brain_mask', 'in_mask')]),
            (n4, scale, [('output_image', 'in_file')]),
            (scale, outputnode, [('out_file', image)]),
        ])  # fmt: skip
    return workflow
