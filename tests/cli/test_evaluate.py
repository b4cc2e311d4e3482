"""tumorreg-evaluate on phantoms: what goes in, what is written."""

import json
import shutil

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from tumorreg_wf.cli.evaluate import METHODS, MODALITIES, main
from tumorreg_wf.evaluation import brain, fills, holes, inpainting, segmentation
from tumorreg_wf.models.networks import save_network
from tumorreg_wf.models.partial_conv import PConvNet
from tumorreg_wf.models.unet import UNet
from tumorreg_wf.weights import find_weights


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


def describe(root):
    root.mkdir(parents=True, exist_ok=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture
def patients(tmp_path, phantom, turned):
    """Two patients of group a, one of group b without FLAIR; references in other orientations."""
    root = describe(tmp_path / 'patients')
    for name, axcodes in (('a1', 'RAS'), ('a2', 'LPS'), ('b1', 'LAS')):
        stem = f'sub-{name}/anat/sub-{name}'
        write(turned(phantom.t1w, axcodes), root / f'{stem}_T1w.nii.gz')
        if name != 'b1':
            write(turned(phantom.flair, axcodes), root / f'{stem}_FLAIR.nii.gz')
        write(phantom.tumor, root / f'derivatives/expert/{stem}_label-tumor_dseg.nii.gz')
    return root


@pytest.fixture
def healthy(tmp_path, phantom):
    root = describe(tmp_path / 'healthy')
    for name in ('01', '02'):
        write(phantom.t1w, root / f'sub-{name}/anat/sub-{name}_T1w.nii.gz')
    return root


@pytest.fixture
def lesions(tmp_path, phantom):
    """Someone whose bright spot is no tumour."""
    root = describe(tmp_path / 'lesions')
    write(phantom.t1w, root / 'sub-ms1/anat/sub-ms1_T1w.nii.gz')
    write(phantom.flair, root / 'sub-ms1/anat/sub-ms1_FLAIR.nii.gz')
    expert = root / 'derivatives/expert/sub-ms1/anat/sub-ms1_label-lesion_mask.nii.gz'
    write(phantom.tumor, expert)
    return root


@pytest.fixture
def fake_segment(monkeypatch):
    """Instead of a network: tumour is what is bright in FLAIR; without FLAIR, nothing."""

    def segment(network, t1w, flair, brain, *, spacing, device):
        flair = np.zeros(t1w.shape) if flair is None else flair.get_fdata()
        found = flair > 2
        return found.astype(np.float32), found

    monkeypatch.setattr(segmentation, 'segment', segment)
    monkeypatch.setattr(segmentation, 'load_network', lambda weights, device: None)


@pytest.fixture
def fake_inpaint(monkeypatch):
    """Instead of a network: grey value 700; remembers what it was shown."""
    seen = []

    def inpaint(network, t1w, hole, brain, *, spacing, device):
        seen.append((t1w.get_fdata(), hole.get_fdata() > 0))
        return np.full(t1w.shape, 700, np.float32)

    monkeypatch.setattr(fills, 'inpaint', inpaint)
    monkeypatch.setattr(inpainting, 'load_network', lambda weights, device: None)
    return seen


def read(out, name):
    table = pd.read_csv(out / f'{name}.tsv', sep='\t')
    return table, json.loads((out / f'{name}.json').read_text()), (out / f'{name}.md').read_text()


class TestSegmentation:
    def test_patients_and_people_without_a_tumour(
        self, fake_segment, patients, healthy, lesions, tmp_path, capsys
    ):
        out = tmp_path / 'new' / 'out'
        argv = ['segmentation', str(patients), str(out), '--modalities', *MODALITIES]
        argv += ['--no-tumor', str(healthy), str(lesions), '--device', 'cpu']
        assert main(argv) == 0
        table, facts, summary = read(out, 'segmentation')
        assert list(table['participant_id'] + ' ' + table['modalities']) == [
            'sub-a1 T1w+FLAIR', 'sub-a1 T1w', 'sub-a2 T1w+FLAIR', 'sub-a2 T1w', 'sub-b1 T1w',
            'sub-01 T1w', 'sub-02 T1w', 'sub-ms1 T1w+FLAIR', 'sub-ms1 T1w',
        ]  # fmt: skip
        assert list(table['group']) == ['a'] * 4 + ['b'] + ['healthy'] * 2 + ['ms'] * 2
        assert set(table['weights']) == {find_weights('segmentation').name}
        np.testing.assert_allclose(table['dice'][[0, 2]], 1, atol=0.02)
        assert list(table['dice'][[1, 3, 4]]) == [0, 0, 0]
        assert table['dice'][5:].isna().all()
        np.testing.assert_allclose(table['false_positive_ml'][[5, 6]], 0)
        # all of the lesion is found, and next to nothing beside it
        assert table['found_ml'][7] > 4 and table['false_positive_ml'][7] < 0.2

        assert facts['command'].startswith('tumorreg-evaluate segmentation')
        assert facts['weights'][0]['sha256'] == find_weights('segmentation').sha256
        assert set(facts['columns']) == set(table.columns)
        assert '## No tumour' in summary and '| a | 2 |' in summary and '| all | 3 |' in summary
        for name in ('dice', 'worst'):
            assert (out / f'segmentation_{name}.png').stat().st_size > 5000
        assert 'sub-a2 (2 of 6): T1w+FLAIR Dice' in capsys.readouterr().out

    def test_a_damaged_image_is_said_first(
        self, fake_segment, patients, healthy, tmp_path, capsys
    ):
        """Not after hours of work, of which nothing would be left."""
        copy = tmp_path / 'copy'
        shutil.copytree(healthy, copy)
        image = max(copy.glob('sub-*/anat/*_T1w.nii.gz'))
        image.write_bytes(image.read_bytes()[:500])
        argv = ['segmentation', str(patients), str(tmp_path / 'out'), '--no-tumor', str(copy)]
        assert main(argv) == 1
        out, error = capsys.readouterr()
        assert image.name in error and 'Dice' not in out

    def test_found_without_a_tumour_is_wrong(self, fake_segment, patients, lesions, tmp_path):
        for path in lesions.glob('derivatives/*/*/*/*'):
            path.unlink()
        argv = ['segmentation', str(patients), str(tmp_path / 'out'), '--participant-label', 'a1']
        assert main([*argv, '--no-tumor', str(lesions)]) == 0
        table, _, _ = read(tmp_path / 'out', 'segmentation')
        assert list(table['participant_id']) == ['sub-a1', 'sub-ms1']
        assert table['false_positive_ml'][1] == table['found_ml'][1] > 4
        assert table['false_positives'][1] == 1

    def test_group_of_participants_tsv(self, fake_segment, patients, tmp_path):
        (patients / 'participants.tsv').write_text(
            'participant_id\tgroup\nsub-a1\tlow\nsub-a2\thigh\n'
        )
        assert main(['segmentation', str(patients), str(tmp_path / 'out')]) == 0
        table, _, _ = read(tmp_path / 'out', 'segmentation')
        assert list(table['group']) == ['low', 'high', 'b']

    def test_two_weights(self, patients, tmp_path, monkeypatch):
        """Each sees the voxels it was trained on."""
        files, seen = [], []
        for name, spacing in (('one', 4.0), ('two', 5.0)):
            torch.manual_seed(len(files))
            files.append(str(tmp_path / f'{name}.safetensors'))
            facts = {'config': {'width': 4}, 'spacing': spacing}
            save_network(UNet(width=4), files[-1], name=name, task='segmentation', **facts)
        real = segmentation.segment

        def segment(*images, spacing, device):
            seen.append(spacing)
            return real(*images, spacing=spacing, device=device)

        monkeypatch.setattr(segmentation, 'segment', segment)
        argv = ['segmentation', str(patients), str(tmp_path / 'out'), '--weights', *files]
        assert main([*argv, '--participant-label', 'sub-a2', '--device', 'cpu']) == 0
        assert seen == [4.0, 5.0]
        table, facts, _ = read(tmp_path / 'out', 'segmentation')
        assert list(table['weights']) == ['one', 'two'] == [w['name'] for w in facts['weights']]


class TestInpainting:
    @pytest.fixture(autouse=True)
    def small_grid(self, monkeypatch):
        monkeypatch.setattr(holes, 'GRID', (100, 120, 100))

    @pytest.fixture
    def argv(self, healthy, phantom, tmp_path):
        for number in (1, 2, 3):
            write(phantom.tumor, tmp_path / 'shapes' / f'{number}.nii.gz')
        argv = ['inpainting', str(healthy), str(tmp_path / 'out'), '--device', 'cpu']
        return [*argv, '--shapes', str(tmp_path / 'shapes')]

    def test_every_method_on_the_same_holes(self, fake_inpaint, argv, tmp_path, capsys):
        more = ['--scale', '1', '0.5', '--shape-range', '2', '2', '--participant-label', '02']
        assert main([*argv, *more]) == 0
        table, facts, summary = read(tmp_path / 'out', 'inpainting')
        methods = ['mean', 'biharmonic', 'mirror', 'default']
        assert [name for name in table['method'] if name != 'paper'] == 2 * methods
        assert set(table['participant_id']) == {'sub-02'} and set(table['shape']) == {2}
        assert list(table.groupby('hole')['scale'].unique()) == [1, 0.5]
        assert (table.groupby('hole')['volume_ml'].nunique() == 1).all()
        one, half = table.groupby('hole')['volume_ml'].first()
        assert one == pytest.approx(4 / 3 * np.pi * 14**3 / 1000, rel=0.1)
        assert half == pytest.approx(4 / 3 * np.pi * 8.5**3 / 1000, rel=0.15)
        assert facts['random_seed'] == 1
        assert facts['weights'][-1]['sha256'] == find_weights('inpainting').sha256
        assert '## Up to 15 ml' in summary and '## Over 60 ml' not in summary
        for name in ('holes', 'psnr'):
            assert (tmp_path / f'out/inpainting_{name}.png').stat().st_size > 5000
        assert 'sub-02 (1 of 1): 2 holes' in capsys.readouterr().out

    def test_no_method_sees_what_was_there(self, fake_inpaint, argv):
        assert main([*argv, '--methods', 'default', '--holes-per-subject', '2']) == 0
        assert len(fake_inpaint) == 4
        for shown, hole in fake_inpaint:
            assert hole.any() and not shown[hole].any()

    def test_the_seed_decides_for_each_participant(self, fake_inpaint, argv, tmp_path):
        argv += ['--methods', 'mean']
        tables = []
        for more in ([], [], ['--participant-label', '02'], ['--random-seed', '2']):
            assert main([*argv, *more]) == 0
            tables.append(read(tmp_path / 'out', 'inpainting')[0])
        first, same, alone, other = tables
        pd.testing.assert_frame_equal(first, same)
        second = first[first['participant_id'] == 'sub-02'].reset_index(drop=True)
        pd.testing.assert_frame_equal(second, alone)
        assert not first['psnr'].equals(other['psnr'])

    def test_weights_of_the_user(self, argv, tmp_path):
        path, facts = tmp_path / 'my.safetensors', {'config': {'width': 4}, 'spacing': 4.0}
        save_network(PConvNet(width=4), path, name='my-1', task='inpainting', **facts)
        more = ['--participant-label', '01', '--methods', 'mean', '--weights', str(path)]
        assert main([*argv, *more]) == 0
        table, _, _ = read(tmp_path / 'out', 'inpainting')
        assert list(table['method']) == ['mean', 'my-1']

    def test_networks_see_the_voxels_they_were_trained_on(self, monkeypatch):
        seen = []
        monkeypatch.setattr(fills, 'inpaint', lambda *_, spacing, device: seen.append(spacing))
        fills.with_network(None, 4.0, 'cpu')(*np.zeros((3, 5, 5, 5)))
        assert seen == [4.0]

    def test_classes_of_volume(self):
        table = pd.DataFrame({'volume_ml': [10.0, 15, 30, 60, 61]})
        counts = inpainting.by_class(table)['class'].value_counts(sort=False).to_dict()
        expected = {'all holes': 5, 'up to 15 ml': 2, '15 to 60 ml': 2, 'over 60 ml': 1}
        assert counts == expected

    def test_methods_without_weights_are_left_out(
        self, fake_inpaint, argv, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setitem(inpainting.NETWORKS, 'paper', 'nowhere')
        more = ['--participant-label', '01', '--methods', 'mean', 'paper']
        assert main([*argv, *more]) == 0
        assert set(read(tmp_path / 'out', 'inpainting')[0]['method']) == {'mean'}
        assert 'paper: left out. ' in capsys.readouterr().out


class TestBrain:
    @pytest.fixture
    def argv(self, head_labels, phantom, tmp_path, monkeypatch):
        monkeypatch.setattr(brain, 'SPACING', 4.0)
        monkeypatch.setattr(brain, 'SIZE', 48)
        write(phantom.tumor, tmp_path / 'shapes' / 'ball.nii.gz')
        argv = ['brain', str(head_labels), str(tmp_path / 'out'), '--device', 'cpu']
        return [*argv, '--shapes', str(tmp_path / 'shapes')]

    @pytest.mark.parametrize('all_of_it', [True, False])
    def test_tumours_that_are_lost(self, argv, tmp_path, monkeypatch, capsys, all_of_it):
        def extract_brain(network, image, *, spacing, device):
            found = np.full(image.shape, all_of_it)
            return found.astype(np.float32), found

        monkeypatch.setattr(brain, 'extract_brain', extract_brain)
        assert main([*argv, '--label-maps', 'two', '--images', '2']) == 0
        table, facts, summary = read(tmp_path / 'out', 'brain')
        assert list(table['label_map']) == ['two'] * 8
        assert list(table['group']) == [group for group in brain.GROUPS for _ in range(2)]
        assert table['brain_ml'].is_unique  # no two are of one bent head
        assert set(facts['columns']) == set(table.columns)
        assert facts['weights'][0]['sha256'] == find_weights('brain').sha256
        ill = table['tumor_ml'] > 0
        assert ill.any() and (table['tumor_lost'].notna() == ill).all()
        assert (table['tumor_lost'][ill] == (0 if all_of_it else 1)).all()
        whole = 2 * table['brain_ml'] / (table['brain_ml'] + table['found_ml'])
        np.testing.assert_allclose(table['dice'], whole if all_of_it else 0, atol=1e-5)
        assert '| whole head, T1w | 2 |' in summary
        for name in ('dice', 'worst'):
            assert (tmp_path / f'out/brain_{name}.png').stat().st_size > 5000
        assert 'two, stripped, T1w 1' in capsys.readouterr().out

    def test_wrong_use(self, argv, tmp_path, capsys):
        assert main([*argv, '--label-maps', 'three']) == 1
        assert 'no label map three here' in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()


def unreferenced(patients):
    for path in patients.glob('derivatives/*/sub-a2/anat/*'):
        path.unlink()


def with_head(patients):
    """The first patient was not stripped: a scalp on bone around the brain."""
    path = patients / 'sub-a1/anat/sub-a1_T1w.nii.gz'
    image = nb.load(path)
    data = image.get_fdata(dtype=np.float32)
    depth = ndimage.distance_transform_edt(data == 0, sampling=2)
    head = np.select([depth == 0, depth < 10, depth < 16], [data, data.max() / 9, data.max()])
    write(nb.Nifti1Image(head.astype(np.float32), image.affine), path)


@pytest.mark.parametrize(
    ('more', 'prepare', 'message'),
    [
        (['--participant-label', 'x'], None, 'no participant x here'),
        (['--weights', 'nowhere'], None, 'nowhere: no such weights file'),
        (['--no-tumor', 'nowhere'], None, 'nowhere: no such folder'),
        (['--device', 'cuda:77'], None, 'cuda:77'),
        (['--no-tumor', 'patients'], None, 'the same dataset with and without tumours'),
        ([], with_head, 'sub-a1_T1w.nii.gz: this looks like a whole head'),
        ([], unreferenced, 'label-tumor_{dseg,mask}.nii.gz of a2. Name the others'),
    ],
)
def test_wrong_use(patients, tmp_path, capsys, more, prepare, message):
    if prepare:
        prepare(patients)
    more = [str(patients) if word == 'patients' else word for word in more]
    assert main(['segmentation', str(patients), str(tmp_path / 'out'), *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith('tumorreg-evaluate: ') and message in error
    assert not (tmp_path / 'out').exists()


def test_no_shapes(healthy, tmp_path, capsys):
    argv = ['inpainting', str(healthy), str(tmp_path / 'out'), '--methods', 'mean']
    assert main([*argv, '--shapes', str(tmp_path)]) == 1
    assert 'no label volumes' in capsys.readouterr().err


@pytest.mark.parametrize('more', [['--scale', '0'], ['--methods', 'magic'], ['--device', 'tpu']])
def test_wrong_arguments(more):
    with pytest.raises(SystemExit) as stop:
        main(['inpainting', 'data', 'out', '--shapes', 'x', *more])
    assert stop.value.code == 2


def test_the_parser_knows_the_choices():
    assert METHODS == fills.METHODS and MODALITIES == segmentation.MODALITIES
