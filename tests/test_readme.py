"""What README.md tells a newcomer to do works."""

import re
import shlex
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from tumorreg_wf.cli import parser, simulate, train
from tumorreg_wf.template import Template
from tumorreg_wf.workflows.outputs import init_derivatives_wf

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL)
SHELL = '\n'.join(re.findall(r'^```sh\n(.*?)^```', README, re.MULTILINE | re.DOTALL))
PARSERS = {
    'tumorreg': parser.get_parser,
    'tumorreg-train': train.get_parser,
    'tumorreg-simulate': simulate.get_parser,
}
#: These name an image or its file, and call no program of ours.
IMAGE_COMMANDS = (['docker', 'build'], ['docker', 'save'], ['singularity', 'build'])


def command_lines() -> list[list[str]]:
    """Return each call of a program of ours in the shell blocks, also inside a container."""
    calls = []
    for line in SHELL.replace('\\\n', ' ').splitlines():
        words = shlex.split(line.replace('tumorreg.sif', 'tumorreg'), comments=True)
        programs = [word for word in words if word in PARSERS]
        if programs and words[:2] not in IMAGE_COMMANDS:
            calls.append(words[words.index(programs[0]) :])
    return calls


@pytest.fixture
def phantom(tmp_path, monkeypatch):
    """Put the files the snippets name into a folder of their own, and go there."""
    axes = np.moveaxis(np.indices((48, 48, 48)), 0, -1) - 23.5
    brain = (axes**2).sum(-1) < 20**2
    tumor = ((axes - [8, 0, 0]) ** 2).sum(-1) < 5**2
    grey = (
        500 + 100 * np.sin(axes / 4).sum(-1) + np.random.default_rng(0).normal(0, 5, brain.shape)
    )
    images = {'t1w': brain * (grey - 300 * tumor), 'tumor_mask': tumor, 'brain_mask': brain}
    for name, data in images.items():
        dtype = np.uint8 if name.endswith('mask') else np.float32
        nb.Nifti1Image(data.astype(dtype), np.eye(4)).to_filename(tmp_path / f'{name}.nii.gz')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path) -> np.ndarray:
    """Return an image as float32, axes R, A, S."""
    return nb.as_closest_canonical(nb.load(path)).get_fdata(dtype=np.float32)


def test_snippet_of_a_node(phantom):
    exec(SNIPPETS[0], {})
    (result,) = (phantom / 'work' / 'recover' / 'reorient').glob('*.nii.gz')
    (dilated,) = (phantom / 'work' / 'recover' / 'dilate').glob('*.nii.gz')
    assert nb.aff2axcodes(nb.load(result).affine) == ('L', 'A', 'S')
    hole = read(dilated) > 0
    tumor = read(phantom / 'tumor_mask.nii.gz') > 0
    before, after = read(phantom / 't1w.nii.gz'), read(result)
    assert hole.sum() > tumor.sum()
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert np.mean(after[tumor] != before[tumor]) > 0.9


def test_snippet_of_workflows(phantom):
    namespace: dict = {}
    exec(SNIPPETS[1], namespace)
    graph = generate_expanded_graph(namespace['workflow']._create_flat_graph())
    nodes = {node.name: node for node in graph}
    crops = {f'crop_{name}' for name in ('t1w', 'gm_map', 'wm_map', 'csf_map')}
    assert set(nodes) == {'dilate', 'inpaint', 'find', 'fixed_maps', 'register', *crops}
    for name in ('inpaint', 'find', 'crop_t1w'):
        assert nodes[name].inputs.in_file == str(phantom / 't1w.nii.gz')
    assert nodes['dilate'].inputs.in_mask == str(phantom / 'tumor_mask.nii.gz')
    assert nodes['find'].inputs.brain_mask == str(phantom / 'brain_mask.nii.gz')
    for crop in crops:
        assert nodes[crop].inputs.in_mask == str(phantom / 'brain_mask.nii.gz')
    assert nodes['register'].inputs.moving_image.startswith(str(phantom / 'templates'))
    order = [(source.name, target.name) for source, target in graph.edges]
    assert sorted(order) == [
        ('crop_csf_map', 'fixed_maps'),
        ('crop_gm_map', 'fixed_maps'),
        ('crop_t1w', 'register'),
        ('crop_wm_map', 'fixed_maps'),
        ('dilate', 'find'),
        ('dilate', 'inpaint'),
        ('find', 'crop_csf_map'),
        ('find', 'crop_gm_map'),
        ('find', 'crop_wm_map'),
        ('fixed_maps', 'register'),
    ]
    assert len(list((phantom / 'work').rglob('register/*.h5'))) == 2


def test_there_are_no_other_snippets():
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize('call', command_lines(), ids=' '.join)
def test_command_lines_are_understood(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_masks').mkdir()
    PARSERS[call[0]]().parse_args(call[1:])


def test_command_lines_are_found():
    programs = [call[0] for call in command_lines()]
    assert programs.count('tumorreg') == SHELL.count(' participant') > 0
    assert programs.count('tumorreg-train') == SHELL.count('tumorreg-train') > 0


def test_links_lead_somewhere():
    pages = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md')]
    for page in pages:
        for target in re.findall(r'\]\(([^)#]+)[^)]*\)', page.read_text(encoding='utf-8')):
            if target.startswith('https:'):
                continue
            assert (page.parent / target).is_file(), f'{page.name}: {target}'


def test_every_output_is_explained(tmp_path):
    here = Path(__file__)
    template = Template('TPL', here, here, (here, here, here), 'A', here, here)
    workflow = init_derivatives_wf(
        out_dir=str(tmp_path), bids_dir='/data', t1w='/data/sub-01_T1w.nii.gz', template=template
    )
    sinks = [workflow.get_node(name) for name in workflow.list_node_names()]
    names = {
        name for sink in sinks if sink.name.startswith('ds_') for name in file_names(sink.inputs)
    }
    assert len(names) > 15
    page = (ROOT / 'docs' / 'outputs.md').read_text(encoding='utf-8')
    assert {name for name in names if f'`{name}.' not in page} == set()


def file_names(sink) -> list[str]:
    """Write the names a sink gives, without the entities of its source and the extension."""
    entities = sink.get_traitsfree()
    order = ('space', 'atlas', 'from', 'to', 'mode', 'label', 'desc')
    labels = entities.get('label') or ['']
    return [
        ''.join(
            f'{key}-{value}_'
            for key in order
            if (value := label if key == 'label' else entities.get(key))
        )
        + entities['suffix']
        for label in ([labels] if isinstance(labels, str) else labels)
    ]
