"""The atlas in patient space, the tumour in template space, tables."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.ants import ApplyTransforms, JacobianDeterminant
from tumorreg_wf.interfaces.labels import CombineTissues, LabelTissues, TumorTables
from tumorreg_wf.template import DEFAULT_ATLAS, DEFAULT_TEMPLATE, Template
from tumorreg_wf.workflows.tissues import MAPS

OUTPUTS = [
    'dseg',
    'inpainted_dseg',
    'atlas_dseg',
    'gm_probseg',
    'wm_probseg',
    'csf_probseg',
    'atlas',
    'dseg_lut',
    'inpainted_dseg_lut',
    'atlas_dseg_lut',
    'atlas_lut',
    'template_in_t1w',
    'std_t1w',
    'std_brain_mask',
    'std_tumor_mask',
    'jacobian',
    'warp',
    'regions_tsv',
    'tumor_tsv',
    'notes',
]


def init_atlas_wf(*, template: Template, name: str = 'atlas_wf') -> Workflow:
    """Apply the transforms: tissues, labels and tables of a patient.

    Parameters
    ----------
    template : from :func:`tumorreg_wf.template.load_template`.
    name : name of the workflow.

    Inputs
    ------
    t1w, brain_mask, tumor_mask, dilated_mask
        In patient space; the T1w without bias field, the tumour as it is.
    gm_map, wm_map, csf_map
        Probabilities of the tissues in it; those under the dilated tumour are not looked at.
    std2anat_xfm, anat2std_xfm
        Composite transforms.
    notes
        Oddities of the images, to be passed on.

    Outputs
    -------
    dseg, inpainted_dseg, gm_probseg, wm_probseg, csf_probseg
        Tissues: with the tumour as Lesion; as if healthy; probabilities, 0 in the tumour.
    atlas_dseg
        Tissues as the warped atlas alone has them, the tumour as Lesion.
    atlas
        Atlas labels in patient space.
    dseg_lut, inpainted_dseg_lut, atlas_dseg_lut, atlas_lut
        Look-up tables (TSV) of the segmentations.
    template_in_t1w
        The template's T1w in patient space.
    std_t1w, std_brain_mask, std_tumor_mask
        T1w, brain and tumour in template space.
    jacobian
        Log-Jacobian determinant of the whole transform, in patient space.
    warp
        The whole transform as a displacement field (mm, LPS), in patient space.
    regions_tsv, tumor_tsv, notes
        Tables of regions and tumour, and what their reader should know.
    """
    made = f"Those of {template.name} had been found like the patient's. "
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        f'Tissues and atlas labels ({template.atlas_name}{_cite(template.atlas_name)}) were '
        f'carried from {template.name}{_cite(template.name)} to the patient with the same '
        f'transform. {made if template.tissues_found else ""}Where the tumour was replaced, the '
        'carried maps took the place of those found. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(
            fields=[
                't1w',
                'brain_mask',
                'tumor_mask',
                'dilated_mask',
                *MAPS,
                'std2anat_xfm',
                'anat2std_xfm',
                'notes',
            ]
        ),
        name='inputnode',
    )
    inputnode.inputs.notes = []
    outputnode = pe.Node(niu.IdentityInterface(fields=OUTPUTS), name='outputnode')

    # template to patient
    to_anat = {
        'warp_template': ('Linear', template.t1w),
        'warp_gm': ('Linear', template.tissues[0]),
        'warp_wm': ('Linear', template.tissues[1]),
        'warp_csf': ('Linear', template.tissues[2]),
        'warp_atlas': ('NearestNeighbor', template.atlas),
    }
    nodes = {}
    for node_name, (interpolation, image) in to_anat.items():
        nodes[node_name] = _apply(node_name, interpolation)
        nodes[node_name].inputs.input_image = str(image)
        workflow.connect([
            (inputnode, nodes[node_name], [
                ('t1w', 'reference_image'), ('std2anat_xfm', 'transforms'),
            ]),
        ])  # fmt: skip
    composite_warp = _apply('composite_warp', 'Linear')
    composite_warp.inputs.input_image = str(template.t1w)
    composite_warp.inputs.print_out_composite_warp_file = True
    composite_warp.inputs.output_image = 'warp.nii.gz'
    jacobian = pe.Node(
        JacobianDeterminant(imageDimension=3, doLogJacobian=1, outputImage='jacobian.nii.gz'),
        name='jacobian',
        mem_gb=1.5,
    )
    merge_tissues = pe.Node(niu.Merge(3), name='merge_tissues', run_without_submitting=True)
    merge_own = pe.Node(niu.Merge(3), name='merge_own', run_without_submitting=True)
    combine_tissues = pe.Node(CombineTissues(), name='combine_tissues', mem_gb=2)
    label_tissues = pe.Node(LabelTissues(), name='label_tissues', mem_gb=1.5)
    label_atlas_tissues = pe.Node(LabelTissues(), name='label_atlas_tissues', mem_gb=1.5)

    # patient to template
    warp_t1w = _apply('warp_t1w', 'Linear')
    warp_brain = _apply('warp_brain', 'NearestNeighbor')
    warp_tumor = _apply('warp_tumor', 'NearestNeighbor')
    tables = pe.Node(
        TumorTables(atlas_lut=str(template.atlas_lut), template_name=template.name),
        name='tables',
        mem_gb=1.5,
    )
    for node, field in (
        (warp_t1w, 't1w'),
        (warp_brain, 'brain_mask'),
        (warp_tumor, 'tumor_mask'),
    ):
        node.inputs.reference_image = str(template.t1w)
        workflow.connect([
            (inputnode, node, [(field, 'input_image'), ('anat2std_xfm', 'transforms')]),
        ])  # fmt: skip

    workflow.connect([
        (nodes['warp_gm'], merge_tissues, [('output_image', 'in1')]),
        (nodes['warp_wm'], merge_tissues, [('output_image', 'in2')]),
        (nodes['warp_csf'], merge_tissues, [('output_image', 'in3')]),
        (merge_tissues, combine_tissues, [('out', 'atlas_maps')]),
        (inputnode, combine_tissues, [
            ('dilated_mask', 'in_mask'), ('brain_mask', 'brain_mask'),
        ]),
        (inputnode, merge_own, [(field, f'in{number}') for number, field in enumerate(MAPS, 1)]),
        (merge_own, combine_tissues, [('out', 'tissue_maps')]),
        (combine_tissues, label_tissues, [('out_files', 'in_files')]),
        (merge_tissues, label_atlas_tissues, [('out', 'in_files')]),
        (inputnode, label_tissues, [('brain_mask', 'brain_mask'), ('tumor_mask', 'tumor_mask')]),
        (inputnode, label_atlas_tissues, [
            ('brain_mask', 'brain_mask'), ('tumor_mask', 'tumor_mask'),
        ]),
        (inputnode, composite_warp, [
            ('t1w', 'reference_image'), ('std2anat_xfm', 'transforms'),
        ]),
        (composite_warp, jacobian, [('output_image', 'deformationField')]),
        (inputnode, tables, [
            ('tumor_mask', 'tumor_mask'), ('t1w', 't1w'), ('brain_mask', 'brain_mask'),
            ('dilated_mask', 'dilated_mask'), ('notes', 'notes'),
        ]),
        (label_atlas_tissues, tables, [('out_healthy_dseg', 'atlas_tissues')]),
        (label_atlas_tissues, outputnode, [
            ('out_dseg', 'atlas_dseg'), ('out_lut', 'atlas_dseg_lut'),
        ]),
        (label_tissues, tables, [('out_healthy_dseg', 'tissues')]),
        (warp_tumor, tables, [('output_image', 'std_tumor_mask')]),
        (nodes['warp_atlas'], tables, [('output_image', 'atlas')]),
        (label_tissues, outputnode, [
            ('out_dseg', 'dseg'),
            ('out_healthy_dseg', 'inpainted_dseg'),
            ('out_lut', 'dseg_lut'),
            ('out_gm', 'gm_probseg'),
            ('out_wm', 'wm_probseg'),
            ('out_csf', 'csf_probseg'),
        ]),
        (label_tissues, outputnode, [('out_lut', 'inpainted_dseg_lut')]),
        (nodes['warp_atlas'], outputnode, [('output_image', 'atlas')]),
        (nodes['warp_template'], outputnode, [('output_image', 'template_in_t1w')]),
        (warp_t1w, outputnode, [('output_image', 'std_t1w')]),
        (warp_brain, outputnode, [('output_image', 'std_brain_mask')]),
        (warp_tumor, outputnode, [('output_image', 'std_tumor_mask')]),
        (jacobian, outputnode, [('jacobian_image', 'jacobian')]),
        (composite_warp, outputnode, [('output_image', 'warp')]),
        (tables, outputnode, [
            ('out_regions', 'regions_tsv'), ('out_tumor', 'tumor_tsv'), ('notes', 'notes'),
            ('out_lut', 'atlas_lut'),
        ]),
    ])  # fmt: skip
    return workflow


def _cite(name: str) -> str:
    known = {DEFAULT_TEMPLATE: ' [@icbm]', DEFAULT_ATLAS: ' [@dosenbach]'}
    return known.get(name, '')


def _apply(name: str, interpolation: str) -> pe.Node:
    return pe.Node(
        ApplyTransforms(dimension=3, interpolation=interpolation, float=True),
        name=name,
        mem_gb=1.5,
    )
