"""Figures and tables of the report."""

from __future__ import annotations

from collections.abc import Mapping

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.bids import DerivativesDataSink
from tumorreg_wf.interfaces.fragments import Provenance, RegionsTable, Summary
from tumorreg_wf.interfaces.reports import PlotSlices
from tumorreg_wf.template import Template
from tumorreg_wf.weights import Weights

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
    'warp',
    'regions_tsv',
    'tumor_tsv',
    'quality_tsv',
    'notes',
]
#: Every figure needs these.
MASKS = [('brain_mask', 'brain_mask'), ('tumor_mask', 'tumor_mask')]
DILATED = ('dilated_mask', 'dilated_mask')

#: Where a mask comes from that nobody gave.
FOUND = 'found by the network'
STRIPPED = 'what is not 0 in the T1w, holes filled, specks left out'

#: So many mm around the tumour are shown of the warp.
MARGIN = 30.0


def init_reportlets_wf(
    *,
    out_dir: str,
    template: Template,
    weights: Mapping[str, Weights],
    flair: str | None = None,
    user_mask: str | None = None,
    brain_mask: str | None = None,
    skull_strip: bool = False,
    name: str = 'reportlets_wf',
) -> Workflow:
    """Make the figures and tables of one T1w and store them in ``sub-X/figures/``.

    Parameters
    ----------
    out_dir : root of the derivatives.
    template : the template registered.
    weights : by task, those of the networks.
    flair : the FLAIR in the dataset, where there is one.
    user_mask, brain_mask : masks of the user, where given.
    skull_strip : whether the network found the brain.
    name : name of the workflow.

    Inputs
    ------
    source_file
        The T1w in the dataset; lends its BIDS entities.
    t1w_preproc, t1w_inpainted, flair_preproc
        Images in T1w space, any intensities; the FLAIR only where ``flair``.
    template_in_t1w
        The template's T1w warped onto the patient.
    brain_mask, tumor_mask, dilated_mask
        Masks (0, 1) in T1w space; the tumour's may be empty.
    dseg
        Tissues in T1w space: 1 GM, 2 WM, 3 CSF, 7 Lesion.
    jacobian, warp
        Logarithm of the Jacobian determinant of the warp, and its displacement field (mm, LPS),
        in T1w space.
    regions_tsv, tumor_tsv, quality_tsv
        Tables of the regions, of the tumour, and of quality.
    notes
        List of warnings to the reader.
    """
    workflow = Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=INPUTS), name='inputnode')
    inputnode.inputs.notes = []
    tables = ('tumor_tsv', 'regions_tsv', 'quality_tsv', 'notes')
    sought_in = 'FLAIR' if flair else 'T1w'
    tumor = _plot(f'{sought_in} with the outline of the tumour', through='tumor')
    tumor_inputs = [('t1w_preproc', 'in_file'), *MASKS, DILATED]
    if flair:
        tumor.inputs.names, tumor.inputs.over_as = ['T1w', 'FLAIR'], ['image']
        tumor_inputs.append(('flair_preproc', 'over_file'))
    reportlets = [
        ('summary', Summary(user_mask=user_mask or ''), [(field, field) for field in tables]),
        (
            'recovery',
            _plot(
                'T1w before and after the tumour was replaced, three planes through the tumour',
                *('before', 'after'),
                over_as=['change'],
                through='tumor',
                n_slices=1,
            ),
            [('t1w_preproc', 'in_file'), ('t1w_inpainted', 'over_file'), *MASKS, DILATED],
        ),
        ('tumor', tumor, tumor_inputs),
        (
            'warp',
            _plot(
                'Logarithm of the Jacobian determinant and grid of the warp around the tumour',
                *('T1w', 'log-Jacobian'),
                over_as=['signed'],
                through='tumor',
                n_slices=1,
                margin=MARGIN,
            ),
            [('t1w_preproc', 'in_file'), ('jacobian', 'over_file'), ('warp', 'warp_file'), *MASKS],
        ),
        (
            'registration',
            _plot(
                f'T1w, {template.name} warped onto it, and the edges of the latter',
                *('T1w', 'template', 'edges of the template'),
                over_as=['image', 'edges'],
                masked=True,
            ),
            [('t1w_preproc', 'in_file'), ('template_in_t1w', 'over_file'), *MASKS],
        ),
        (
            'tissues',
            _plot('Tissues on the T1w', 'T1w', 'tissues', over_as=['tissues']),
            [('t1w_preproc', 'in_file'), ('dseg', 'over_file'), *MASKS],
        ),
        ('regions', RegionsTable(), [('regions_tsv', 'in_file')]),
        (
            'provenance',
            Provenance(
                rows=_list_sources(template, weights, flair, user_mask, brain_mask, skull_strip)
            ),
            [('source_file', 'source_file')],
        ),
    ]
    if skull_strip or brain_mask:
        outline = _plot('T1w with the outline of the brain mask', outline_brain=True)
        reportlets.append(('brain', outline, [('t1w_preproc', 'in_file'), *MASKS]))
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


def _plot(title: str, *names: str, **options) -> PlotSlices:
    return PlotSlices(title=title, names=list(names or ['T1w']), **options)


def _list_sources(
    template: Template,
    weights: Mapping[str, Weights],
    flair: str | None,
    user_mask: str | None,
    brain_mask: str | None,
    skull_strip: bool,
) -> list[tuple[str, str]]:
    """Name all that the outputs were made from, besides the T1w."""

    def tell(task: str) -> str:
        return f'{weights[task].name}, sha256 {weights[task].sha256}'

    return [
        ('FLAIR', flair or 'none'),
        ('Brain mask', brain_mask or (FOUND if skull_strip else STRIPPED)),
        ('Tumour mask', user_mask or FOUND),
        ('Weights, brain', tell('brain') if skull_strip else 'not used'),
        ('Weights, tumour', 'not used' if user_mask else tell('segmentation')),
        ('Weights, recovery', tell('inpainting')),
        ('Weights, tissues', tell('tissues')),
        ('Template', f'{template.name}, {template.source or "packaged with nilearn"}'),
        ('Tissues of the template', FOUND if template.tissues_found else 'come with it'),
        ('Atlas', f'{template.atlas_name}, {template.atlas_source or "packaged with tumorreg"}'),
    ]
