"""Whole heads: whether the brain has to be found, and by whom; what comes out."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.cli.inputs import _check_images
from tumorreg_wf.settings import Settings
from tumorreg_wf.workflows.conform import init_conform_wf

HEAD = Path(__file__).parents[3] / 'shared' / 'data' / 'head'


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A head that fills its image, and a brain in a background of zeros; 3 mm."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    head = rng.uniform(4, 6, (60, 70, 60)).astype(np.float32)
    brain = head * (sum(axis**2 for axis in np.ogrid[-30:30, -35:35, -30:30]) < 20**2)
    for name, data in (('head', head), ('brain', brain)):
        path = folder / f'sub-{name}_T1w.nii.gz'
        nb.Nifti1Image(data, np.diag([3, 3, 3, 1])).to_filename(path)
    return folder


@pytest.mark.parametrize(
    ('option', 'shown', 'found'),
    [
        ('auto', 'head', True),
        ('auto', 'brain', False),
        ('force', 'head', True),
        ('force', 'brain', True),
        ('skip', 'head', False),
        ('skip', 'brain', False),
    ],
)
def test_who_finds_the_brain(images, option, shown, found):
    settings = Settings(images, images, images, skull_strip=option)
    t1w = images / f'sub-{shown}_T1w.nii.gz'
    anatomy = Anatomy(shown, None, t1w)
    head = shown == 'head'
    # with skip, what is not 0 is brain
    expected = replace(anatomy, skull_strip=found, whole_head=head and option != 'skip')
    assert _check_images(anatomy, settings) == expected
    # a mask counts more than the network
    given = replace(anatomy, brain_mask=t1w)
    assert _check_images(given, settings) == replace(given, whole_head=head)


@pytest.mark.parametrize(
    ('options', 'interface'),
    [
        ({}, 'StrippedBrainMask'),
        ({'skull_strip': 'skip'}, 'StrippedBrainMask'),
        ({'skull_strip': 'force'}, 'ExtractBrain'),
        ({'skull_strip': 'force', 'has_brain_mask': True}, 'ConformMask'),
    ],
)
def test_the_node_that_does(options, interface):
    workflow = init_conform_wf(**options)
    assert type(workflow.get_node('brain_mask').interface).__name__ == interface
    assert ('3-D U-Net' in (workflow.__desc__ or '')) == (interface == 'ExtractBrain')


def test_a_brain_mask_of_the_user_is_the_brain(images, tmp_path):
    """Also where it says else than the image, on another grid and with several labels."""
    head = nb.load(images / 'sub-head_T1w.nii.gz')
    mine = np.zeros(head.shape, np.uint8)
    mine[20:40, 25:45, 15:40] = 1
    mine[30:40, 25:45, 15:40] = 2
    mask = nb.Nifti1Image(mine, head.affine).as_reoriented([[0, -1], [2, 1], [1, 1]])
    mask.to_filename(tmp_path / 'mask.nii.gz')
    workflow = init_conform_wf(has_flair=False, has_brain_mask=True)
    workflow.base_dir = str(tmp_path)
    workflow.inputs.inputnode.t1w = str(images / 'sub-head_T1w.nii.gz')
    workflow.inputs.inputnode.brain_mask = str(tmp_path / 'mask.nii.gz')
    workflow.run(plugin='Linear')
    (found,) = (tmp_path / workflow.name / 'brain_mask').glob('*.nii.gz')
    np.testing.assert_array_equal(nb.load(found).get_fdata() > 0, mine > 0)


@pytest.mark.parametrize('brain_given', [False, True])
def test_a_tumor_mask_of_the_user_is_brain(brain_given):
    """Where the network finds the brain; a brain mask of the user is the brain as it is."""
    workflow = init_conform_wf(
        skull_strip='force', has_brain_mask=brain_given, has_tumor_mask=True
    )
    edges = workflow._graph[workflow.get_node('tumor_mask')]
    targets = {node.name: data['connect'] for node, data in edges.items()}
    assert targets['outputnode'] == [('out_mask', 'tumor_mask')]
    assert ('brain_mask' in targets) != brain_given
    if not brain_given:
        assert targets['brain_mask'] == [('out_mask', 'in_tumor')]
        assert 'counted in' in workflow.__desc__


@pytest.mark.slow
def test_a_real_head(tmp_path):
    """A healthy head: a brain of a brain's size, the head kept around it, no tumour."""
    if not HEAD.is_dir():
        pytest.skip(f'the real head is not here: {HEAD}')
    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', HEAD, tmp_path / 'out', 'participant']
    done = subprocess.run([*command, '-w', tmp_path / 'work'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    t1w, brain, tumor = (
        nb.load(tmp_path / 'out' / 'sub-pumi' / 'anat' / f'sub-pumi_{name}.nii.gz')
        for name in ('desc-preproc_T1w', 'desc-brain_mask', 'label-tumor_mask')
    )
    ml = np.prod(brain.header.get_zooms()) / 1000
    brain, tumor = (np.asanyarray(mask.dataobj) > 0 for mask in (brain, tumor))
    assert 1150 < brain.sum() * ml < 1650
    assert tumor.sum() * ml < 1
    assert (t1w.get_fdata()[~brain] > 0).mean() > 0.2
