"""Grey matter, white matter and CSF of a brain."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf.interfaces.torch import FindTissues
from tumorreg_wf.weights import Weights, find_weights
from tumorreg_wf.workflows.networks import network_node

#: Fields of the maps, in the order of a template's.
MAPS = ('gm_map', 'wm_map', 'csf_map')


def init_tissues_wf(
    *,
    weights: Weights | None = None,
    device: str = 'cpu',
    omp_nthreads: int = 1,
    name: str = 'tissues_wf',
) -> Workflow:
    """Find the tissues of a brain without a template.

    Parameters
    ----------
    weights : from :func:`tumorreg_wf.weights.find_weights`; None for the packaged ones.
    device : torch device.
    omp_nthreads : CPU threads of torch.
    name : name of the workflow.

    Inputs
    ------
    t1w
        Bias-corrected T1w, the tumour as it is or replaced; any orientation and voxel size.
    brain_mask, dilated_mask
        On the grid of the T1w. What the second marks, the dilated tumour, has no part in what
        tissues look like; it may be left out.

    Outputs
    -------
    gm_map, wm_map, csf_map
        Probabilities; sum to 1 in the brain, 0 elsewhere. What they say of a tumour, or of tissue
        that was put in its place, is no finding.
    """
    weights = weights or find_weights('tissues')
    workflow = Workflow(name=name)
    workflow.__desc__ = (
        'Grey matter, white matter and CSF were found, in the image that the template was '
        'registered to, with a U-Net [@unet3d] that was trained on images drawn from label maps '
        f'[@synthseg] (weights {weights.name}, sha256 {weights.sha256[:12]}), whose maps were '
        'refined by the grey values of the T1w [@vanleemput]. '
    )
    inputnode = pe.Node(
        niu.IdentityInterface(fields=['t1w', 'brain_mask', 'dilated_mask']), name='inputnode'
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=list(MAPS)), name='outputnode')
    find = network_node(
        FindTissues, weights, device=device, omp_nthreads=omp_nthreads, name='find'
    )
    workflow.connect([
        (inputnode, find, [
            ('t1w', 'in_file'), ('brain_mask', 'brain_mask'), ('dilated_mask', 'in_mask'),
        ]),
        (find, outputnode, [('out_gm', 'gm_map'), ('out_wm', 'wm_map'), ('out_csf', 'csf_map')]),
    ])  # fmt: skip
    return workflow


def find_tissues(
    t1w: Path,
    brain_mask: Path,
    folder: Path,
    *,
    weights: Weights | None = None,
    omp_nthreads: int = 1,
) -> list[Path]:
    """Find the tissues of a brain at once, outside of any workflow, as those of a template.

    Parameters
    ----------
    t1w, brain_mask : skull-stripped T1w without bias field, and its brain mask on the same grid.
    folder : for the maps.
    weights : from :func:`tumorreg_wf.weights.find_weights`; None for the packaged ones.
    omp_nthreads : CPU threads of torch.

    Returns
    -------
    maps : files of the probabilities of GM, WM and CSF.
    """
    weights = weights or find_weights('tissues')
    node = network_node(FindTissues, weights, device='cpu', omp_nthreads=omp_nthreads, name='find')
    node.interface.inputs.in_file, node.interface.inputs.brain_mask = str(t1w), str(brain_mask)
    found = node.interface.run(cwd=str(folder)).outputs
    return [Path(path) for path in (found.out_gm, found.out_wm, found.out_csf)]
