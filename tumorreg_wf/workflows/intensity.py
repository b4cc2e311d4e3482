"""Histogram matching and z-scores."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.images import NormalizeIntensity


def init_intensity_wf(*, has_flair: bool = True, name: str = 'intensity_wf') -> Workflow:
    """Bring grey values to the scale the segmentation network was trained on.

    Parameters
    ----------
    has_flair : whether there is a FLAIR.
    name : name of the workflow.

    Inputs
    ------
    t1w, flair, brain_mask
        On the grid of the T1w.

    Outputs
    -------
    t1w, flair
        Matched to a reference histogram; mean 0, standard deviation 1 in the brain, 0 outside.
    notes
        What the reader of the report should know of the FLAIR.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        'Their histograms were matched to a reference [@nyul] [@nyul2000] and z-scored within '
        'the brain. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'flair', 'brain_mask']), name='inputnode'
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'flair', 'notes']), name='outputnode'
    )
    outputnode.inputs.notes = []
    modalities = {'t1w': 'T1w', 'flair': 'FLAIR'} if has_flair else {'t1w': 'T1w'}
    for image, modality in modalities.items():
        normalize = pe.Node(
            NormalizeIntensity(modality=modality), name=f'normalize_{image}', mem_gb=0.7
        )
        workflow.connect([
            (inputnode, normalize, [(image, 'in_file'), ('brain_mask', 'in_mask')]),
            (normalize, outputnode, [('out_file', image)]),
        ])  # fmt: skip
    if has_flair:
        workflow.connect([(normalize, outputnode, [('notes', 'notes')])])
    return workflow
