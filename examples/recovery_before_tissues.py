"""Recover the tissue under a tumour before a workflow that expects a healthy brain.

    python examples/recovery_before_tissues.py T1W TUMOR_MASK BRAIN_MASK OUT_DIR

``init_atropos_wf`` stands for any workflow of stock Nipype nodes: it knows no tumours, and nothing
of tumorreg but the base class that finds ANTs inside antspyx. ``init_recovered_tissues_wf`` puts
the recovery before it. The result is OUT_DIR/dseg.nii.gz: 0 outside, 1 CSF, 2 GM, 3 WM, and 4
where the tissue is made up.
"""

import argparse
from pathlib import Path

from nipype.interfaces import ants
from nipype.interfaces import utility as niu
from nipype.interfaces.io import ExportFile
from nipype.pipeline import engine as pe

from tumorreg_wf.interfaces.ants import EmbeddedANTs
from tumorreg_wf.workflows.inpainting import init_inpainting_wf

MADE_UP = 4


class Atropos(EmbeddedANTs, ants.Atropos):
    """Nipype's Atropos; this is how any program of ANTs is run without ANTs on PATH."""


def init_atropos_wf(name: str = 'atropos_wf') -> pe.Workflow:
    """Three tissues by their grey values: inputs t1w and brain_mask, output dseg."""
    inputnode = pe.Node(niu.IdentityInterface(fields=['t1w', 'brain_mask']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(fields=['dseg']), name='outputnode')
    atropos = pe.Node(
        Atropos(
            dimension=3,
            initialization='KMeans',
            number_of_tissue_classes=3,
            likelihood_model='Gaussian',
            mrf_smoothing_factor=0.1,
            mrf_radius=[1, 1, 1],
            n_iterations=3,
            convergence_threshold=0.0,
            out_classified_image_name='dseg.nii.gz',
        ),
        name='atropos',
        mem_gb=2,
    )
    workflow = pe.Workflow(name=name)
    workflow.connect([
        (inputnode, atropos, [('t1w', 'intensity_images'), ('brain_mask', 'mask_image')]),
        (atropos, outputnode, [('classified_image', 'dseg')]),
    ])  # fmt: skip
    return workflow


def label_made_up(dseg: str, mask: str, label: int) -> str:
    """Give the voxels of a mask (same grid) a label of their own; runs as a node."""
    import os

    import nibabel as nb
    import numpy as np

    image = nb.load(dseg)
    labels = np.where(nb.load(mask).get_fdata() > 0, label, image.get_fdata()).astype(np.uint8)
    path = os.path.abspath('dseg.nii.gz')
    nb.Nifti1Image(labels, image.affine).to_filename(path)
    return path


def init_recovered_tissues_wf(
    *, omp_nthreads: int = 1, name: str = 'recovered_tissues_wf'
) -> pe.Workflow:
    """Tissues outside the tumour, found on the recovered T1w.

    Inputs: t1w, tumor_mask, brain_mask. Output: dseg.
    """
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'tumor_mask', 'brain_mask']), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=['dseg']), name='outputnode')
    inpainting_wf = init_inpainting_wf(omp_nthreads=omp_nthreads)
    atropos_wf = init_atropos_wf()
    # what was made up helps the classes, and is no finding
    mark = pe.Node(
        niu.Function(function=label_made_up, input_names=['dseg', 'mask', 'label']), name='mark'
    )
    mark.inputs.label = MADE_UP

    workflow = pe.Workflow(name=name)
    workflow.connect([
        (inputnode, inpainting_wf, [
            ('t1w', 'inputnode.t1w'),
            ('tumor_mask', 'inputnode.tumor_mask'),
            ('brain_mask', 'inputnode.brain_mask'),
        ]),
        (inpainting_wf, atropos_wf, [('outputnode.t1w', 'inputnode.t1w')]),
        (inputnode, atropos_wf, [('brain_mask', 'inputnode.brain_mask')]),
        (atropos_wf, mark, [('outputnode.dseg', 'dseg')]),
        (inpainting_wf, mark, [('outputnode.dilated_mask', 'mask')]),
        (mark, outputnode, [('out', 'dseg')]),
    ])  # fmt: skip
    return workflow


def main(argv: list[str] | None = None) -> None:
    """Run the example on three images of one grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in ('t1w', 'tumor_mask', 'brain_mask', 'out_dir'):
        parser.add_argument(field, type=Path)
    opts = parser.parse_args(argv)
    out_dir = opts.out_dir.absolute()
    out_dir.mkdir(parents=True, exist_ok=True)

    recovered_tissues_wf = init_recovered_tissues_wf()
    for field in ('t1w', 'tumor_mask', 'brain_mask'):
        path = str(getattr(opts, field).absolute())
        setattr(recovered_tissues_wf.inputs.inputnode, field, path)
    export = pe.Node(
        ExportFile(out_file=str(out_dir / 'dseg.nii.gz'), clobber=True), name='export'
    )
    workflow = pe.Workflow(name='example', base_dir=str(out_dir / 'work'))
    workflow.connect([(recovered_tissues_wf, export, [('outputnode.dseg', 'in_file')])])
    workflow.run()


if __name__ == '__main__':
    main()
