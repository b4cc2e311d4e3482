"""Images fit for the workflow, their axes R, A, S or as near as their voxels allow."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.images import Conform, ConformMask, StrippedBrainMask
from tumorreg_wf.interfaces.torch import ExtractBrain
from tumorreg_wf.weights import Weights, find_weights
from tumorreg_wf.workflows.networks import network_node


def init_conform_wf(
    *,
    has_flair: bool = True,
    has_brain_mask: bool = False,
    has_tumor_mask: bool = False,
    skull_strip: str = 'auto',
    weights: Weights | None = None,
    device: str = 'cpu',
    omp_nthreads: int = 1,
    name: str = 'conform_wf',
) -> Workflow:
    """Check the images and masks of one session and find the brain.

    Parameters
    ----------
    has_flair : whether there is a FLAIR.
    has_brain_mask : whether a brain mask is given; it counts, whatever the T1w shows.
    has_tumor_mask : whether a tumour mask is given; where the network finds the brain, the tumour
        is part of it.
    skull_strip : ``'auto'`` refuses a whole head, ``'skip'`` takes the T1w as stripped,
        ``'force'`` finds the brain with a network.
    weights : of that network, from :func:`tumorreg_wf.weights.find_weights`; None for the
        packaged ones.
    device : torch device.
    omp_nthreads : CPU threads of torch.
    name : name of the workflow.

    Inputs
    ------
    t1w, flair
        NIfTI files; any orientation, voxel size and number type.
    brain_mask
        Only where ``has_brain_mask``; any grid.
    tumor_mask
        Only where ``has_tumor_mask``; any grid.

    Outputs
    -------
    t1w, flair
        float32, finite, 3-D, each on its own grid, axes as near to R, A, S as that allows.
    brain_mask, tumor_mask
        On the grid of this T1w.
    notes
        Oddities of the images, for the reader of the report.
    """
    workflow = Workflow(name=name)
    fields = ['t1w', 'flair', 'brain_mask', 'tumor_mask']
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(fields=[*fields, 'notes']), name='outputnode')
    merge_notes = pe.Node(niu.Merge(3), name='merge_notes', run_without_submitting=True)
    conform_t1w = pe.Node(Conform(), name='conform_t1w', mem_gb=0.5)
    workflow.connect([
        (inputnode, conform_t1w, [('t1w', 'in_file')]),
        (conform_t1w, outputnode, [('out_file', 't1w')]),
        (conform_t1w, merge_notes, [('notes', 'in1')]),
        (merge_notes, outputnode, [('out', 'notes')]),
    ])  # fmt: skip

    if has_flair:
        conform_flair = pe.Node(Conform(), name='conform_flair', mem_gb=0.5)
        workflow.connect([
            (inputnode, conform_flair, [('flair', 'in_file')]),
            (conform_t1w, conform_flair, [('out_file', 'near')]),
            (conform_flair, outputnode, [('out_file', 'flair')]),
            (conform_flair, merge_notes, [('notes', 'in2')]),
        ])  # fmt: skip

    def conform_mask(name: str) -> pe.Node:
        node = pe.Node(ConformMask(), name=name, mem_gb=0.5)
        workflow.connect([
            (inputnode, node, [(name, 'in_file')]),
            (conform_t1w, node, [('out_file', 'reference')]),
        ])  # fmt: skip
        return node

    if has_tumor_mask:
        tumor_mask = conform_mask('tumor_mask')
        workflow.connect([
            (tumor_mask, outputnode, [('out_mask', 'tumor_mask')]),
            (tumor_mask, merge_notes, [('notes', 'in3')]),
        ])  # fmt: skip

    if has_brain_mask:
        brain_mask = conform_mask('brain_mask')
    elif skull_strip == 'force':
        weights = weights or find_weights('brain')
        workflow.__desc__ = (
            'The brain was extracted from the T1w image by a 3-D U-Net trained on simulated heads '
            f'with tumours (weights {weights.name}, sha256 {weights.sha256[:12]}). '
        )
        brain_mask = network_node(
            ExtractBrain, weights, device=device, omp_nthreads=omp_nthreads, name='brain_mask'
        )
        workflow.connect([(conform_t1w, brain_mask, [('out_file', 'in_file')])])
        if has_tumor_mask:
            workflow.__desc__ += 'The tumour was counted in as it was given. '
            workflow.connect([(tumor_mask, brain_mask, [('out_mask', 'in_tumor')])])
    else:
        brain_mask = pe.Node(
            StrippedBrainMask(skull_strip=skull_strip), name='brain_mask', mem_gb=0.5
        )
        workflow.connect([
            (inputnode, brain_mask, [('t1w', 'source_file')]),
            (conform_t1w, brain_mask, [('out_file', 'in_file')]),
        ])  # fmt: skip
    workflow.connect([(brain_mask, outputnode, [('out_mask', 'brain_mask')])])
    return workflow
