"""The documentation: every page can be reached, and graphs show what there is."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import networkx as nx
import pytest

from tumorreg_wf.workflows.inpainting import init_inpainting_wf

DOCS = Path(__file__).parents[1] / 'docs'
SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture(scope='module')
def graphs():
    spec = importlib.util.spec_from_file_location('graphs', DOCS / 'graphs.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_contents():
    contents = re.findall(r'^\w+$', (DOCS / 'index.md').read_text(encoding='utf-8'), re.MULTILINE)
    assert set(contents) == {page.stem for page in DOCS.glob('*.md')} - {'index'}


def boxes(svg):
    """Return the middle of each box by its name, and the number of lines."""
    root = ET.fromstring(svg)
    found = {
        text.text: (float(text.get('x')), float(text.get('y'))) for text in root.iter(f'{SVG}text')
    }
    return found, len(root.findall(f'{SVG}path'))


def test_a_node_lies_below_all_that_it_needs(graphs):
    graph = nx.gn_graph(12, seed=1).reverse()
    graph.add_edges_from((node, 'outputnode') for node in list(graph))
    graph = nx.relabel_nodes(graph, str)
    found, n_lines = boxes(graphs.draw_graph(graph))
    assert set(found) == set(graph)
    assert len(set(found.values())) == len(graph)
    assert n_lines == graph.number_of_edges()
    assert all(found[source][1] < found[target][1] for source, target in graph.edges)


def test_a_workflow_is_drawn(graphs):
    workflow = init_inpainting_wf()
    found, n_lines = boxes(graphs.draw_workflow(workflow))
    assert set(found) == {'inputnode', 'dilate', 'inpaint', 'outputnode'}
    assert n_lines == workflow._graph.number_of_edges()
    found, _ = boxes(graphs.draw_workflow(workflow, leave_out=['dilate']))
    assert 'dilate' not in found
