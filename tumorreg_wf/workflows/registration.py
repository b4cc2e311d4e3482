"""Stage 8: the template registered to the recovered T1w."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.ants import Registration
from tumorreg_wf.interfaces.images import CropToMask
from tumorreg_wf.workflows.ants import ants_settings, seed_node


def init_registration_wf(
    *,
    settings: str = 'syn',
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = 'registration_wf',
) -> Workflow:
    """Register a skull-stripped template to a skull-stripped T1w, affine and SyN.

    The patient's image is fixed and the template moves, so that labels arrive in patient space.

    Parameters
    ----------
    settings : ``'syn'``, or ``'syn_sloppy'`` for trying things out.
    omp_nthreads : threads of ANTs.
    random_seed : of the metric's sampling; None leaves it to ANTs.
    name : name of the workflow.

    Inputs
    ------
    t1w, brain_mask
        Recovered T1w and its brain mask.
    template
        Skull-stripped T1w of the template.

    Outputs
    -------
    std2anat_xfm
        Composite transform (.h5) that brings template images to the T1w.
    anat2std_xfm
        Its inverse.
    """
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        'The template was registered to the recovered T1w image with ANTs '
        '(affine, then SyN [@syn]), patient image fixed. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'brain_mask', 'template']), name='inputnode'
    )
    outputnode = pe.Node(
        niu.IdentityInterface(fields=['std2anat_xfm', 'anat2std_xfm']), name='outputnode'
    )
    crop_t1w = pe.Node(CropToMask(), name='crop_t1w', mem_gb=0.5)
    register = pe.Node(
        Registration(num_threads=omp_nthreads, **ants_settings(settings)),
        name='register',
        n_procs=omp_nthreads,
        mem_gb=3,
    )
    seed_node(register, random_seed)
    workflow.connect([
        (inputnode, crop_t1w, [('t1w', 'in_file'), ('brain_mask', 'in_mask')]),
        (crop_t1w, register, [('out_file', 'fixed_image')]),
        (inputnode, register, [('template', 'moving_image')]),
        (register, outputnode, [
            ('composite_transform', 'std2anat_xfm'),
            ('inverse_composite_transform', 'anat2std_xfm'),
        ]),
    ])  # fmt: skip
    return workflow
