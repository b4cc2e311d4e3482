"""What README.md tells a newcomer to do works."""

import re
import shlex
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from tumorreg_wf.cli import parser, simulate, train
from tumorreg_wf.workflows.outputs import init_derivatives_wf

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
SNIPPETS = re.findall(r'^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL)
SHELL = '\n'.join(re.findall(r'^```sh\n(.*?)^```', README, re.MULTILINE | re.DOTALL))
PARSERS = {
    'tumorreg': parser.get_parser,
    'tumorreg-train': train.get_parser,
    'tumorreg-simulate': simulate._parser,
}


def command_lines() -> list[str]:
    """Return every command of ours in the shell blocks, containers' too, without its comment."""
    lines = SHELL.replace('\\\n', ' ').splitlines()
    found = (
        re.search(r'\b(tumorreg(-\w+)?|tumorreg\.sif) (?=[/\w-]+ .*\S)', line) for line in lines
    )
    return [
        line[match.start() :].replace('tumorreg.sif', 'tumorreg')
        for line, match in zip(lines, found)
        if match and not line.startswith('docker save') and ' -f' not in line
    ]


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
    images['template'] = images['t1w']
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
    assert set(nodes) == {'dilate', 'inpaint', 'mask_t1w', 'register'}
    assert nodes['inpaint'].inputs.in_file == str(phantom / 't1w.nii.gz')
    assert nodes['dilate'].inputs.in_mask == str(phantom / 'tumor_mask.nii.gz')
    assert nodes['mask_t1w'].inputs.in_mask == str(phantom / 'brain_mask.nii.gz')
    assert nodes['register'].inputs.moving_image == [str(phantom / 'template.nii.gz')]
    order = [(source.name, target.name) for source, target in graph.edges]
    assert sorted(order) == [
        ('dilate', 'inpaint'),
        ('inpaint', 'mask_t1w'),
        ('mask_t1w', 'register'),
    ]


def test_there_are_no_other_snippets():
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize('line', command_lines())
def test_command_lines_are_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_masks').mkdir()
    program, *arguments = shlex.split(line)
    PARSERS[program]().parse_args(arguments)


def test_command_lines_are_found():
    programs = [line.split()[0] for line in command_lines()]
    assert programs.count('tumorreg') == SHELL.count(' participant')
    assert programs.count('tumorreg-train') == SHELL.count('tumorreg-train')


def test_links_lead_somewhere():
    pages = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md')]
    for page in pages:
        for target in re.findall(r'\]\(([^)#]+)\)', page.read_text(encoding='utf-8')):
            assert (page.parent / target).is_file(), f'{page.name}: {target}'


def test_every_output_is_explained(tmp_path):
    """Each sink's name appears in the table of the README and in docs/outputs.md."""
    workflow = init_derivatives_wf(
        out_dir=str(tmp_path),
        bids_dir='/data',
        t1w='/data/sub-01/anat/sub-01_T1w.nii.gz',
        template=_Template(),
    )
    endings = set()
    for name in workflow.list_node_names():
        sink = workflow.get_node(name).inputs
        if name.startswith('ds_') and not name.endswith('_lut'):
            endings.update(_ending(sink))
    assert len(endings) > 15
    table = README.replace('{GM,WM,CSF}', 'GM') + ''.join(
        README.replace('{GM,WM,CSF}', tissue) for tissue in ('WM', 'CSF')
    )
    outputs = (ROOT / 'docs' / 'outputs.md').read_text(encoding='utf-8')
    assert {ending for ending in endings if ending not in table.replace('<A>', 'A')} == set()
    assert {ending for ending in endings if ending not in outputs} == set()


class _Template:
    name, atlas_name, atlas_lut = 'TPL', 'A', __file__


def _ending(sink) -> list[str]:
    """Write the BIDS name of a sink's file without the entities of the source."""
    values = sink.get_traitsfree()
    if values['suffix'] == 'xfm':
        return [f'from-{values["from"]}_to-{values["to"]}_mode-image_xfm.h5']
    labels = values.get('label') or ['']
    names = []
    for label in labels if isinstance(labels, list) else [labels]:
        entities = {**values, 'label': label}
        stem = ''.join(
            f'{key}-{entities[key]}_'
            for key in ('space', 'atlas', 'label', 'desc')
            if entities.get(key)
        )
        extension = 'tsv' if values['suffix'] == 'morph' else 'nii.gz'
        names.append(f'{stem}{values["suffix"]}.{extension}')
    return names
