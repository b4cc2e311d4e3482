"""The tumour."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.torch import SegmentTumor
from tumorreg_wf.weights import Weights, find_weights
from tumorreg_wf.workflows.networks import network_node


def init_segmentation_wf(
    *,
    has_flair: bool = True,
    weights: Weights | None = None,
    device: str = 'cpu',
    omp_nthreads: int = 1,
    name: str = 'segmentation_wf',
) -> Workflow:
    """Find the tumour with a U-Net.

    Parameters
    ----------
    has_flair : whether there is a FLAIR.
    weights : from :func:`tumorreg_wf.weights.find_weights`; None for the packaged ones.
    device : torch device.
    omp_nthreads : CPU threads of torch.
    name : name of the workflow.

    Inputs
    ------
    t1w, flair
        As :func:`~tumorreg_wf.workflows.intensity.init_intensity_wf` gives them.
    brain_mask
        On the same grid.

    Outputs
    -------
    tumor_probseg
        Probability in [0, 1].
    tumor_mask
        1 in the tumour, 0 elsewhere.
    """
    weights = weights or find_weights('segmentation')
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        f'The tumour was segmented by {_network(weights)} (weights {weights.name}, '
        f'sha256 {weights.sha256[:12]}). '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'flair', 'brain_mask']), name='inputnode'
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=['tumor_probseg', 'tumor_mask']), name='outputnode'
    )
    segment = network_node(
        SegmentTumor, weights, device=device, omp_nthreads=omp_nthreads, name='segment'
    )
    workflow.connect([
        (inputnode, segment, [('t1w', 'in_file'), ('brain_mask', 'brain_mask')]),
        (segment, outputnode, [('out_probseg', 'tumor_probseg'), ('out_mask', 'tumor_mask')]),
    ])  # fmt: skip
    if has_flair:
        workflow.connect([(inputnode, segment, [('flair', 'in_flair')])])
    return workflow


def _network(weights: Weights) -> str:
    """Say what kind of network weights are of."""
    members = weights.config.get('members', ())
    kinds = {one['network'] for one in members} or {weights.architecture}
    sizes = {'3-D ' if kind == 'MirrorUNet' else '2-D ' for kind in kinds}
    size = '' if len(sizes) > 1 else sizes.pop()
    if members:
        return f'the mean of {len(members)} {size}U-Nets [@unet]'
    return f'a {size}U-Net [@unet]'
