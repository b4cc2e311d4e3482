"""Each factory's workflow has what its docstring promises, and works in foreign ones."""

import importlib
import inspect
import pkgutil
import re

import pytest
from nipype.interfaces import utility as niu
from nipype.interfaces.base import isdefined
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import generate_expanded_graph

from tumorreg_wf import workflows
from tumorreg_wf.template import Template
from tumorreg_wf.weights import TASKS, find_weights

FILE = __file__  # any file that exists
TEMPLATE = Template('TPL', FILE, FILE, (FILE, FILE, FILE), 'A', FILE, FILE)
PLACES = {'out_dir': '/out', 'bids_dir': '/data', 't1w': '/data/sub-01/anat/sub-01_T1w.nii.gz'}
#: Arguments of each factory; those of a whole run take no inputs of other workflows.
FACTORIES = {
    'init_atlas_wf': {'template': TEMPLATE},
    'init_bias_correction_wf': {},
    'init_conform_wf': {'has_brain_mask': True, 'has_tumor_mask': True},
    'init_coregistration_wf': {},
    'init_derivatives_wf': {**PLACES, 'template': TEMPLATE},
    'init_inpainting_wf': {},
    'init_intensity_wf': {},
    'init_registration_wf': {},
    'init_reportlets_wf': {
        'out_dir': '/out',
        'template': TEMPLATE,
        'weights': {task: find_weights(task) for task in TASKS},
        'flair': '/data/sub-01/anat/sub-01_FLAIR.nii.gz',
    },
    'init_segmentation_wf': {},
    'init_tissues_wf': {},
}
WHOLE_RUN = {'init_tumorreg_wf', 'init_anatomy_wf'}


def find_factories():
    """Return every init_*_wf of the package by name."""
    modules = [
        importlib.import_module(f'{workflows.__name__}.{module.name}')
        for module in pkgutil.iter_modules(workflows.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if re.fullmatch('init_.*_wf', name) and value.__module__ == module.__name__
    }


FOUND = find_factories()


def documented(factory, section):
    """Return the names a section of a numpydoc docstring lists; None if there is no section."""
    found = re.search(
        rf'^{section}\n-+\n(.*?)(?=\n\n\S|\Z)', inspect.getdoc(factory), re.MULTILINE | re.DOTALL
    )
    if found is None:
        return None
    entries = re.findall(r'^(\S.*?)(?: : .*)?$', found[1], re.MULTILINE)
    return [name for entry in entries for name in entry.split(', ')]


def fields(workflow, node):
    """Return the fields of its inputnode or outputnode; None if it has no such node."""
    found = workflow.get_node(node)
    return None if found is None else sorted(found.inputs.copyable_trait_names())


def test_every_factory_is_known():
    assert set(FACTORIES) | WHOLE_RUN == set(FOUND)


def test_the_package_lists_its_factories():
    listed = set(re.findall(r'`~?tumorreg_wf\.workflows\.\w+\.(init_\w+_wf)`', workflows.__doc__))
    assert listed == set(FOUND) - {'init_anatomy_wf'}


@pytest.mark.parametrize('name', sorted(FOUND))
def test_parameters_are_documented(name):
    signature = inspect.signature(FOUND[name])
    assert documented(FOUND[name], 'Parameters') == list(signature.parameters)
    if name in FACTORIES:
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}
        assert signature.parameters['name'].default == name.removeprefix('init_')


@pytest.mark.parametrize('name', FACTORIES)
def test_inputs_and_outputs_are_documented(name):
    workflow = FOUND[name](**FACTORIES[name])
    assert workflow.name == name.removeprefix('init_')
    for section, node in (('Inputs', 'inputnode'), ('Outputs', 'outputnode')):
        promised = documented(FOUND[name], section)
        assert (promised and sorted(promised)) == fields(workflow, node), section


@pytest.mark.parametrize('name', FACTORIES)
def test_connects_in_a_foreign_workflow(name):
    inner = FOUND[name](**FACTORIES[name])
    inputs, outputs = fields(inner, 'inputnode'), fields(inner, 'outputnode') or []
    source = pe.Node(niu.IdentityInterface(fields=inputs), name='source')
    source.inputs.trait_set(**{field: [] if field == 'notes' else FILE for field in inputs})
    outer = pe.Workflow(name='outer')
    outer.connect([(source, inner, [(field, f'inputnode.{field}') for field in inputs])])
    for field in outputs:
        # a node of its own, that stays in the graph
        taker = pe.Node(niu.Rename(format_string='x'), name=f'take_{field}')
        outer.connect([(inner, taker, [(f'outputnode.{field}', 'in_file')])])

    flat = outer._create_flat_graph()
    reached = {
        (node.name, field)
        for _, node, data in flat.edges(data=True)
        for _, field in data['connect']
    }
    assert {f'take_{field}' for field in outputs} <= {node for node, _ in reached}
    for node in flat.nodes():
        for field, trait in node.inputs.traits(mandatory=True).items():
            choices = {field, *(trait.xor or ())}
            given = {choice for choice in choices if isdefined(getattr(node.inputs, choice))}
            given |= {choice for choice in choices if (node.name, choice) in reached}
            assert given, f'{node.fullname}: nothing leads to {field}'
    # every output comes from a node that runs
    graph = generate_expanded_graph(flat)
    takers = [node for node in graph.nodes() if node.name.startswith('take_')]
    assert len(takers) == len(outputs)
    assert all(graph.in_degree(taker) == 1 for taker in takers)
