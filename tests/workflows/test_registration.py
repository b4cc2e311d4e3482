"""The template registered to a T1w, recovered or not, with the tumour masked or not."""

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.cli.parser import REGISTRATION_ENGINES, REGISTRATION_TARGETS
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.warps import read_warp
from tumorreg_wf.images import same_grid
from tumorreg_wf.workflows.engines import (
    ENGINES,
    SETTINGS,
    registration_settings,
    split_stages,
)
from tumorreg_wf.workflows.registration import TARGETS, init_registration_wf

#: Nothing of the tumour gets out of its mask: no smoothing, no matching of histograms, no start by
#: the centre of mass; its grey values lie within those of the brain, by whose range ANTs scales.
SHARP = {
    'dimension': 3,
    'initial_moving_transform_com': 0,
    'transforms': ['Affine'],
    'transform_parameters': [[0.1]],
    'metric': ['MeanSquares'],
    'metric_weight': [1],
    'radius_or_number_of_bins': [0],
    'sampling_strategy': ['None'],
    'number_of_iterations': [[15]],
    'shrink_factors': [[1]],
    'smoothing_sigmas': [[0]],
    'use_histogram_matching': False,
    'write_composite_transform': True,
}


@pytest.fixture
def images(tmp_path):
    """Files: a brain with a bright and with a dark tumour, masks, and the brain moved."""
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.standard_normal((30, 32, 28)), 2)
    where = np.moveaxis(np.indices(texture.shape), 0, -1) - np.array([15, 16, 14])
    brain = ((where / np.array([11, 12, 10])) ** 2).sum(-1) < 1
    tumor = ((where - [5, 0, 0]) ** 2).sum(-1) < 4**2
    healthy = brain * (500 + 1000 * texture)
    arrays = {
        'bright': np.where(tumor, 600, healthy),
        'dark': np.where(tumor, 100, healthy),
        'template': np.roll(healthy, 1, axis=1),
        'brain': brain.astype(float),
        'tumor': tumor.astype(float),
    }
    affine = np.diag([-3.0, -3, 3, 1])
    for name, data in arrays.items():
        nb.Nifti1Image(data.astype(np.float32), affine).to_filename(tmp_path / f'{name}.nii.gz')
    return {name: str(tmp_path / f'{name}.nii.gz') for name in arrays}


def register_both(images, tmp_path, target, settings):
    """Warps of the template to the brain with the bright and with the dark tumour."""
    warps = []
    for tumor in ('bright', 'dark'):
        workflow = init_registration_wf(target=target, settings=settings, random_seed=1)
        workflow.base_dir = str(tmp_path / tumor)
        workflow.inputs.inputnode.t1w = images[tumor]
        workflow.inputs.inputnode.brain_mask = images['brain']
        workflow.inputs.inputnode.dilated_mask = images['tumor']
        workflow.inputs.inputnode.template = images['template']
        graph = workflow.run()
        (register,) = [node for node in graph.nodes() if node.name == 'register']
        warps.append(read_warp(register.result.outputs.composite_transform, images['brain'])[0])
    return warps


@pytest.mark.parametrize(('target', 'sees_it'), [('original', True), ('masked', False)])
def test_the_mask_hides_the_tumour_from_the_metric(images, tmp_path, target, sees_it):
    warps = register_both(images, tmp_path, target, SHARP)
    assert np.abs(warps[0]).max() > 0.1  # it moved
    assert np.array_equal(*warps) != sees_it


def test_the_text_says_what_was_registered():
    texts = {name: init_registration_wf(target=name).visit_desc() for name in TARGETS}
    assert len(set(texts.values())) == 4
    for name, text in texts.items():
        assert ('recovered T1w' in text) == name.startswith('recovered')
        assert ('left out of the metric' in text) == name.endswith('masked')
        assert 'found by their maps of grey matter' in text
    assert 'their maps' not in init_registration_wf(settings='syn').visit_desc()
    efforts = {init_registration_wf(settings=name).visit_desc() for name in SETTINGS}
    assert len(efforts) == len(SETTINGS) == 6


def test_the_parser_knows_the_targets():
    assert REGISTRATION_TARGETS == tuple(TARGETS)
    assert REGISTRATION_ENGINES == tuple(ENGINES)


@pytest.mark.parametrize('name', ['syn', 'syn_sloppy', 'syn_precise'])
def test_stages_come_apart(name):
    settings = registration_settings(name)
    linear, deforming = split_stages(settings)
    assert linear['transforms'] + deforming['transforms'] == settings['transforms']
    assert 'SyN' not in linear['transforms'] and deforming['transforms'] == ['SyN']
    for key, value in settings.items():
        if isinstance(value, list):
            assert linear[key] + deforming[key] == value
    assert linear['initial_moving_transform_com'] == 1
    assert 'initial_moving_transform_com' not in deforming


@pytest.mark.parametrize('effort', ['', '_sloppy', '_precise'])
def test_stages_of_greedy_come_apart(effort):
    settings = registration_settings(f'greedy{effort}')
    linear, deforming = split_stages(settings)
    assert linear | deforming == settings
    assert (set(linear), set(deforming)) == ({'affine'}, {'tissues'})


def test_both_engines_have_the_same_fields():
    """So that either takes the other's place in a workflow."""
    nodes = {}
    for engine in ENGINES:
        workflow = init_registration_wf(target='masked', settings=engine, random_seed=3)
        nodes[engine] = workflow.get_node('register')
        assert f'@{engine}' in workflow.visit_desc()
        assert nodes[engine].inputs.random_seed == 3
    kinds = [type(node.interface).__name__ for node in nodes.values()]
    assert kinds == ['GreedyRegistration', 'Registration']


@pytest.mark.parametrize('target', ['original', 'masked'])
def test_greedy_leaves_out_what_is_masked(images, tmp_path, target):
    settings = {'affine': '-m SSD -n 20', 'deformable': '-m SSD -n 20'}
    warps = register_both(images, tmp_path, target, settings)
    apart = np.abs(warps[0] - warps[1]).max()
    assert np.abs(warps[0]).max() > 0.5  # it moved
    assert (apart > 0.5) == (target == 'original'), apart


def test_maps_of_tissues_reach_greedy_on_the_grid_of_the_image(images, tmp_path):
    workflow = init_registration_wf(
        target='masked', settings={'affine': '-m SSD -n 5', 'tissues': '-m SSD -n 20'}
    )
    workflow.base_dir = str(tmp_path)
    for field, image in (
        ('t1w', 'bright'), ('brain_mask', 'brain'), ('dilated_mask', 'tumor'),
        ('template', 'template'), ('gm_map', 'bright'), ('wm_map', 'brain'), ('csf_map', 'tumor'),
    ):  # fmt: skip
        setattr(workflow.inputs.inputnode, field, images[image])
    workflow.inputs.inputnode.template_maps = [images['template']] * 3
    nodes = {node.name: node for node in workflow.run().nodes()}
    register = nodes['register'].interface.inputs
    sums = [nb.load(path).get_fdata().sum() for path in register.fixed_maps]
    brain = nb.load(images['brain']).get_fdata()
    wanted = [
        (nb.load(images[name]).get_fdata() * brain).sum() for name in ('bright', 'brain', 'tumor')
    ]
    np.testing.assert_allclose(sums, wanted, rtol=1e-5)
    for path in register.fixed_maps:
        assert same_grid(nb.load(path), nb.load(register.fixed_image))
    assert list(register.moving_maps) == [images['template']] * 3


def test_no_such_target():
    with pytest.raises(TumorregError, match="target 'whole': there are recovered-masked, "):
        init_registration_wf(target='whole')


def test_settings_of_the_user(tmp_path):
    path = tmp_path / 'my.json'
    path.write_text('{"_note": "x", "dimension": 3, "transforms": ["Affine"]}')
    assert registration_settings(str(path))['dimension'] == 3
    for stages in ('"deformabel": "-m NCC"', '"affine": "", "deformable": "", "tissues": ""'):
        path.write_text(f'{{{stages}}}')
        with pytest.raises(TumorregError, match='neither settings of greedy'):
            registration_settings(str(path))
    for content, said in (
        ('[]', 'must hold an object'),
        ('{"affine": "", "tissues": {"-n": 3}}', 'are one text'),
        ('{"transforms": ["SyN"], "foo": 1}', "my.json: .*'foo'"),
        ('{"transforms": ["Fast"]}', 'my.json: .*transforms'),
    ):
        path.write_text(content)
        with pytest.raises(TumorregError, match=said):
            registration_settings(str(path))
    with pytest.raises(TumorregError, match='SyN: no settings of a registration. .* syn,'):
        registration_settings('SyN')


def test_deformation_starts_from_an_affine_that_is_given(images, tmp_path):
    """The composite transform holds the affine, too: without steps of SyN it is the affine."""
    syn = {'transforms': ['Affine', 'SyN'], 'transform_parameters': [[0.1], [0.1, 3, 0]]}
    both = {key: 2 * value if isinstance(value, list) else value for key, value in SHARP.items()}
    warps = []
    start = None
    for stages in split_stages(both | syn | {'number_of_iterations': [[15], [0]]}):
        workflow = init_registration_wf(target='original', settings=stages)
        workflow.base_dir = str(tmp_path / stages['transforms'][0])
        workflow.inputs.inputnode.t1w = images['bright']
        workflow.inputs.inputnode.brain_mask = images['brain']
        workflow.inputs.inputnode.template = images['template']
        register = workflow.get_node('register')
        if start is not None:
            register.inputs.initial_moving_transform = start
        graph = workflow.run()
        (register,) = [node for node in graph.nodes() if node.name == 'register']
        start = register.result.outputs.composite_transform
        warps.append(read_warp(start, images['brain'])[0])
    assert np.abs(warps[0]).max() > 0.1
    np.testing.assert_allclose(*warps, atol=1e-2)
