"""The arms of a comparison of registrations, and the workflow that runs them for a patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.defaults import DEFAULT_TARGETS, DILATION
from tumorreg_wf.evaluation.registration_nodes import CorrectAlike, MeasureArms
from tumorreg_wf.interfaces.images import DilateMask
from tumorreg_wf.template import Template
from tumorreg_wf.weights import Weights
from tumorreg_wf.workflows.base import along, workflow_name
from tumorreg_wf.workflows.bias import init_bias_correction_wf
from tumorreg_wf.workflows.conform import init_conform_wf
from tumorreg_wf.workflows.engines import (
    by_tissues,
    engine_of,
    registration_settings,
    split_stages,
)
from tumorreg_wf.workflows.inpainting import init_inpainting_wf
from tumorreg_wf.workflows.registration import TARGETS, init_registration_wf
from tumorreg_wf.workflows.tissues import MAPS, init_tissues_wf

#: The arm that knows what no patient shows: the same brain without the tumour.
ORACLE = 'oracle'

#: Named as their targets; the oracle's image, which has no tumour to replace, is taken as it is.
ARMS = ('original', 'masked', 'recovered', 'recovered-masked', ORACLE)


class Case(NamedTuple):
    """A patient with a tumour mask and what is known besides.

    Attributes
    ----------
    anatomy : T1w and tumour mask.
    tumor_free : the same T1w without the tumour; None for real patients.
    tissues : true tissues, also under the tumour: 1 GM, 2 WM, 3 CSF; None where not known.
    """

    anatomy: Anatomy
    tumor_free: Path | None
    tissues: Path | None

    def arms(self, wanted: Sequence[str]) -> list[str]:
        """Those of the wanted arms that this patient can have, in the order of :data:`ARMS`."""
        return [
            name
            for name in ARMS
            if name in wanted and (name != ORACLE or self.tumor_free is not None)
        ]


def init_case_wf(
    case: Case,
    *,
    arms: Sequence[str],
    settings: str,
    shared_affine: bool,
    template: Template,
    weights: Mapping[str, Weights],
    device: str,
    omp_nthreads: int,
    random_seed: int,
) -> pe.Workflow:
    """Build the workflow of a patient: every arm by the stages of ``tumorreg``, and measures.

    The bias field is that of the T1w with the tumour in every arm, the oracle's too.

    Parameters
    ----------
    case : the patient.
    arms : of :data:`ARMS`; an oracle is left out where there is no tumour-free image.
    settings : as of :func:`tumorreg_wf.workflows.engines.registration_settings`; others work in
        other folders.
    shared_affine : whether rigid and affine transform are those of the masked arm in all.
    template, device, omp_nthreads, random_seed : as of ``tumorreg``.
    weights : of ``'inpainting'`` and ``'tissues'``.
    """
    arms = case.arms(arms)
    workflow = pe.Workflow(name=workflow_name(case.anatomy))
    conform_wf = init_conform_wf(has_flair=False, has_tumor_mask=True)
    conform_wf.inputs.inputnode.t1w = str(case.anatomy.t1w)
    conform_wf.inputs.inputnode.tumor_mask = str(case.anatomy.tumor_mask)
    bias_correction_wf = init_bias_correction_wf(has_flair=False, omp_nthreads=omp_nthreads)
    dilate = pe.Node(DilateMask(radius=DILATION), name='dilate', mem_gb=0.7)
    workflow.connect([
        (conform_wf, bias_correction_wf, [
            ('outputnode.t1w', 'inputnode.t1w'), ('outputnode.brain_mask', 'inputnode.brain_mask'),
        ]),
        (conform_wf, dilate, [('outputnode.tumor_mask', 'in_mask')]),
    ])  # fmt: skip

    # node and field of the image each kind of arm registers to
    images = {'original': (bias_correction_wf, 'outputnode.t1w')}
    # a run's dseg goes by the image it registers to; outside the tumour it is that of all arms
    whole = registration_settings(settings)
    default = DEFAULT_TARGETS[engine_of(whole)]
    measured = _kind(default)
    kinds = {measured, *map(_kind, arms)}
    if 'recovered' in kinds:
        inpainting_wf = init_inpainting_wf(
            dilation=DILATION,
            weights=weights['inpainting'],
            device=device,
            omp_nthreads=omp_nthreads,
        )
        images['recovered'] = (inpainting_wf, 'outputnode.t1w')
        workflow.connect([
            (bias_correction_wf, inpainting_wf, along('t1w')),
            (conform_wf, inpainting_wf, along('brain_mask', 'tumor_mask')),
        ])  # fmt: skip
    if ORACLE in kinds:
        tumor_free = pe.Node(CorrectAlike(in_file=str(case.tumor_free)), name='tumor_free')
        images[ORACLE] = (tumor_free, 'out_file')
        workflow.connect([
            (conform_wf, tumor_free, [('outputnode.t1w', 'before')]),
            (bias_correction_wf, tumor_free, [('outputnode.t1w', 'after')]),
        ])  # fmt: skip

    linear, deforming = split_stages(whole)
    tissues_wfs = {}
    for kind in sorted(kinds) if by_tissues(whole) else [measured]:
        tissues_wfs[kind] = init_tissues_wf(
            weights=weights['tissues'],
            device=device,
            omp_nthreads=omp_nthreads,
            name=f'{kind}_tissues_wf',
        )
        node, field = images[kind]
        workflow.connect([
            (node, tissues_wfs[kind], [(field, 'inputnode.t1w')]),
            (conform_wf, tissues_wfs[kind], along('brain_mask')),
        ])  # fmt: skip
        if kind != ORACLE:
            workflow.connect([
                (dilate, tissues_wfs[kind], [('out_mask', 'inputnode.dilated_mask')]),
            ])  # fmt: skip

    def register(arm: str, stages: dict) -> pe.Workflow:
        registration_wf = init_registration_wf(
            target='original' if arm == ORACLE else arm,
            settings=stages,
            omp_nthreads=omp_nthreads,
            random_seed=random_seed,
            name=stage_name('affine' if stages is linear else arm, settings, shared_affine),
        )
        registration_wf.inputs.inputnode.template = str(template.t1w)
        node, field = images[_kind(arm)]
        workflow.connect([
            (node, registration_wf, [(field, 'inputnode.t1w')]),
            (conform_wf, registration_wf, [('outputnode.brain_mask', 'inputnode.brain_mask')]),
            (dilate, registration_wf, [('out_mask', 'inputnode.dilated_mask')]),
        ])  # fmt: skip
        if by_tissues(stages):
            registration_wf.inputs.inputnode.template_maps = list(map(str, template.tissues))
            workflow.connect([(tissues_wfs[_kind(arm)], registration_wf, along(*MAPS))])
        return registration_wf

    affine_wf = register('masked', linear) if shared_affine else None
    merge = pe.Node(
        niu.Merge(len(arms)),
        name=stage_name('merge', settings, shared_affine),
        run_without_submitting=True,
    )
    for number, arm in enumerate(arms, 1):
        registration_wf = register(arm, deforming if shared_affine else whole)
        if affine_wf is not None:
            start = [('outputnode.std2anat_xfm', 'register.initial_moving_transform')]
            workflow.connect([(affine_wf, registration_wf, start)])
        workflow.connect([(registration_wf, merge, [('outputnode.std2anat_xfm', f'in{number}')])])

    measure = pe.Node(
        MeasureArms(arms=arms, maps=[str(path) for path in template.tissues]),
        name=stage_name('measure', settings, shared_affine),
        mem_gb=2,
    )
    if case.tissues is not None:
        measure.inputs.tissues = str(case.tissues)
    maps = pe.Node(niu.Merge(3), name='maps', run_without_submitting=True)
    workflow.connect([
        (tissues_wfs[measured], maps, [
            (f'outputnode.{field}', f'in{number}') for number, field in enumerate(MAPS, 1)
        ]),
        (maps, measure, [('out', 'tissue_maps')]),
    ])  # fmt: skip
    if case.tissues is not None and default in arms:
        measure.inputs.atlas, measure.inputs.atlas_arm = str(template.atlas), default
    workflow.connect([
        (bias_correction_wf, measure, [('outputnode.t1w', 't1w')]),
        (conform_wf, measure, [
            ('outputnode.brain_mask', 'brain_mask'), ('outputnode.tumor_mask', 'tumor_mask'),
        ]),
        (dilate, measure, [('out_mask', 'dilated_mask')]),
        (merge, measure, [('out', 'transforms')]),
    ])  # fmt: skip
    return workflow


def _kind(arm: str) -> str:
    """Which image an arm registers to."""
    return ORACLE if arm == ORACLE else 'recovered' if TARGETS[arm].recovered else 'original'


def stage_name(stage: str, settings: str, shared_affine: bool) -> str:
    """Name of an arm's workflow, or of a node; what differs has a name, and folder, of its own."""
    affine = '_shared' if shared_affine else ''
    return re.sub(r'\W', '_', f'{stage}_{Path(settings).stem}{affine}')
