"""Write derivatives of a patient that fMRIPrep and sMRIPrep take instead of computing their own.

    python examples/derivatives_for_fmriprep.py BIDS_DIR/sub-01/anat/sub-01_T1w.nii.gz OUT_DIR \
        --tumor-mask MASK --brain-mask MASK --template tpl-MNI152NLin2009cAsym
    fmriprep BIDS_DIR FMRIPREP_DIR participant --derivatives tumorreg=OUT_DIR

Surfaces and registrations then start from a T1w without a tumour. The tissues leave the tumour
out, so that no confound is measured in it.
"""

import argparse
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from tumorreg_wf.interfaces.bids import DerivativesDataSink
from tumorreg_wf.interfaces.images import ConformMask
from tumorreg_wf.template import Template, load_template
from tumorreg_wf.workflows.atlas import init_atlas_wf
from tumorreg_wf.workflows.bias import init_bias_correction_wf
from tumorreg_wf.workflows.conform import init_conform_wf
from tumorreg_wf.workflows.inpainting import init_inpainting_wf
from tumorreg_wf.workflows.outputs import write_dataset_files
from tumorreg_wf.workflows.registration import init_registration_wf
from tumorreg_wf.workflows.tissues import find_tissues, init_tissues_wf


def names_for_fmriprep(template: str) -> dict[str, dict]:
    """Entities of each file that fMRIPrep looks for, by what we call it.

    From the queries in sMRIPrep's ``data/io_spec.json`` (0.19): the dseg must be the only one
    without ``desc``, so labels of an atlas may not lie beside it. A transform counts where both
    directions are there and the template is one of ``--output-spaces``.
    """
    return {
        't1w': {'desc': 'preproc', 'suffix': 'T1w'},
        'brain_mask': {'desc': 'brain', 'suffix': 'mask'},
        'dseg': {'suffix': 'dseg'},
        'gm_probseg': {'label': 'GM', 'suffix': 'probseg'},
        'wm_probseg': {'label': 'WM', 'suffix': 'probseg'},
        'csf_probseg': {'label': 'CSF', 'suffix': 'probseg'},
        'anat2std_xfm': {'from': 'T1w', 'to': template, 'mode': 'image', 'suffix': 'xfm'},
        'std2anat_xfm': {'from': template, 'to': 'T1w', 'mode': 'image', 'suffix': 'xfm'},
    }


def init_for_fmriprep_wf(
    *,
    source_file: str,
    out_dir: str,
    template: Template,
    settings: str = 'syn',
    omp_nthreads: int = 1,
    name: str = 'for_fmriprep_wf',
) -> pe.Workflow:
    """Recover, register, and store under the names fMRIPrep looks for.

    Parameters
    ----------
    source_file : T1w in the BIDS dataset; its entities go into the names.
    out_dir : root of the derivatives.
    template : from :func:`tumorreg_wf.template.load_template`.
    settings : of the registration, ``'syn'`` or ``'syn_sloppy'``.
    omp_nthreads : threads of one process.
    name : name of the workflow.

    Inputs
    ------
    t1w, tumor_mask, brain_mask
        The masks may be on other grids.
    """
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'tumor_mask', 'brain_mask']), name='inputnode'
    )
    conform_wf = init_conform_wf(has_flair=False, has_brain_mask=True)
    tumor_mask = pe.Node(ConformMask(), name='tumor_mask')
    bias_correction_wf = init_bias_correction_wf(
        # what lies outside of the brain mask stays, and is corrected too
        has_flair=False,
        whole_head=True,
        omp_nthreads=omp_nthreads,
    )
    inpainting_wf = init_inpainting_wf(omp_nthreads=omp_nthreads)
    tissues_wf = init_tissues_wf(omp_nthreads=omp_nthreads)
    registration_wf = init_registration_wf(
        target='recovered-masked', settings=settings, omp_nthreads=omp_nthreads
    )
    registration_wf.inputs.inputnode.template = str(template.t1w)
    atlas_wf = init_atlas_wf(template=template)

    workflow = pe.Workflow(name=name)
    workflow.connect([
        (inputnode, conform_wf, [
            ('t1w', 'inputnode.t1w'), ('brain_mask', 'inputnode.brain_mask'),
        ]),
        (inputnode, tumor_mask, [('tumor_mask', 'in_file')]),
        (conform_wf, tumor_mask, [('outputnode.t1w', 'reference')]),
        (conform_wf, bias_correction_wf, [
            ('outputnode.t1w', 'inputnode.t1w'), ('outputnode.brain_mask', 'inputnode.brain_mask'),
        ]),
        (bias_correction_wf, inpainting_wf, [('outputnode.t1w', 'inputnode.t1w')]),
        (conform_wf, inpainting_wf, [('outputnode.brain_mask', 'inputnode.brain_mask')]),
        (tumor_mask, inpainting_wf, [('out_mask', 'inputnode.tumor_mask')]),
        (inpainting_wf, registration_wf, [
            ('outputnode.t1w', 'inputnode.t1w'),
            ('outputnode.dilated_mask', 'inputnode.dilated_mask'),
        ]),
        (inpainting_wf, tissues_wf, [('outputnode.t1w', 'inputnode.t1w')]),
        (conform_wf, tissues_wf, [('outputnode.brain_mask', 'inputnode.brain_mask')]),
        (inpainting_wf, tissues_wf, [('outputnode.dilated_mask', 'inputnode.dilated_mask')]),
        (tissues_wf, atlas_wf, [
            ('outputnode.gm_map', 'inputnode.gm_map'), ('outputnode.wm_map', 'inputnode.wm_map'),
            ('outputnode.csf_map', 'inputnode.csf_map'),
        ]),
        (conform_wf, registration_wf, [('outputnode.brain_mask', 'inputnode.brain_mask')]),
        (bias_correction_wf, atlas_wf, [('outputnode.t1w', 'inputnode.t1w')]),
        (inpainting_wf, atlas_wf, [('outputnode.dilated_mask', 'inputnode.dilated_mask')]),
        (conform_wf, atlas_wf, [('outputnode.brain_mask', 'inputnode.brain_mask')]),
        (tumor_mask, atlas_wf, [('out_mask', 'inputnode.tumor_mask')]),
        (registration_wf, atlas_wf, [
            ('outputnode.std2anat_xfm', 'inputnode.std2anat_xfm'),
            ('outputnode.anat2std_xfm', 'inputnode.anat2std_xfm'),
        ]),
    ])  # fmt: skip

    sources = {
        't1w': inpainting_wf,
        'brain_mask': conform_wf,
        'anat2std_xfm': registration_wf,
        'std2anat_xfm': registration_wf,
    }
    for field, entities in names_for_fmriprep(template.name).items():
        ds = pe.Node(
            DerivativesDataSink(
                base_directory=out_dir, source_file=source_file, compress=None, **entities
            ),
            name=f'ds_{field}',
        )
        source_wf = sources.get(field, atlas_wf)
        workflow.connect([(source_wf, ds, [(f'outputnode.{field}', 'in_file')])])
    return workflow


def main(argv: list[str] | None = None) -> None:
    """Run the example on one patient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('t1w', type=Path, help='T1w in a BIDS dataset, sub-X/.../sub-X_T1w.nii.gz')
    parser.add_argument('out_dir', type=Path, help='folder for the derivatives')
    parser.add_argument('--tumor-mask', type=Path, required=True)
    parser.add_argument('--brain-mask', type=Path, required=True)
    parser.add_argument('--template', help='as in tumorreg; default: the packaged one')
    parser.add_argument('--sloppy', action='store_true', help='coarse registration, to try out')
    opts = parser.parse_args(argv)
    out_dir, t1w = opts.out_dir.absolute(), opts.t1w.absolute()
    work_dir = out_dir.with_name(f'{out_dir.name}_work')
    subject_dir = next(folder for folder in t1w.parents if folder.name.startswith('sub-'))
    write_dataset_files(out_dir, bids_dir=subject_dir.parent, command=Path(__file__).name)

    workflow = init_for_fmriprep_wf(
        source_file=str(t1w),
        out_dir=str(out_dir),
        template=load_template(opts.template, work_dir, find_tissues=find_tissues),
        settings='syn_sloppy' if opts.sloppy else 'syn',
    )
    workflow.base_dir = str(work_dir)
    workflow.inputs.inputnode.t1w = str(t1w)
    workflow.inputs.inputnode.tumor_mask = str(opts.tumor_mask.absolute())
    workflow.inputs.inputnode.brain_mask = str(opts.brain_mask.absolute())
    workflow.run()


if __name__ == '__main__':
    main()
