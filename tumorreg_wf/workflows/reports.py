"""Figures and tables of the report."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.bids import DerivativesDataSink
from tumorreg_wf.interfaces.reports import PlotSlices, RegionsTable, Summary

INPUTS = [
    'source_file',
    't1w_preproc',
    'flair_preproc',
    'brain_mask',
    'tumor_mask',
    'dilated_mask',
    't1w_inpainted',
    'template_in_t1w',
    'dseg',
    'jacobian',
    'regions_tsv',
    'tumor_tsv',
    'mask_source',
    'notes',
]
#: Every figure needs these.
MASKS = [('brain_mask', 'brain_mask'), ('tumor_mask', 'tumor_mask')]


def init_reportlets_wf(
    *, out_dir: str, template_name: str, has_flair: bool, name: str = 'reportlets_wf'
) -> Workflow:
    """Make the figures and tables of one T1w and store them in ``sub-X/figures/``.

    Parameters
    ----------
    out_dir : root of the derivatives.
    template_name : name of the template registered, as shown to the reader.
    has_flair : whether there is a FLAIR.
    name : name of the workflow.

    Inputs
    ------
    source_file
        The T1w in the dataset; lends its BIDS entities.
    t1w_preproc, t1w_inpainted, flair_preproc
        Images in T1w space, any intensities; the FLAIR only where ``has_flair``.
    template_in_t1w
        The template's T1w warped onto the patient.
    brain_mask, tumor_mask, dilated_mask
        Masks (0, 1) in T1w space; the tumour's may be empty.
    dseg
        Tissues in T1w space: 1 GM, 2 WM, 3 CSF, 7 Lesion.
    jacobian
        Logarithm of the Jacobian determinant of the warp, in T1w space.
    regions_tsv, tumor_tsv
        Tables of the regions and of the tumour.
    mask_source
        A sentence: where the tumour mask comes from.
    notes
        List of warnings to the reader.
    """
    workflow = Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=INPUTS), name='inputnode')
    inputnode.inputs.notes = []
    reportlets = [
        (
            'summary',
            Summary(template_name=template_name, has_flair=has_flair),
            [(field, field) for field in ('source_file', 'tumor_tsv', 'mask_source', 'notes')],
        ),
        (
            'tumorT1w',
            _plot('Outlines of the tumour and of what is filled, on the T1w', 'T1w'),
            [('t1w_preproc', 'in_file'), *MASKS, ('dilated_mask', 'dilated_mask')],
        ),
        (
            'recovery',
            _plot('T1w before and after recovery', 'before', 'after', over_as='change'),
            [
                ('t1w_preproc', 'in_file'),
                ('t1w_inpainted', 'over_file'),
                *MASKS,
                ('dilated_mask', 'dilated_mask'),
            ],
        ),
        (
            'registration',
            _plot(
                f'Recovered T1w, and {template_name} warped onto it',
                'patient',
                template_name,
                through='brain',
                masked=True,
            ),
            [('t1w_inpainted', 'in_file'), ('template_in_t1w', 'over_file'), *MASKS],
        ),
        (
            'edges',
            _plot(
                f'Edges of {template_name} on the T1w of the patient',
                'T1w',
                f'edges of {template_name}',
                through='brain',
                over_as='edges',
            ),
            [('t1w_preproc', 'in_file'), ('template_in_t1w', 'over_file'), *MASKS],
        ),
        (
            'tissues',
            _plot('Tissues on the T1w', 'T1w', 'tissues', through='brain', over_as='tissues'),
            [('t1w_preproc', 'in_file'), ('dseg', 'over_file'), *MASKS],
        ),
        (
            'jacobian',
            _plot(
                'Log-Jacobian determinant of the warp on the T1w',
                'T1w',
                'log-Jacobian',
                over_as='signed',
            ),
            [('t1w_preproc', 'in_file'), ('jacobian', 'over_file'), *MASKS],
        ),
        ('regions', RegionsTable(), [('regions_tsv', 'in_file')]),
    ]
    if has_flair:
        flair = _plot('Outline of the tumour on the FLAIR', 'FLAIR')
        reportlets.append(('tumorFLAIR', flair, [('flair_preproc', 'in_file'), *MASKS]))

    for desc, interface, inputs in reportlets:
        reportlet = pe.Node(interface, name=desc, mem_gb=1)
        ds_reportlet = pe.Node(
            DerivativesDataSink(
                base_directory=out_dir, datatype='figures', desc=desc, suffix='T1w'
            ),
            name=f'ds_{desc}',
            run_without_submitting=True,
        )
        workflow.connect([
            (inputnode, reportlet, inputs),
            (inputnode, ds_reportlet, [('source_file', 'source_file')]),
            (reportlet, ds_reportlet, [('out_file', 'in_file')]),
        ])  # fmt: skip
    return workflow


def _plot(title: str, *names: str, through: str = 'tumor', **options) -> PlotSlices:
    return PlotSlices(title=title, names=list(names), through=through, **options)
