"""Weights: the right file, or a message that names it."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from tumorreg_wf import weights
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.weights import find_weights, read_weights

METADATA = {
    'name': 'mine-1',
    'task': 'segmentation',
    'architecture': 'UNet',
    'config': '{"width": 4}',
    'spacing': '2.0',
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'mine.safetensors'
    save_file({'a': np.arange(4.0)}, path, METADATA)
    return path


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    folder = shutil.copytree(weights.PACKAGED, tmp_path / 'packaged')
    monkeypatch.setattr(weights, 'PACKAGED', folder)
    return folder


REGISTRY = json.loads((weights.PACKAGED / 'registry.json').read_text())


@pytest.mark.parametrize(
    ('task', 'name'), [(task, name) for task, entries in REGISTRY.items() for name in entries]
)
def test_packaged_weights_are_those_released(task, name):
    found = find_weights(task, name)
    entry = REGISTRY[task][name]
    assert found.sha256 == entry['sha256']
    assert found.task == task
    assert found.path.name == entry['file']
    card = json.loads(found.path.with_suffix('.json').read_text())
    assert card['architecture'] == found.architecture and card['config'] == found.config
    assert card['name'] == found.name


def test_a_name_of_packaged_weights_is_no_path(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'paper').mkdir()
    file.rename(tmp_path / 'paper' / file.name)
    with pytest.raises(TumorregError, match=r'no packaged weights.*only default\. .*\./paper'):
        find_weights('brain', 'paper')


def test_the_default_is_taken_where_none_is_named():
    assert find_weights('segmentation') == find_weights('segmentation', 'default')
    assert find_weights('segmentation', 'paper').architecture == 'UNet'
    assert find_weights('inpainting', 'paper').architecture == 'PConvNet'


@pytest.mark.parametrize('task', REGISTRY)
def test_altered_packaged_weights_are_refused(packaged, task):
    path = packaged / REGISTRY[task]['default']['file']
    assert find_weights(task).path == path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of one parameter
    path.write_bytes(content)
    with pytest.raises(TumorregError, match=rf'{path.name}: these packaged weights were altered'):
        find_weights(task)


def test_a_file_and_its_folder_describe_themselves(file):
    found = find_weights('segmentation', file)
    assert found == find_weights('segmentation', file.parent)
    assert found.path == file
    assert (found.name, found.architecture) == ('mine-1', 'UNet')
    assert found.config == {'width': 4}
    assert found.spacing == 2.0


def test_the_hash_is_that_of_the_content(file, tmp_path):
    other = tmp_path / 'other' / 'renamed.safetensors'
    other.parent.mkdir()
    shutil.copy(file, other)
    assert read_weights(other).sha256 == read_weights(file).sha256
    save_file({'a': np.arange(4.0) + 1}, other, METADATA)
    assert read_weights(other).sha256 != read_weights(file).sha256


def test_weights_for_another_task(file):
    with pytest.raises(TumorregError, match=r'mine\.safetensors: .*for segmentation, not for inp'):
        find_weights('inpainting', file)


def test_missing_file(tmp_path):
    with pytest.raises(TumorregError, match=r'none\.safetensors: no such weights file'):
        find_weights('segmentation', tmp_path / 'none.safetensors')


@pytest.mark.parametrize('count', [0, 2])
def test_folder_without_or_with_several(tmp_path, file, count):
    folder = tmp_path / 'weights'
    folder.mkdir()
    for number in range(count):
        shutil.copy(file, folder / f'{number}.safetensors')
    with pytest.raises(TumorregError, match=rf'weights: one \.safetensors .* {count} found'):
        find_weights('segmentation', folder)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04' + b'pickle' * 20, b'some text' * 10])
def test_other_formats(tmp_path, content):
    path = tmp_path / 'weights.pt'
    path.write_bytes(content)
    with pytest.raises(TumorregError, match=r'weights\.pt: not a weights file of tumorreg'):
        find_weights('segmentation', path)


def test_truncated(file):
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(TumorregError, match=r'mine\.safetensors: not a weights file'):
        find_weights('segmentation', file)


@pytest.mark.parametrize('missing', METADATA)
def test_safetensors_of_others(file, missing):
    save_file({'a': np.zeros(1)}, file, {k: v for k, v in METADATA.items() if k != missing})
    with pytest.raises(TumorregError, match=rf'not a weights file of tumorreg .*{missing}'):
        find_weights('segmentation', file)


def test_names_that_the_methods_would_take_for_a_reference(file):
    save_file({'a': np.zeros(1)}, file, METADATA | {'name': 'mine [@unet]'})
    with pytest.raises(TumorregError, match='its name is not made of letters'):
        find_weights('segmentation', file)


def test_broken_metadata(file):
    save_file({'a': np.zeros(1)}, file, METADATA | {'config': '{'})
    with pytest.raises(TumorregError, match='not a weights file'):
        find_weights('segmentation', file)
