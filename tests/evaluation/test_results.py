"""Tables, and which weights they are about."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tumorreg_wf import __version__
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.results import (
    choose_weights,
    describe_weights,
    summarise,
    to_markdown,
    write_results,
)


@pytest.fixture
def weights(tmp_path):
    """A function that writes weights of some name and content."""

    def write(file, name, value):
        metadata = {'name': name, 'task': 'segmentation', 'architecture': 'UNet'}
        path = tmp_path / f'{file}.safetensors'
        save_file({'a': np.array([value])}, path, metadata | {'config': '{}', 'spacing': '1'})
        return path

    return write


def test_weights_of_one_name_stay_apart(weights):
    one, other = weights('one', 'fold', 1.0), weights('other', 'fold', 2.0)
    chosen = choose_weights('segmentation', [one, other, one])
    (first, second) = chosen
    assert first == 'fold' and second == f'fold-{chosen[second].sha256[:8]}'
    assert [weights.path for weights in chosen.values()] == [one, other]
    described = describe_weights(chosen.items())
    assert [row['name'] for row in described] == [first, second]
    assert described[1]['sha256'] == chosen[second].sha256


def test_weights_for_another_task(weights):
    with pytest.raises(TumorregError, match='for segmentation, not for inpainting'):
        choose_weights('inpainting', [weights('one', 'a', 1.0)])


def test_summary_in_the_order_of_the_table():
    table = pd.DataFrame({'group': ['z', 'a', 'z'], 'dice': [0.5, 1.0, 0.7]})
    found = summarise(table, ['group'], [('n', 'dice', 'size'), ('worst', 'dice', 'min')])
    assert found.to_dict('list') == {'group': ['z', 'a'], 'n': [2, 1], 'worst': [0.5, 1.0]}


def test_markdown():
    table = pd.DataFrame({'a': ['x'], 'n': [3], 'b': [0.99891], 'c': [42.288], 'd': [np.nan]})
    assert to_markdown(table).splitlines() == [
        '| a | n | b | c | d |',
        '| --- | --- | --- | --- | --- |',
        '| x | 3 | 0.9989 | 42.29 | n/a |',
    ]


def test_files(tmp_path):
    table = pd.DataFrame({'a': [1.23456789, np.nan]})
    write_results(
        tmp_path, 'x', table, run={'command': 'do'}, columns={'a': 'One.'}, summary='# X\n'
    )
    assert (tmp_path / 'x.tsv').read_text() == 'a\n1.23457\nn/a\n'
    facts = json.loads((tmp_path / 'x.json').read_text())
    assert facts == {'tumorreg': __version__, 'command': 'do', 'columns': {'a': 'One.'}}
    assert (tmp_path / 'x.md').read_text() == '# X\n'
