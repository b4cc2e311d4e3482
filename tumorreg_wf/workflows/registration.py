"""The template registered to the T1w, recovered or as it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.images import CropToMask, InvertMask
from tumorreg_wf.workflows.engines import (
    ENGINES,
    by_tissues,
    engine_of,
    registration_node,
    registration_settings,
)
from tumorreg_wf.workflows.tissues import MAPS


class Target(NamedTuple):
    """What the template is registered to.

    Attributes
    ----------
    recovered : the T1w with the tumour replaced, or as it is.
    masked : whether the metric leaves out the dilated tumour.
    """

    recovered: bool
    masked: bool


#: By the names that ``--registration-target`` knows.
TARGETS = {
    'recovered-masked': Target(recovered=True, masked=True),
    'recovered': Target(recovered=True, masked=False),
    'original': Target(recovered=False, masked=False),
    'masked': Target(recovered=False, masked=True),
}


def init_registration_wf(
    *,
    target: str = 'recovered',
    settings: str | dict = 'greedy',
    omp_nthreads: int = 1,
    random_seed: int | None = None,
    name: str = 'registration_wf',
) -> Workflow:
    """Register a skull-stripped template to a skull-stripped T1w, affine and deformable.

    The patient's image is fixed and the template moves, so that labels arrive in patient space.
    The affine transform is found by the T1w. The deformation is found by the maps of tissues, as
    by DARTEL (Ashburner 2007), or, where the settings say so, by the T1w.

    Parameters
    ----------
    target : name in :data:`TARGETS`: which T1w will come in, and whether the tumour is masked.
        ``tumorreg`` itself uses ``'original'`` where it goes by tissues.
    settings : engine and how it is used: ``'greedy'`` or ``'syn'``, with ``'_sloppy'`` for trying
        things out or ``'_precise'``, a JSON file, or what
        :func:`tumorreg_wf.workflows.engines.registration_settings` makes of these.
    omp_nthreads : threads.
    random_seed : of the metric's sampling; None leaves it to ANTs, and is 1 for greedy.
    name : name of the workflow.

    Inputs
    ------
    t1w, brain_mask
        T1w, recovered or as it is, and its brain mask.
    dilated_mask
        The dilated tumour; only where the target is masked.
    gm_map, wm_map, csf_map
        Probabilities of the tissues in the T1w; only where the deformation is found by them,
        which is what greedy does and SyN does not.
    template
        Skull-stripped T1w of the template.
    template_maps
        GM, WM and CSF of the template, where those of the T1w are needed.

    Outputs
    -------
    std2anat_xfm
        Composite transform (.h5) that brings template images to the T1w.
    anat2std_xfm
        Its inverse.
    """
    if target not in TARGETS:
        raise TumorregError(f'target {target!r}: there are {", ".join(TARGETS)}.')
    recovered, masked = TARGETS[target]
    workflow = Workflow(name=name)
    image = 'recovered T1w image' if recovered else 'T1w image'
    fields = ['t1w', 'brain_mask', 'dilated_mask', 'template']
    left_out = ''
    if masked:
        left_out = '; the dilated tumour was left out of the metric [@cfm]'
    named = ''
    if not isinstance(settings, dict):
        named = f' (settings "{Path(settings).stem}")'
        settings = registration_settings(settings)
    deformed = ''
    if by_tissues(settings):
        deformed = (
            ', the deformation found by their maps of grey matter, white matter and CSF [@dartel]'
        )
        fields += [*MAPS, 'template_maps']
    workflow.__desc__ = (
        f'The template was registered to the {image} with {ENGINES[engine_of(settings)]}'
        f'{named}, patient image fixed{deformed}{left_out}. '
    )
    inputnode = pe.Node(niu.IdentityInterface(fields=fields), name='inputnode')
    outputnode = pe.Node(
        niu.IdentityInterface(fields=['std2anat_xfm', 'anat2std_xfm']), name='outputnode'
    )
    crop_t1w = pe.Node(CropToMask(), name='crop_t1w', mem_gb=0.5)
    register = registration_node(
        settings, omp_nthreads=omp_nthreads, random_seed=random_seed, name='register'
    )
    workflow.connect([
        (inputnode, crop_t1w, [('t1w', 'in_file'), ('brain_mask', 'in_mask')]),
        (crop_t1w, register, [('out_file', 'fixed_image')]),
        (inputnode, register, [('template', 'moving_image')]),
        (register, outputnode, [
            ('composite_transform', 'std2anat_xfm'),
            ('inverse_composite_transform', 'anat2std_xfm'),
        ]),
    ])  # fmt: skip
    if by_tissues(settings):
        fixed_maps = pe.Node(niu.Merge(3), name='fixed_maps', run_without_submitting=True)
        for number, field in enumerate(MAPS, 1):
            crop = pe.Node(CropToMask(), name=f'crop_{field}', mem_gb=0.5)
            workflow.connect([
                (inputnode, crop, [(field, 'in_file'), ('brain_mask', 'in_mask')]),
                (crop, fixed_maps, [('out_file', f'in{number}')]),
            ])  # fmt: skip
        workflow.connect([
            (fixed_maps, register, [('out', 'fixed_maps')]),
            (inputnode, register, [('template_maps', 'moving_maps')]),
        ])  # fmt: skip
    if masked:
        # the background stays in the metric, as without a mask: only the tumour is left out
        metric_mask = pe.Node(InvertMask(), name='metric_mask', mem_gb=0.5)
        workflow.connect([
            (inputnode, metric_mask, [('dilated_mask', 'in_mask')]),
            (metric_mask, register, [('out_mask', 'fixed_image_mask')]),
        ])  # fmt: skip
    return workflow
