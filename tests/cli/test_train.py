"""tumorreg-train on phantoms."""

import json

import nibabel as nb
import numpy as np
import pytest
from safetensors.numpy import load_file

from tumorreg_wf import __version__
from tumorreg_wf.cli.train import main
from tumorreg_wf.weights import find_weights


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture(scope='module')
def patients(tmp_path_factory, phantom, turned):
    root = tmp_path_factory.mktemp('patients')
    for name, axcodes in (('sub-1', 'RAS'), ('sub-2', 'LPS'), ('sub-3', 'LPS')):
        stem = f'{name}/anat/{name}'
        write(turned(phantom.t1w, axcodes), root / f'{stem}_T1w.nii.gz')
        write(turned(phantom.flair, axcodes), root / f'{stem}_FLAIR.nii.gz')
        label = turned(phantom.tumor, axcodes)
        write(label, root / f'derivatives/truth/{stem}_label-tumor_mask.nii.gz')
    return root


@pytest.fixture(scope='module')
def healthy(tmp_path_factory, phantom):
    root = tmp_path_factory.mktemp('healthy')
    write(phantom.t1w, root / 'sub-h/anat/sub-h_T1w.nii.gz')
    return root


@pytest.fixture(scope='module')
def shapes(tmp_path_factory, phantom):
    """Label volumes: one of oedema, one of core."""
    root = tmp_path_factory.mktemp('shapes')
    for label in (1, 2):
        data = (label * np.asanyarray(phantom.tumor.dataobj)).astype(np.uint8)
        write(nb.Nifti1Image(data, phantom.tumor.affine), root / f'{label}.nii.gz')
    return root


def arguments(task, data, out, *more):
    settings = '--spacing 3 --width 4 --batch 2 --steps 2'.split()
    return [task, str(data), '--out', str(out), *settings, *map(str, more)]


@pytest.fixture(scope='module')
def trained(patients, tmp_path_factory):
    """Segmentation weights after two steps."""
    out = tmp_path_factory.mktemp('seg') / 'new'
    argv = arguments('segmentation', patients, out, '--exclude', 'sub-3', '--name', 'mine')
    assert main(argv) == 0
    return out


def test_segmentation_weights_are_accepted(trained):
    weights = find_weights('segmentation', trained)
    assert (weights.name, weights.architecture, weights.spacing) == ('mine', 'UNet', 3.0)
    assert weights.config == {'width': 4}
    assert (trained / 'log.csv').exists()


def test_model_card(trained, patients):
    card = json.loads((trained / 'model_card.json').read_text())
    assert card['patients'] == ['sub-1', 'sub-2']
    assert card['tumorreg'] == __version__
    assert card['command'].startswith(f'tumorreg-train segmentation {patients} ')
    assert '--exclude sub-3' in card['command']
    assert (card['steps'], card['spacing'], card['config']) == (2, 3.0, {'width': 4})


def test_the_seed_decides(trained, patients, tmp_path):
    tensors = {}
    for seed in (1, 2):
        out = tmp_path / str(seed)
        argv = arguments('segmentation', patients, out, '--exclude', '3', '--random-seed', seed)
        assert main(argv) == 0
        tensors[seed] = load_file(out / 'segmentation.safetensors')
    expected = load_file(trained / 'segmentation.safetensors')
    assert all(np.array_equal(tensors[1][key], expected[key]) for key in expected)
    assert not np.array_equal(tensors[2]['head.weight'], expected['head.weight'])


def test_inpainting(trained, patients, healthy, shapes, tmp_path):
    argv = arguments(
        'inpainting', patients, tmp_path, '--healthy', healthy, '--shapes', shapes,
        '--n-shapes', 1, '--features', trained,
    )  # fmt: skip
    assert main(argv) == 0
    weights = find_weights('inpainting', tmp_path)
    assert weights.architecture == 'PConvUNet'
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert card['healthy'] == ['sub-h'] and card['shapes'] == 1
    assert 'style' in (tmp_path / 'log.csv').read_text()


def test_network_of_the_paper(patients, tmp_path):
    argv = arguments('inpainting', patients, tmp_path, '--architecture', 'PConvNet')
    assert main(argv) == 0
    assert find_weights('inpainting', tmp_path).architecture == 'PConvNet'
    assert 'style' not in (tmp_path / 'log.csv').read_text()


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_any_spacing(task, patients, tmp_path):
    assert main(arguments(task, patients, tmp_path, '--spacing', 2.7)) == 0


def test_simulated_patients(patients, healthy, shapes, tmp_path):
    argv = arguments(
        'segmentation', patients, tmp_path, '--healthy', healthy, '--shapes', shapes,
        '--simulated', 1,
    )  # fmt: skip
    assert main(argv) == 0
    assert json.loads((tmp_path / 'model_card.json').read_text())['simulated'] == 1


def test_it_starts_from_weights(trained, patients, tmp_path):
    argv = arguments('segmentation', patients, tmp_path, '--start-from', trained, '--steps', 0)
    assert main(argv) == 0
    expected = load_file(trained / 'segmentation.safetensors')
    found = load_file(tmp_path / 'segmentation.safetensors')
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--start-from', 'TRAINED', '--width', 8], 'do not fit UNet'),
        (['--start-from', 'nowhere'], 'nowhere: no such weights file'),
        (['--simulated', 3], '--simulated needs --healthy'),
        (['--architecture', 'PConvUNet'], '--architecture PConvUNet: segmentation takes UNet'),
        (['--exclude', '1', '2', '3'], 'no patients with reference labels'),
    ],
)
def test_wrong_use(trained, patients, tmp_path, capsys, more, message):
    more = [trained if item == 'TRAINED' else item for item in more]
    assert main(arguments('segmentation', patients, tmp_path / 'out', *more)) == 1
    error = capsys.readouterr().err
    assert error.startswith('tumorreg-train: ') and message in error
    assert not (tmp_path / 'out').exists()


def test_segmentation_weights_are_no_start_for_inpainting(trained, patients, tmp_path, capsys):
    assert main(arguments('inpainting', patients, tmp_path, '--start-from', trained)) == 1
    assert 'for segmentation, not for inpainting' in capsys.readouterr().err


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['registration', 'data', '--out', 'out'])
    assert stop.value.code == 2
