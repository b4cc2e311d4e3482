"""The workflow of a run: a subject workflow per T1w, stages in a row."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf import __version__
from tumorreg_wf.bids import Anatomy
from tumorreg_wf.interfaces.quality import MeasureQuality
from tumorreg_wf.provenance import fingerprint
from tumorreg_wf.settings import Settings
from tumorreg_wf.template import Template
from tumorreg_wf.weights import Weights, find_weights
from tumorreg_wf.workflows.atlas import init_atlas_wf
from tumorreg_wf.workflows.bias import init_bias_correction_wf
from tumorreg_wf.workflows.conform import init_conform_wf
from tumorreg_wf.workflows.coregistration import init_coregistration_wf
from tumorreg_wf.workflows.engines import by_tissues, registration_settings
from tumorreg_wf.workflows.inpainting import init_inpainting_wf
from tumorreg_wf.workflows.intensity import init_intensity_wf
from tumorreg_wf.workflows.outputs import init_derivatives_wf
from tumorreg_wf.workflows.registration import TARGETS, init_registration_wf
from tumorreg_wf.workflows.reports import init_reportlets_wf
from tumorreg_wf.workflows.segmentation import init_segmentation_wf
from tumorreg_wf.workflows.tissues import MAPS, init_tissues_wf


def init_tumorreg_wf(
    settings: Settings, anatomies: list[Anatomy], template: Template, run_uuid: str
) -> Workflow:
    """Build the workflow of a run.

    Parameters
    ----------
    settings : of the run.
    anatomies : every T1w to process.
    template : from :func:`tumorreg_wf.template.load_template`.
    run_uuid : names the folder of crash files, ``sub-X/log/<run_uuid>``.
    """
    # other code works in another folder: nodes change without their inputs changing
    workflow = Workflow(name=f'tumorreg_{fingerprint()}_wf')
    workflow.base_dir = str(settings.work_dir)
    weights = {
        'brain': find_weights('brain', settings.brain_weights),
        'segmentation': find_weights('segmentation', settings.segmentation_weights),
        'inpainting': find_weights('inpainting', settings.inpainting_weights),
        'tissues': find_weights('tissues', settings.tissue_weights),
    }
    for anatomy in anatomies:
        anatomy_wf = init_anatomy_wf(settings, anatomy, template, weights)
        crash_dir = str(crash_folder(settings.out_dir, anatomy.subject, run_uuid))
        anatomy_wf.config['execution']['crashdump_dir'] = crash_dir
        for node in anatomy_wf._get_all_nodes():
            node.config = deepcopy(anatomy_wf.config)
        workflow.add_nodes([anatomy_wf])
    return workflow


def crash_folder(out_dir: Path, subject: str, run_uuid: str) -> Path:
    """Folder of a subject's crash files of one run."""
    return out_dir / f'sub-{subject}' / 'log' / run_uuid


def workflow_name(anatomy: Anatomy) -> str:
    """Name of the workflow of one T1w: its entities in letters Nipype allows."""
    return ''.join(c if c.isalnum() else '_' for c in anatomy.label) + '_wf'


def init_anatomy_wf(
    settings: Settings, anatomy: Anatomy, template: Template, weights: dict[str, Weights]
) -> Workflow:
    """Build the workflow of one T1w: all stages, derivatives and figures.

    Parameters
    ----------
    settings : of the run.
    anatomy : the T1w and what goes with it.
    template : from :func:`tumorreg_wf.template.load_template`.
    weights : of ``'brain'``, ``'segmentation'``, ``'inpainting'`` and ``'tissues'``.
    """
    has_flair, given = anatomy.flair is not None, anatomy.tumor_mask
    threads, seed = settings.omp_nthreads, settings.random_seed
    workflow = Workflow(name=workflow_name(anatomy))
    workflow.__desc__ = (
        f'Images were processed with tumorreg {__version__} [@tumorreg], a workflow of Nipype '
        '[@nipype]. '
    )

    conform_wf = init_conform_wf(
        has_flair=has_flair,
        has_brain_mask=anatomy.brain_mask is not None,
        has_tumor_mask=given is not None,
        skull_strip='force' if anatomy.skull_strip else settings.skull_strip,
        weights=weights['brain'],
        device=settings.device,
        omp_nthreads=threads,
    )
    conform_wf.inputs.inputnode.t1w = str(anatomy.t1w)
    if anatomy.brain_mask is not None:
        conform_wf.inputs.inputnode.brain_mask = str(anatomy.brain_mask)
        workflow.__desc__ += 'The brain mask was given by the authors. '
    # what lies outside of a mask is to stay
    bias_correction_wf = init_bias_correction_wf(
        has_flair=has_flair,
        whole_head=anatomy.skull_strip or anatomy.brain_mask is not None,
        omp_nthreads=threads,
    )
    inpainting_wf = init_inpainting_wf(
        dilation=settings.tumor_dilation,
        weights=weights['inpainting'],
        device=settings.device,
        omp_nthreads=threads,
    )
    tissues_wf = init_tissues_wf(
        weights=weights['tissues'], device=settings.device, omp_nthreads=threads
    )
    target = TARGETS[settings.registration_target]
    stages = registration_settings(settings.registration_settings)
    registration_wf = init_registration_wf(
        target=settings.registration_target,
        settings=settings.registration_settings,
        omp_nthreads=threads,
        random_seed=seed,
    )
    registration_wf.inputs.inputnode.template = str(template.t1w)
    atlas_wf = init_atlas_wf(template=template)

    workflow.connect([(conform_wf, bias_correction_wf, along('t1w', 'brain_mask'))])
    if has_flair:
        conform_wf.inputs.inputnode.flair = str(anatomy.flair)
        coregistration_wf = init_coregistration_wf(omp_nthreads=threads, random_seed=seed)
        workflow.connect([
            (conform_wf, coregistration_wf, along('t1w', 'flair')),
            (coregistration_wf, bias_correction_wf, along('flair')),
        ])  # fmt: skip

    tumor = pe.Node(niu.IdentityInterface(fields=['mask', 'probseg']), name='tumor')
    notes = pe.Node(niu.Merge(2), name='notes', run_without_submitting=True)
    if given is not None:
        workflow.__desc__ += 'The tumour mask was given by the authors. '
        conform_wf.inputs.inputnode.tumor_mask = str(given)
        workflow.connect([(conform_wf, tumor, [('outputnode.tumor_mask', 'mask')])])
    else:
        intensity_wf = init_intensity_wf(has_flair=has_flair)
        segmentation_wf = init_segmentation_wf(
            has_flair=has_flair,
            weights=weights['segmentation'],
            device=settings.device,
            omp_nthreads=threads,
        )
        images = ['t1w', 'flair'] if has_flair else ['t1w']
        workflow.connect([
            (bias_correction_wf, intensity_wf, along(*images)),
            (conform_wf, intensity_wf, along('brain_mask')),
            (intensity_wf, segmentation_wf, along(*images)),
            (conform_wf, segmentation_wf, along('brain_mask')),
            (intensity_wf, notes, [('outputnode.notes', 'in2')]),
            (segmentation_wf, tumor, [
                ('outputnode.tumor_mask', 'mask'), ('outputnode.tumor_probseg', 'probseg'),
            ]),
        ])  # fmt: skip

    registered_wf = inpainting_wf if target.recovered else bias_correction_wf
    workflow.connect([
        (bias_correction_wf, inpainting_wf, along('t1w')),
        (conform_wf, inpainting_wf, along('brain_mask')),
        (registered_wf, tissues_wf, along('t1w')),
        (conform_wf, tissues_wf, along('brain_mask')),
        (inpainting_wf, tissues_wf, along('dilated_mask')),
        (tissues_wf, atlas_wf, along(*MAPS)),
        (tumor, inpainting_wf, [('mask', 'inputnode.tumor_mask')]),
        (registered_wf, registration_wf, along('t1w')),
        (conform_wf, registration_wf, along('brain_mask')),
        (registration_wf, atlas_wf, along('std2anat_xfm', 'anat2std_xfm')),
        (bias_correction_wf, atlas_wf, along('t1w')),
        (inpainting_wf, atlas_wf, along('dilated_mask')),
        (conform_wf, atlas_wf, along('brain_mask')),
        (conform_wf, notes, [('outputnode.notes', 'in1')]),
        (notes, atlas_wf, [('out', 'inputnode.notes')]),
        (tumor, atlas_wf, [('mask', 'inputnode.tumor_mask')]),
    ])  # fmt: skip
    if target.masked:
        workflow.connect([(inpainting_wf, registration_wf, along('dilated_mask'))])
    if by_tissues(stages):
        registration_wf.inputs.inputnode.template_maps = list(map(str, template.tissues))
        workflow.connect([(tissues_wf, registration_wf, along(*MAPS))])

    quality = pe.Node(MeasureQuality(), name='quality', mem_gb=1.5)
    workflow.connect([
        (conform_wf, quality, [('outputnode.brain_mask', 'brain_mask')]),
        (inpainting_wf, quality, [
            ('outputnode.t1w', 'in_file'), ('outputnode.dilated_mask', 'in_mask'),
        ]),
        (atlas_wf, quality, [
            ('outputnode.template_in_t1w', 'template'), ('outputnode.jacobian', 'jacobian'),
        ]),
    ])  # fmt: skip

    # what comes out, by its name in the output workflows
    results = [
        (bias_correction_wf, {'t1w': 't1w_preproc'}),
        (conform_wf, {'brain_mask': 'brain_mask'}),
        (inpainting_wf, {'t1w': 't1w_inpainted', 'dilated_mask': 'dilated_mask'}),
        (registration_wf, {xfm: xfm for xfm in ('std2anat_xfm', 'anat2std_xfm')}),
        (atlas_wf, {field: field for field in atlas_wf.outputs.outputnode.get()}),
    ]
    if has_flair:
        results.append((bias_correction_wf, {'flair': 'flair_preproc'}))
    spaces = settings.output_spaces
    derivatives_wf = init_derivatives_wf(
        out_dir=str(settings.out_dir),
        bids_dir=str(settings.bids_dir),
        t1w=str(anatomy.t1w),
        template=template,
        std_outputs=spaces is None or template.name in spaces,
        flair=str(anatomy.flair) if has_flair else None,
        user_mask=None if given is None else str(given),
        brain_mask=None if anatomy.brain_mask is None else str(anatomy.brain_mask),
        skull_strip=anatomy.skull_strip,
        skull_stripped=not anatomy.whole_head,
    )
    reportlets_wf = init_reportlets_wf(
        out_dir=str(settings.out_dir),
        template=template,
        flair=str(anatomy.flair) if has_flair else None,
        user_mask=None if given is None else str(given),
        brain_mask=None if anatomy.brain_mask is None else str(anatomy.brain_mask),
        skull_strip=anatomy.skull_strip,
        weights=weights,
    )
    reportlets_wf.inputs.inputnode.source_file = str(anatomy.t1w)
    for sink_wf in (derivatives_wf, reportlets_wf):
        taken = set(sink_wf.inputs.inputnode.get())
        for source_wf, fields in results:
            wanted = [
                (f'outputnode.{field}', f'inputnode.{target}')
                for field, target in fields.items()
                if target in taken
            ]
            workflow.connect([(source_wf, sink_wf, wanted)])
        workflow.connect([(quality, sink_wf, [('out_file', 'inputnode.quality_tsv')])])
        masks = [('mask', 'inputnode.tumor_mask')]
        if 'tumor_probseg' in taken:
            masks.append(('probseg', 'inputnode.tumor_probseg'))
        workflow.connect([(tumor, sink_wf, masks)])
    return workflow


def along(*fields: str) -> list[tuple[str, str]]:
    """Connections of one stage to the next that keep the field's name.

    A new list each time: Nipype empties the lists it is given when it flattens the graph.
    """
    return [(f'outputnode.{field}', f'inputnode.{field}') for field in fields]
