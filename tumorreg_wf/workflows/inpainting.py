"""Dilation of the tumour, recovery of normal tissue."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.defaults import DILATION
from tumorreg_wf.interfaces.images import DilateMask
from tumorreg_wf.interfaces.torch import InpaintTumor
from tumorreg_wf.weights import Weights, find_weights
from tumorreg_wf.workflows.networks import network_node


def init_inpainting_wf(
    *,
    dilation: float = DILATION,
    weights: Weights | None = None,
    device: str = 'cpu',
    omp_nthreads: int = 1,
    name: str = 'inpainting_wf',
) -> Workflow:
    """Replace a tumour by plausible normal tissue.

    The tissue is made up: it helps software that expects a healthy brain, it is no measurement,
    and it does not undo mass effect.

    Parameters
    ----------
    dilation : distance to grow the tumour mask before filling, mm.
    weights : from :func:`tumorreg_wf.weights.find_weights`; None for the packaged ones.
    device : torch device.
    omp_nthreads : CPU threads of torch.
    name : name of the workflow.

    Inputs
    ------
    t1w
        Bias-corrected T1w; any orientation and voxel size.
    tumor_mask, brain_mask
        On the grid of the T1w.

    Outputs
    -------
    t1w
        The tumour replaced; equal to the input outside ``dilated_mask``, bit for bit.
    dilated_mask
        What was replaced.
    """
    weights = weights or find_weights('inpainting')
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        f'The tumour mask was dilated by {dilation:g} mm and what it covers was replaced by '
        'plausible normal tissue with a network of partial convolutions [@pconv] (weights '
        f'{weights.name}, sha256 {weights.sha256[:12]}); this does not undo mass effect. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'tumor_mask', 'brain_mask']), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=['t1w', 'dilated_mask']), name='outputnode')
    dilate = pe.Node(DilateMask(radius=dilation), name='dilate', mem_gb=0.7)
    inpaint = network_node(
        InpaintTumor, weights, device=device, omp_nthreads=omp_nthreads, name='inpaint'
    )
    workflow.connect([
        (inputnode, dilate, [('tumor_mask', 'in_mask')]),
        (inputnode, inpaint, [('t1w', 'in_file'), ('brain_mask', 'brain_mask')]),
        (dilate, inpaint, [('out_mask', 'in_mask')]),
        (dilate, outputnode, [('out_mask', 'dilated_mask')]),
        (inpaint, outputnode, [('out_file', 't1w')]),
    ])  # fmt: skip
    return workflow
