"""The networks as nodes: their own process, the packaged weights, results on the T1w's grid."""

import pickle
import shlex

import nibabel as nb
import numpy as np
import pytest
from nipype.pipeline import engine as pe
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import same_grid, save_like
from tumorreg_wf.interfaces.images import NormalizeIntensity
from tumorreg_wf.interfaces.torch import ExtractBrain, FindTissues, InpaintTumor, SegmentTumor
from tumorreg_wf.weights import find_weights


@pytest.fixture(scope='module')
def files(phantom, turned, tmp_path_factory):
    """The phantom on disk, in LPS."""
    folder = tmp_path_factory.mktemp('images')
    images = {key: turned(image, 'LPS') for key, image in vars(phantom).items()}
    return {
        key: save_like(np.asanyarray(image.dataobj), image, folder / f'{key}.nii.gz')
        for key, image in images.items()
    }


def test_weights_in_a_folder_with_a_space(files, tmp_path, monkeypatch):
    packaged = find_weights('brain')
    weights = tmp_path / 'my weights; x' / 'brain.safetensors'
    weights.parent.mkdir()
    weights.write_bytes(packaged.path.read_bytes())
    (tmp_path / 'node').mkdir()
    monkeypatch.chdir(tmp_path / 'node')
    words = shlex.split(ExtractBrain(in_file=files['t1w'], weights=weights).cmdline)
    assert words[words.index('--weights') + 1] == '../my weights; x/brain.safetensors'


def test_outputs_may_have_any_name(files):
    words = shlex.split(ExtractBrain(in_file=files['t1w'], out_mask='my mask; x.nii.gz').cmdline)
    assert words[words.index('--out-mask') + 1] == 'my mask; x.nii.gz'


def test_weights_set_or_connected_later(tmp_path):
    """The hash is that of the file, in copies of a node and in other processes too."""
    paper, packaged = find_weights('segmentation', 'paper'), find_weights('segmentation')
    node = pe.Node(SegmentTumor(), name='node')
    assert node.inputs.weights_sha256 == packaged.sha256
    for inputs in (node.clone('copy').inputs, pickle.loads(pickle.dumps(node.inputs))):
        assert inputs.weights_sha256 == packaged.sha256
        inputs.weights = str(paper.path)
        assert inputs.weights_sha256 == paper.sha256
    # a hash alone is that of the packaged weights, or there are none
    assert SegmentTumor(weights_sha256=packaged.sha256).inputs.weights == str(packaged.path)
    with pytest.raises(TumorregError, match='the hash of these weights is'):
        SegmentTumor(weights_sha256=paper.sha256)
    # what was planned with other weights stays so
    planned = SegmentTumor(weights=str(paper.path), weights_sha256='of what was planned')
    again = pickle.loads(pickle.dumps(planned))
    assert again.inputs.weights_sha256 == 'of what was planned'


def test_what_runs_on_a_gpu_is_told_to_nipype():
    """Its plugin lets no more of these run at once than there are GPUs."""
    node = pe.Node(SegmentTumor(), name='node')
    assert not node.is_gpu_node()
    node.inputs.device = 'cuda'
    assert node.is_gpu_node() and node.clone('copy').is_gpu_node()


def test_an_input_that_is_refused(files, turned, tmp_path):
    """It is no failure of a program: the reason is all that is said."""
    brain = nb.load(files['brain'])
    mirrored = nb.Nifti1Image(np.asanyarray(brain.dataobj), np.diag([-1, 1, 1, 1]) @ brain.affine)
    path = tmp_path / 'mirrored.nii.gz'
    mirrored.to_filename(path)
    node = FindTissues(in_file=files['t1w'], brain_mask=str(path))
    with pytest.raises(TumorregError, match=r'^\S+mirrored\.nii\.gz: not on the grid of the T1w'):
        node.run(cwd=str(tmp_path))


def test_segment_tumor(files, tmp_path):
    node = pe.Node(SegmentTumor(brain_mask=files['brain']), name='node', base_dir=str(tmp_path))
    for field, name in (('in_file', 't1w'), ('in_flair', 'flair')):
        normal = NormalizeIntensity(in_file=files[name], in_mask=files['brain'])
        (tmp_path / name).mkdir()
        found = normal.run(cwd=str(tmp_path / name)).outputs.out_file
        setattr(node.inputs, field, found)
    assert node.inputs.weights_sha256 == find_weights('segmentation').sha256
    outputs = node.run().outputs
    probability, mask, t1w = map(nb.load, (outputs.out_probseg, outputs.out_mask, files['t1w']))
    assert same_grid(probability, t1w) and same_grid(mask, t1w)
    assert 0 <= probability.get_fdata().min() <= probability.get_fdata().max() <= 1
    assert set(np.unique(mask.dataobj)) <= {0, 1}


def test_inpaint_tumor(files, tmp_path):
    interface = InpaintTumor(
        in_file=files['t1w'], in_mask=files['tumor'], brain_mask=files['brain']
    )
    assert interface.inputs.weights_sha256 == find_weights('inpainting').sha256
    node = pe.Node(interface, name='node', base_dir=str(tmp_path))
    found, t1w = nb.load(node.run().outputs.out_file), nb.load(files['t1w'])
    assert same_grid(found, t1w)
    before, after = t1w.get_fdata(), found.get_fdata()
    hole = nb.load(files['tumor']).get_fdata() > 0
    np.testing.assert_array_equal(after[~hole], before[~hole])
    # white matter of 900 was lowered to 650; it comes back most of the way
    assert np.median(after[hole]) > 0.85 * 900


def test_find_tissues(files, tmp_path):
    interface = FindTissues(in_file=files['t1w'], brain_mask=files['brain'])
    assert interface.inputs.weights_sha256 == find_weights('tissues').sha256
    outputs = pe.Node(interface, name='node', base_dir=str(tmp_path)).run().outputs
    maps = [nb.load(getattr(outputs, f'out_{name}')) for name in ('gm', 'wm', 'csf')]
    assert all(same_grid(image, nb.load(files['t1w'])) for image in maps)
    brain = nb.load(files['brain']).get_fdata()
    np.testing.assert_allclose(sum(image.get_fdata() for image in maps), brain > 0, atol=1e-4)


def test_extract_brain(bids_phantom, turned, tmp_path):
    """A brain in bone and skin."""
    source = nb.load(bids_phantom / 'sub-02/anat/sub-02_T1w.nii.gz')
    t1w = np.pad(np.asanyarray(source.dataobj).astype(np.float32), 8)
    away = ndimage.distance_transform_edt(t1w == 0, sampling=3.0)
    t1w += np.select([away == 0, away <= 3, away <= 9, away <= 15], [0, 200, 40, 900], 0)
    image = turned(nb.Nifti1Image(t1w, source.affine), 'PIR')
    path = save_like(np.asanyarray(image.dataobj), image, tmp_path / 'head.nii.gz')
    interface = ExtractBrain(in_file=path)
    assert interface.inputs.weights_sha256 == find_weights('brain').sha256
    node = pe.Node(interface, name='node', base_dir=str(tmp_path))
    found = nb.load(node.run().outputs.out_mask)
    assert same_grid(found, image)
    brain = turned(nb.Nifti1Image((away == 0) * 1.0, source.affine), 'PIR').get_fdata() > 0
    mask = found.get_fdata() > 0
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.85
