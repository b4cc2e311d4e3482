"""The FLAIR on the grid of the T1w."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.ants import ApplyTransforms, Registration
from tumorreg_wf.workflows.ants import ants_settings, seed_node


def init_coregistration_wf(
    *, omp_nthreads: int = 1, random_seed: int | None = None, name: str = 'coregistration_wf'
) -> Workflow:
    """Register the FLAIR to the T1w, rigidly, starting from where their headers place them.

    Parameters
    ----------
    omp_nthreads : threads of ANTs.
    random_seed : of the metric's sampling; None leaves it to ANTs.
    name : name of the workflow.

    Inputs
    ------
    t1w, flair
        Images of one session.

    Outputs
    -------
    flair
        On the grid of the T1w.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = 'The FLAIR image was registered to the T1w image rigidly with ANTs. '
    inputnode = pe.Node(niu.IdentityInterface(fields=['t1w', 'flair']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(fields=['flair']), name='outputnode')
    register = pe.Node(
        Registration(num_threads=omp_nthreads, **ants_settings('rigid')),
        name='register',
        n_procs=omp_nthreads,
        mem_gb=1.5,
    )
    seed_node(register, random_seed)
    resample = pe.Node(
        ApplyTransforms(dimension=3, interpolation='Linear', float=True),
        name='resample',
        mem_gb=1,
    )
    workflow.connect([
        (inputnode, register, [('t1w', 'fixed_image'), ('flair', 'moving_image')]),
        (inputnode, resample, [('t1w', 'reference_image'), ('flair', 'input_image')]),
        (register, resample, [('composite_transform', 'transforms')]),
        (resample, outputnode, [('output_image', 'flair')]),
    ])  # fmt: skip
    return workflow
