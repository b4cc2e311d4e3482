"""tumorreg-train on phantoms."""

import csv
import json
import platform
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nb
import numpy as np
import pytest
import torch
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


#: The smaller network of each task, which is quick on a CPU.
SMALL = {'segmentation': 'UNet', 'inpainting': 'PConvNet'}


def arguments(task, data, out, *more):
    # weights are the same bit by bit for the same number of threads
    settings = '--spacing 3 --width 4 --batch 2 --steps 2 --device cpu --omp-nthreads 1'.split()
    settings.append('--architecture')
    return [task, str(data), '--out', str(out), *settings, SMALL[task], *map(str, more)]


def same(one, other):
    """Whether two weights files hold the same numbers."""
    one, other = load_file(one), load_file(other)
    return all(np.array_equal(one[key], other[key]) for key in one)


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
    assert card['excluded'] == ['3']
    assert card['command'].startswith(f'tumorreg-train segmentation {patients} ')
    assert '--exclude sub-3' in card['command']
    assert (card['steps'], card['spacing'], card['config']) == (2, 3.0, {'width': 4})
    assert (card['batch'], card['learning_rate'], card['random_seed']) == (2, 2e-3, 1)
    assert set(card['losses']) == {'total', 'cross_entropy', 'dice'}
    with (trained / 'log.csv').open() as stream:
        last = list(csv.DictReader(stream))[-1]
    assert card['losses']['total'] == float(last['total'])
    assert card['validation'] is None
    assert (card['device'], card['seconds']) == ('cpu', round(float(last['seconds'])))
    versions = {'tumorreg': __version__, 'torch': torch.__version__}
    versions['python'] = platform.python_version()
    assert versions.items() <= card.items()


def test_the_seed_decides(trained, patients, tmp_path):
    for seed in (1, 2):
        out = tmp_path / str(seed)
        argv = arguments('segmentation', patients, out, '--exclude', '3', '--random-seed', seed)
        assert main(argv) == 0
    expected = trained / 'segmentation.safetensors'
    assert same(tmp_path / '1' / 'segmentation.safetensors', expected)
    assert not same(tmp_path / '2' / 'segmentation.safetensors', expected)


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_killed_and_resumed_ends_with_the_same_weights(task, patients, tmp_path):
    """The real thing: SIGKILL in the middle, then the same command again."""

    def argv(out):
        more = ['--steps', 20, '--validate', '3', '--validate-every', 6, '--workers', 1]
        return arguments(task, patients, out, *more)

    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    assert main(argv(whole)) == 0
    program = [sys.executable, '-m', 'tumorreg_wf.cli.train', *argv(killed)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
    log = killed / 'validation.csv'
    while not log.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = torch.load(killed / 'checkpoint.pt', weights_only=True)
    assert 0 < state['step'] < 20
    assert not (killed / f'{task}.safetensors').exists()

    assert main(argv(killed)) == 0
    assert same(whole / f'{task}.safetensors', killed / f'{task}.safetensors')
    states = [torch.load(out / 'checkpoint.pt', weights_only=True) for out in (whole, killed)]
    for key, value in states[0]['network'].items():
        assert torch.equal(value, states[1]['network'][key])
    cards = [json.loads((out / 'model_card.json').read_text()) for out in (whole, killed)]
    for key in ('losses', 'validation', 'steps'):
        assert cards[0][key] == cards[1][key]


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--steps', 4], 'steps 2, now 4'),
        (['--random-seed', 2], 'random_seed 1, now 2'),
        (['--width', 6], 'width 4, now 6'),
        (['--exclude', '2'], 'data '),
        (['--spacing', 4], 'spacing 3.0, now 4.0'),
        (['--start-from', 'TRAINED'], 'start_from None, now '),
        (['--validate', '2'], "validate [], now ['2']"),
    ],
)
def test_another_training_is_not_gone_on_with(trained, patients, capsys, more, message):
    before = {path: path.read_bytes() for path in trained.rglob('*') if path.is_file()}
    more = [trained if item == 'TRAINED' else item for item in more]
    argv = arguments('segmentation', patients, trained, '--exclude', '3', *more)
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert f'{trained}: holds a training with other settings' in error and message in error
    assert '--start-from' in error
    assert {path: path.read_bytes() for path in trained.rglob('*') if path.is_file()} == before


def test_a_fold_from_a_file(trained, patients, tmp_path):
    fold = tmp_path / 'fold-1.txt'
    fold.write_text('# kept out\nsub-3  # the last\n')
    argv = arguments('segmentation', patients, tmp_path / 'a', '--exclude', f'@{fold}')
    assert main(argv) == 0
    weights = 'segmentation.safetensors'
    assert same(tmp_path / 'a' / weights, trained / weights)


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_validation(task, patients, healthy, tmp_path):
    """The participants judged by are in no batch; inpainting takes healthy ones, too."""
    more = ['--validate', 'sub-3', '--validate-every', 2, '--steps', 5]
    if task == 'inpainting':
        more += ['--healthy', healthy, '--exclude', '2', '--validate', '3', 'h']
    assert main(arguments(task, patients, tmp_path, *more)) == 0
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert 'sub-3' not in card['patients'] and card['healthy'] == []
    judged = {'sub-3'} if task == 'segmentation' else {'sub-3', 'sub-h'}
    figures = card['validation']['figures']
    assert set(figures) == judged
    assert card['validation']['mean'] == pytest.approx(np.mean(list(figures.values())))
    assert card['validation']['measure'].startswith(
        {'segmentation': 'Dice', 'inpainting': 'PSNR'}[task]
    )
    with (tmp_path / 'validation.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row['step'] for row in rows] == ['2', '4', '5']
    assert max(float(row['mean']) for row in rows) == card['validation']['mean']


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_preset_of_the_paper(task, patients, trained, tmp_path):
    features = ['--features', str(trained)] if task == 'inpainting' else []
    argv = [task, str(patients), '--out', str(tmp_path), '--preset', 'paper', *features]
    assert main([*argv, *'--spacing 3 --steps 3 --width 4 --device cpu'.split()]) == 0
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert card['architecture'] == {'segmentation': 'UNet', 'inpainting': 'PConvNet'}[task]
    assert (card['preset'], card['batch'], card['config']) == ('paper', 6, {'width': 4})
    assert (card['learning_rate'], card['fine_tuning_rate']) == (2e-4, 5e-5)
    terms = card['losses']
    if task == 'segmentation':
        assert terms['total'] == terms['cross_entropy']
    else:
        assert card['feature_network'] == 'mine'
        assert terms['total'] == pytest.approx(
            6 * terms['hole'] + terms['valid'] + 0.05 * terms['perceptual']
            + 120 * terms['style'] + 0.1 * terms['tv'], rel=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_defaults(task, patients, tmp_path, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.training.tasks.CUBE', 32)
    argv = [task, str(patients), '--out', str(tmp_path), '--device', 'cpu', '--spacing', '3']
    assert main([*argv, *'--width 2 --batch 2 --steps 1'.split()]) == 0
    weights = find_weights(task, tmp_path)
    assert (
        weights.architecture == {'segmentation': 'MirrorUNet', 'inpainting': 'PConvUNet3D'}[task]
    )


def test_the_last_layers_of_the_recovery(patients, tmp_path, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.training.tasks.CUBE', 32)
    argv = ['inpainting', str(patients), '--device', 'cpu', '--spacing', '3']
    argv += '--width 2 --batch 2 --steps 2'.split()
    unet, both = tmp_path / 'unet', tmp_path / 'both'
    assert main([*argv, '--out', str(unet)]) == 0
    argv += ['--architecture', 'RefinedPConvUNet3D', '--start-from', str(unet)]
    assert main([*argv, '--out', str(both)]) == 0
    weights = find_weights('inpainting', both)
    assert (weights.architecture, weights.spacing) == ('RefinedPConvUNet3D', 3.0)
    first, second = load_file(unet / 'inpainting.safetensors'), load_file(weights.path)
    assert all((value == second[f'unet.{name}']).all() for name, value in first.items())
    assert second['last.weight'].any()


def test_inpainting(trained, patients, healthy, shapes, tmp_path):
    argv = arguments(
        'inpainting', patients, tmp_path, '--healthy', healthy, '--shapes', shapes,
        '--n-shapes', 1, '--features', trained,
    )  # fmt: skip
    assert main(argv) == 0
    weights = find_weights('inpainting', tmp_path)
    assert weights.architecture == 'PConvNet'
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert card['healthy'] == ['sub-h'] and card['shapes'] == 1
    assert 'style' in (tmp_path / 'log.csv').read_text()


@pytest.mark.parametrize('task', ['segmentation', 'inpainting'])
def test_any_spacing(task, patients, tmp_path):
    assert main(arguments(task, patients, tmp_path, '--spacing', 2.7)) == 0


def test_brain(head_labels, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.training.tasks.IMAGES_PER_HEAD', 1)
    argv = ['brain', str(head_labels), '--out', str(tmp_path), '--shapes', str(shapes)]
    argv += '--width 2 --batch 2 --steps 1 --device cpu --validate two --n-shapes 1'.split()
    assert main(argv) == 0
    weights = find_weights('brain', tmp_path)
    assert (weights.architecture, weights.spacing) == ('BrainUNet', 4.0)
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert (card['anatomies'], card['shapes']) == (['one'], 1)
    assert list(card['validation']['figures']) == ['two-0']
    # its second stage
    second = tmp_path / 'second'
    argv[argv.index(str(tmp_path))] = str(second)
    argv += ['--architecture', 'TwoStageBrainUNet', '--start-from', str(tmp_path)]
    assert main(argv) == 0
    weights = find_weights('brain', second)
    assert (weights.architecture, weights.spacing) == ('TwoStageBrainUNet', 2.0)
    first, both = load_file(tmp_path / 'brain.safetensors'), load_file(weights.path)
    assert all((value == both[f'coarse.{name}']).all() for name, value in first.items())


def test_tissues(head_labels, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.training.tasks.IMAGES_PER_HEAD', 1)
    argv = ['tissues', str(head_labels), '--out', str(tmp_path), '--validate', 'two']
    argv += ['--shapes', str(shapes), '--n-shapes', '1']
    assert main([*argv, *'--width 2 --batch 1 --steps 1 --device cpu'.split()]) == 0
    weights = find_weights('tissues', tmp_path)
    assert (weights.architecture, weights.spacing) == ('TissueUNet', 1.0)
    card = json.loads((tmp_path / 'model_card.json').read_text())
    assert (card['anatomies'], card['shapes']) == (['one'], 1)
    assert list(card['validation']['figures']) == ['two-0']
    # its second stage
    second = tmp_path / 'second'
    argv = ['tissues', str(head_labels), '--out', str(second), '--start-from', str(tmp_path)]
    argv += '--architecture RefinedTissueUNet --width 2 --steps 2 --device cpu'.split()
    assert main(argv) == 0
    weights = find_weights('tissues', second)
    assert (weights.architecture, weights.spacing) == ('RefinedTissueUNet', 1.0)
    first, both = load_file(tmp_path / 'tissues.safetensors'), load_file(weights.path)
    assert all((value == both[f'unet.{name}']).all() for name, value in first.items())


def test_label_maps_named_as_participants(head_labels, tmp_path, capsys):
    folder = shutil.copytree(head_labels, tmp_path / 'maps')
    (path,) = folder.glob('two.nii*')
    path.rename(folder / f'sub-{path.name}')
    argv = ['tissues', str(folder), '--out', str(tmp_path / 'out'), '--width', '2', '--batch', '1']
    assert main([*argv, '--steps', '1', '--device', 'cpu', '--exclude', 'sub-two']) == 0
    card = json.loads((tmp_path / 'out' / 'model_card.json').read_text())
    assert (card['anatomies'], card['excluded']) == (['one'], ['sub-two'])
    assert main([*argv, '--exclude', 'two']) == 1
    assert 'no such participant or label map' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--simulated', 'folder'], '--healthy, --simulated and --features are not for tissues'),
        (['--features', 'folder'], '--healthy, --simulated and --features are not for tissues'),
        (['--architecture', 'RefinedTissueUNet'], 'weights of a TissueUNet, its first stage'),
        (['--spacing', '2'], 'learnt, at 1 mm'),
    ],
)
def test_wrong_use_for_tissues(head_labels, tmp_path, capsys, more, message):
    assert main(['tissues', str(head_labels), '--out', str(tmp_path / 'out'), *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--healthy', 'folder'], '--healthy, --simulated and --features are not for brain'),
        (['--exclude', 'three'], '--exclude three: no such participant or label map in '),
        (['--exclude', 'one', 'two'], 'no label maps to learn from are left'),
        (['--preset', 'paper'], 'the original method has no network for brain'),
        (['--architecture', 'TwoStageBrainUNet'], 'TwoStageBrainUNet needs --start-from'),
    ],
)
def test_wrong_use_for_brain(head_labels, tmp_path, capsys, more, message):
    assert main(['brain', str(head_labels), '--out', str(tmp_path / 'out'), *more]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_simulated_patients(patients, tmp_path):
    argv = arguments('segmentation', patients, tmp_path, '--simulated', patients)
    assert main(argv) == 0
    assert json.loads((tmp_path / 'model_card.json').read_text())['simulated'] == 3


def test_it_starts_from_weights(trained, patients, tmp_path):
    argv = arguments('segmentation', patients, tmp_path, '--start-from', trained, '--steps', 0)
    assert main(argv) == 0
    assert same(tmp_path / 'segmentation.safetensors', trained / 'segmentation.safetensors')
    assert json.loads((tmp_path / 'model_card.json').read_text())['start_from'] == 'mine'


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--start-from', 'TRAINED', '--width', 8], 'do not fit UNet'),
        (['--start-from', 'nowhere'], 'nowhere: no such weights file'),
        (['--start-from', 'TRAINED', '--spacing', 2], 'Choose --spacing 3'),
        (['--healthy', 'PATIENTS'], 'sub-1, sub-2, sub-3: in '),
        (['--architecture', 'PConvNet'], 'PConvNet: segmentation takes MirrorUNet'),
        (['--exclude', '1', '2', '3'], 'no patients with reference labels'),
        (['--validate', '1', '2', '3'], 'no patients with reference labels'),
        (['--exclude', '1', '4'], '--exclude 4: no such participant or label map in '),
        (['--validate', 'x'], '--validate x: no such participant or label map in '),
        (['--exclude', '1', '--validate', '1'], '--validate: sub-1 cannot be judged by'),
        (['--patience', 2], 'need --validate'),
        (['--shapes', 'folder'], 'are not for segmentation'),
    ],
)
def test_wrong_use(trained, patients, tmp_path, capsys, more, message):
    folders = {'TRAINED': trained, 'PATIENTS': patients}
    more = [folders.get(item, item) for item in more]
    assert main(arguments('segmentation', patients, tmp_path / 'out', *more)) == 1
    error = capsys.readouterr().err
    assert error.startswith('tumorreg-train: ') and message in error
    assert not (tmp_path / 'out').exists()


def test_segmentation_weights_are_no_start_for_inpainting(trained, patients, tmp_path, capsys):
    assert main(arguments('inpainting', patients, tmp_path, '--start-from', trained)) == 1
    assert 'for segmentation, not for inpainting' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--simulated', 'folder'], '--simulated is for segmentation'),
        (['--n-shapes', 3], '--n-shapes needs --shapes'),
        (['--architecture', 'PConvUNet3D', '--features', 'TRAINED'], 'is trained without'),
        (['--features', 'nowhere.pth'], 'nowhere.pth: no such weights file'),
    ],
)
def test_wrong_use_for_inpainting(trained, patients, tmp_path, capsys, more, message):
    more = [trained if item == 'TRAINED' else item for item in more]
    assert main(arguments('inpainting', patients, tmp_path / 'out', *more)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['registration', 'data', '--out', 'out'])
    assert stop.value.code == 2
