import re
from dataclasses import replace
from pathlib import Path

import pytest

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.settings import Settings
from tumorreg_wf.template import load_template
from tumorreg_wf.weights import find_weights
from tumorreg_wf.workflows.atlas import init_atlas_wf
from tumorreg_wf.workflows.base import init_tumorreg_wf
from tumorreg_wf.workflows.segmentation import init_segmentation_wf


@pytest.fixture
def build(bids_phantom, template_phantom, tmp_path):
    """A function that builds a run's workflow and gives its nodes by name."""

    def make(*anatomies, **options):
        out_dir = tmp_path / 'out'
        out_dir.mkdir()
        settings = Settings(bids_phantom, out_dir, tmp_path / 'work', **options)
        template = load_template(template_phantom, tmp_path / 'templates')
        workflow = init_tumorreg_wf(settings, list(anatomies), template, 'run')
        graph = workflow._create_flat_graph()
        return workflow, {node.fullname.split('.', 1)[1]: node for node in graph.nodes()}

    return make


@pytest.fixture
def anatomy(bids_phantom):
    anat = bids_phantom / 'sub-01' / 'anat'
    return Anatomy('01', None, anat / 'sub-01_T1w.nii.gz', anat / 'sub-01_FLAIR.nii.gz')


def stages(nodes):
    return {name.split('.')[1] for name in nodes}


def test_all_stages_with_flair(build, anatomy):
    workflow, nodes = build(anatomy)
    assert {'coregistration_wf', 'segmentation_wf', 'inpainting_wf', 'atlas_wf'} <= stages(nodes)
    text = workflow.visit_desc()
    for key in ('@n4', '@unet', '@pconv', '@greedy', '@vanleemput'):
        assert key in text


def test_without_flair_nothing_is_coregistered(build, anatomy):
    _, nodes = build(Anatomy('01', None, anatomy.t1w))
    assert 'coregistration_wf' not in stages(nodes)
    assert not any('flair' in name for name in nodes)


@pytest.mark.parametrize(
    ('network', 'members', 'said'),
    [
        ('UNet', [], 'a 2-D U-Net'),
        ('MirrorUNet', [], 'a 3-D U-Net'),
        ('UNetEnsemble', ['SlabUNet', 'UNet'], 'the mean of 2 2-D U-Nets'),
        ('UNetEnsemble', ['SlabUNet', 'MirrorUNet'], 'the mean of 2 U-Nets'),
    ],
)
def test_methods_say_what_kind_of_network_it_was(network, members, said):
    config = {'members': [{'network': one} for one in members]} if members else {}
    weights = replace(find_weights('segmentation'), architecture=network, config=config)
    assert said in init_segmentation_wf(weights=weights).__desc__


def test_methods_say_where_the_templates_tissues_come_from(template_phantom, tmp_path):
    template = load_template(template_phantom, tmp_path)
    said = "Those of Phantom had been found like the patient's."
    assert said not in init_atlas_wf(template=template).__desc__
    assert said in init_atlas_wf(template=replace(template, tissues_found=True)).__desc__


def test_a_given_mask_takes_the_place_of_the_unet(build, anatomy):
    workflow, nodes = build(Anatomy('01', None, anatomy.t1w, anatomy.flair, anatomy.t1w))
    assert 'segmentation_wf' not in stages(nodes)
    assert '[@unet]' not in workflow.visit_desc()


def test_a_brain_found_by_the_network_is_made_of_the_given_mask_too(build, anatomy):
    mask = anatomy.t1w.with_name('sub-01_label-tumor_mask.nii.gz')
    head = replace(anatomy, tumor_mask=mask, skull_strip=True, whole_head=True)
    workflow, nodes = build(head)
    assert 'counted in' in workflow.visit_desc()
    sources = nodes['sub_01_wf.derivatives_wf.ds_brain_mask'].inputs.meta_dict['Sources']
    assert [Path(source).name for source in sources] == [anatomy.t1w.name, mask.name]


def test_sessions_and_runs_have_their_own_workflow(build, anatomy, bids_phantom):
    t1w = anatomy.t1w
    named = [
        Anatomy('01', 'pre', t1w.with_name('sub-01_ses-pre_T1w.nii.gz')),
        Anatomy('01', 'post', t1w.with_name('sub-01_ses-post_run-2_T1w.nii.gz')),
    ]
    _, nodes = build(*named)
    assert {name.split('.')[0] for name in nodes} == {
        'sub_01_ses_pre_wf',
        'sub_01_ses_post_run_2_wf',
    }


def test_every_heavy_node_says_what_it_needs(build, anatomy):
    _, nodes = build(anatomy, omp_nthreads=2)
    for name in (
        'bias_correction_wf.n4_t1w',
        'registration_wf.register',
        'segmentation_wf.segment',
    ):
        node = nodes[f'sub_01_wf.{name}']
        assert node.n_procs == 2
        assert node.interface.inputs.num_threads == 2
        assert node.mem_gb >= 1


def test_seed_reaches_every_registration(build, anatomy):
    _, nodes = build(anatomy, random_seed=7)
    rigid, register = (
        nodes[f'sub_01_wf.{name}.register'].interface
        for name in ('coregistration_wf', 'registration_wf')
    )
    assert rigid.inputs.environ['ANTS_RANDOM_SEED'] == '7'
    for interface, option in ((rigid, '--random-seed 7'), (register, '--seed 7')):
        assert option in interface._format_arg(
            'random_seed', interface.inputs.trait('random_seed'), 7
        )


@pytest.mark.parametrize(
    ('target', 'image', 'masked'),
    [
        ('recovered', 'inpainting_wf', False),
        ('recovered-masked', 'inpainting_wf', True),
        ('original', 'bias_correction_wf', False),
        ('masked', 'bias_correction_wf', True),
    ],
)
def test_registration_target(build, anatomy, target, image, masked):
    workflow, _ = build(anatomy, registration_target=target)
    graph = workflow._create_flat_graph()
    into = {node.fullname.split('_wf.', 2)[-1]: node for node in graph.nodes()}

    def sources(name):
        return {node.fullname.split('.')[2] for node in graph.predecessors(into[name])}

    assert image in sources('registration_wf.inputnode')
    assert ('registration_wf.metric_mask' in into) == masked
    # the tissues that the template is registered by are those of the same image
    assert sources('tissues_wf.inputnode') == {image, 'conform_wf', 'inpainting_wf'}
    assert 'tissues_wf' in sources('registration_wf.inputnode')


@pytest.mark.parametrize(
    ('node', 'field', 'source'),
    [
        # what is under the dilated tumour is the warped template's, and counts as unreliable
        ('atlas_wf.combine_tissues', 'in_mask', 'inpainting_wf.outputnode.dilated_mask'),
        ('atlas_wf.label_atlas_tissues', 'in_files', 'atlas_wf.merge_tissues.out'),
        ('atlas_wf.tables', 'dilated_mask', 'inpainting_wf.outputnode.dilated_mask'),
        ('atlas_wf.tables', 'tumor_mask', 'tumor.mask'),
        ('quality', 'in_file', 'inpainting_wf.outputnode.t1w'),
        ('notes', 'in1', 'conform_wf.outputnode.notes'),
        ('notes', 'in2', 'intensity_wf.outputnode.notes'),
    ],
)
def test_what_flows_where(build, anatomy, node, field, source):
    workflow, _ = build(anatomy)
    graph = workflow._create_flat_graph()
    nodes = {one.fullname.split('.', 2)[2]: one for one in graph.nodes()}

    def origins(name, wanted):
        """Where a field comes from, and the inputs and outputs of stages it went through."""
        for before, _, data in graph.in_edges(nodes[name], data=True):
            for output, field in data['connect']:
                if field == wanted:
                    output = output if isinstance(output, str) else output[0]
                    found = before.fullname.split('.', 2)[2]
                    yield f'{found}.{output}'
                    if found.endswith('putnode'):
                        yield from origins(found, output)

    assert source in list(origins(node, field))


def test_settings_reach_their_nodes(build, anatomy, bids_phantom):
    _, nodes = build(replace(anatomy, skull_strip=False), tumor_dilation=7.0, skull_strip='skip')
    assert nodes['sub_01_wf.inpainting_wf.dilate'].inputs.radius == 7
    assert nodes['sub_01_wf.conform_wf.brain_mask'].inputs.skull_strip == 'skip'
    maps = nodes['sub_01_wf.registration_wf.inputnode'].inputs.template_maps
    kinds = [re.findall(r'label-(GM|WM|CSF)', Path(path).name) for path in maps]
    assert kinds == [['GM'], ['WM'], ['CSF']]


@pytest.mark.parametrize('given', [False, True])
def test_sidecars_say_what_was_given(build, anatomy, tmp_path, given):
    masks = {}
    if given:
        (tmp_path / 'sub-01_desc-brain_mask.json').write_text('{"Manual": true}')
        masks = {
            name: tmp_path / f'sub-01_{ending}.nii.gz'
            for name, ending in (
                ('tumor_mask', 'label-tumor_mask'),
                ('brain_mask', 'desc-brain_mask'),
            )
        }
    workflow, nodes = build(replace(anatomy, whole_head=given, **masks))

    def meta(field):
        return nodes[f'sub_01_wf.derivatives_wf.ds_{field}'].inputs.meta_dict

    def sources(field):
        return [Path(source).name for source in meta(field)['Sources']]

    brain = ['sub-01_desc-brain_mask.nii.gz'] if given else []
    seen = 'sub-01_label-tumor_mask.nii.gz' if given else anatomy.flair.name
    # a person drew what its sidecar says so of
    assert meta('brain_mask')['Manual'] is given
    assert ('Manual' in meta('tumor_mask')) != given
    assert meta('dilated_mask')['Manual'] is False
    assert meta('t1w_preproc')['SkullStripped'] != given
    assert sources('t1w_preproc') == [anatomy.t1w.name, *brain]
    assert sources('brain_mask') == (brain or [anatomy.t1w.name])
    for field in ('tumor_mask', 't1w_inpainted'):
        assert sources(field) == [anatomy.t1w.name, *brain, seen]
    template = ['tpl-Phantom_res-01_desc-brain_T1w.nii.gz']
    labels = ['tpl-Phantom_res-01_atlas-Quarters_dseg.nii.gz']
    for field, more in (('dseg', []), ('gm_probseg', []), ('atlas', labels)):
        assert sources(field) == [anatomy.t1w.name, *brain, seen, *template, *more]
    # where a voxel comes to lie in the template depends on the template
    for field in ('t1w_preproc', 'brain_mask', 'tumor_mask'):
        carried = 'std_' + field.removesuffix('_preproc')
        assert sources(carried) == [*sources(field), *template]
    # of a head what lies around a mask is kept
    bias = workflow.get_node('sub_01_wf.bias_correction_wf')
    edge = bias._graph.get_edge_data(bias.get_node('inputnode'), bias.get_node('n4_t1w'))
    assert ('brain_mask', 'weight_image' if given else 'mask_image') in edge['connect']


def test_syn_needs_no_tissues(build, anatomy):
    _, nodes = build(anatomy, registration_settings='syn', registration_target='original')
    assert 'sub_01_wf.registration_wf.crop_gm_map' not in nodes


def test_output_spaces_leave_out_the_template(build, anatomy):
    _, nodes = build(anatomy, output_spaces=('T1w',))
    assert not any('ds_std_' in name for name in nodes)
