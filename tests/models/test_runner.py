"""The program that runs the networks: files in, files out."""

import nibabel as nb
import numpy as np
import pytest
import torch

from tumorreg_wf.errors import REFUSED
from tumorreg_wf.images import same_grid, save_like
from tumorreg_wf.models import extraction, networks
from tumorreg_wf.models.extraction import extract_brain
from tumorreg_wf.models.inpainting import inpaint
from tumorreg_wf.models.runner import TASKS, main
from tumorreg_wf.models.segmentation import segment
from tumorreg_wf.models.tissues import find_tissues
from tumorreg_wf.weights import read_weights


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Weights of random networks, by the runner's command."""
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    found = {}
    for command, network, config in (
        ('segment', networks.UNet, {'width': 4}),
        ('inpaint', networks.PConvUNet3D, {'width': 4, 'levels': 3}),
        ('strip', networks.BrainUNet, {'width': 2}),
        ('tissues', networks.TissueUNet, {'width': 2}),
    ):
        path = folder / f'{command}.safetensors'
        facts = {'name': command, 'task': TASKS[command], 'config': config, 'spacing': 2.0}
        networks.save_network(network(**config), path, **facts)
        found[command] = read_weights(path)
    return found


@pytest.fixture(scope='module')
def files(tmp_path_factory, phantom, turned):
    """Images on disk, in LPS."""
    folder = tmp_path_factory.mktemp('images')
    images = {key: turned(image, 'LPS') for key, image in vars(phantom).items()}
    return {
        key: save_like(np.asanyarray(image.dataobj), image, folder / f'{key}.nii.gz')
        for key, image in images.items()
    }


def arguments(command, weights, files, tmp_path, /, **changes):
    options = {
        't1w': files['t1w'],
        'brain': files['brain'],
        'weights': weights[command].path,
        'sha256': weights[command].sha256,
    }
    if command == 'strip':
        options |= {'brain': None, 'out-mask': tmp_path / 'mask.nii.gz'}
    elif command == 'segment':
        options |= {
            'flair': files['flair'],
            'out-probseg': tmp_path / 'probseg.nii.gz',
            'out-mask': tmp_path / 'mask.nii.gz',
        }
    elif command == 'tissues':
        options |= {f'out-{name}': tmp_path / f'{name}.nii.gz' for name in ('gm', 'wm', 'csf')}
    else:
        options |= {'hole': files['tumor'], 'out': tmp_path / 'out.nii.gz'}
    options |= changes
    return [command, *(f'--{key}={value}' for key, value in options.items() if value is not None)]


def expected(command, weights, files, *keys):
    network = networks.load_network(weights[command])
    images = [None if key is None else nb.load(files[key]) for key in keys]
    return {'segment': segment, 'inpaint': inpaint}[command](network, *images, spacing=2.0)


@pytest.mark.parametrize('flair', ['flair', None])
def test_segment(weights, files, tmp_path, flair):
    given = {'flair': flair and files[flair]}
    assert main(arguments('segment', weights, files, tmp_path, **given)) == 0
    probability, mask = expected('segment', weights, files, 't1w', flair, 'brain')
    for name, data, dtype in (('probseg', probability, np.float32), ('mask', mask, np.uint8)):
        image = nb.load(tmp_path / f'{name}.nii.gz')
        assert image.get_data_dtype() == dtype
        assert same_grid(image, nb.load(files['t1w']))
        np.testing.assert_allclose(image.get_fdata(), data, atol=1e-6)


def test_weights_of_another_task(weights, files, tmp_path, capsys):
    other = {'weights': weights['segment'].path, 'sha256': weights['segment'].sha256}
    assert main(arguments('tissues', weights, files, tmp_path, **other)) == REFUSED
    assert 'these weights are for segmentation, not for tissues' in capsys.readouterr().err


@pytest.mark.parametrize('hole', ['tumor', None])
def test_tissues(weights, files, tmp_path, hole):
    given = {'hole': hole and files[hole]}
    assert main(arguments('tissues', weights, files, tmp_path, **given)) == 0
    network = networks.load_network(weights['tissues'])
    images = [nb.load(files[name]) for name in ('t1w', 'brain', *([hole] if hole else []))]
    maps = find_tissues(network, *images, spacing=2.0)
    for name, data in zip(('gm', 'wm', 'csf'), maps, strict=True):
        image = nb.load(tmp_path / f'{name}.nii.gz')
        assert same_grid(image, nb.load(files['t1w']))
        np.testing.assert_allclose(image.get_fdata(), data, atol=1e-6)


def test_inpaint(weights, files, tmp_path):
    assert main(arguments('inpaint', weights, files, tmp_path)) == 0
    found, t1w = nb.load(tmp_path / 'out.nii.gz'), nb.load(files['t1w'])
    assert same_grid(found, t1w)
    outside = nb.load(files['tumor']).get_fdata() == 0
    np.testing.assert_array_equal(found.get_fdata()[outside], t1w.get_fdata()[outside])
    np.testing.assert_allclose(
        found.get_fdata(), expected('inpaint', weights, files, 't1w', 'tumor', 'brain'), rtol=1e-5
    )


def test_strip(weights, files, tmp_path, monkeypatch, capsys):
    """A network that was never trained may find anything; too little is refused."""
    monkeypatch.setattr(extraction, 'THRESHOLD', 0.5)
    _, mask = extract_brain(
        networks.load_network(weights['strip']), nb.load(files['t1w']), spacing=2.0
    )
    assert mask.any() and not mask.all()
    monkeypatch.setattr(extraction, 'SMALLEST_BRAIN', 0.0)
    assert main(arguments('strip', weights, files, tmp_path)) == 0
    image = nb.load(tmp_path / 'mask.nii.gz')
    assert same_grid(image, nb.load(files['t1w'])) and image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.get_fdata() > 0, mask)
    # a tumour that is known is brain, whatever the network says
    assert main(arguments('strip', weights, files, tmp_path, tumor=files['tumor'])) == 0
    tumor = nb.load(files['tumor'])
    _, both = extract_brain(
        networks.load_network(weights['strip']), nb.load(files['t1w']), tumor, spacing=2.0
    )
    assert not np.array_equal(both, mask)
    found = nb.load(tmp_path / 'mask.nii.gz').get_fdata() > 0
    np.testing.assert_array_equal(found, both)
    (tmp_path / 'mask.nii.gz').unlink()
    monkeypatch.setattr(extraction, 'SMALLEST_BRAIN', 1e6)
    assert main(arguments('strip', weights, files, tmp_path)) == REFUSED
    assert 'found no brain in the T1w' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('command', 'option'), [('segment', 'flair'), ('segment', 'brain'), ('inpaint', 'hole')]
)
def test_images_on_other_grids_are_refused(
    weights, files, tmp_path, phantom, capsys, command, option
):
    """Same shape and content, but stored in RAS."""
    path = save_like(np.asanyarray(phantom.tumor.dataobj), phantom.tumor, tmp_path / 'ras.nii.gz')
    assert main(arguments(command, weights, files, tmp_path, **{option: path})) == REFUSED
    assert 'ras.nii.gz: not on the grid of the T1w' in capsys.readouterr().err


def test_weights_that_changed_are_refused(weights, files, tmp_path, capsys):
    assert main(arguments('inpaint', weights, files, tmp_path, sha256='0' * 64)) == REFUSED
    assert 'inpaint.safetensors: these weights changed' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['t1w', 'brain', 'hole', 'weights'])
def test_missing_files_are_named(weights, files, tmp_path, capsys, option):
    given = {option: tmp_path / 'absent'}
    assert main(arguments('inpaint', weights, files, tmp_path, **given)) == REFUSED
    message = capsys.readouterr().err
    assert 'absent' in message and 'Traceback' not in message


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['segment', '--t1w=a'])
    assert stop.value.code == 2
    assert '--brain' in capsys.readouterr().err
