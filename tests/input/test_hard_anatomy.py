"""Every hard case goes through the stages it concerns and ends with a note in the report."""

from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from tumorreg_wf.images import dilate_mask
from tumorreg_wf.interfaces.fragments import read_tsv
from tumorreg_wf.interfaces.labels import LabelTissues, TumorTables
from tumorreg_wf.models.inpainting import inpaint
from tumorreg_wf.models.partial_conv import PConvUNet3D
from tumorreg_wf.quality import MEASURES, measure_quality

SPACING = 4.0


def brain_with(*balls, dark=False):
    """A brain of ellipsoids with balls of tumour: ((x, y, z) mm, radius mm), RAS, centred.

    Parameters
    ----------
    balls : the tumour, also beyond the brain.
    dark : whether it is as dark as fluid.
    """
    shape = np.array([34, 42, 32])
    affine = nb.affines.from_matvec(SPACING * np.eye(3), -SPACING * (shape - 1) / 2)
    where = nb.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    radius = np.sqrt(((where / [58, 74, 54]) ** 2).sum(-1))
    brain = radius < 1
    ventricle = np.zeros(shape, bool)
    for side in (-14, 14):
        ventricle |= (((where - [side, -5, 5]) / [6, 22, 8]) ** 2).sum(-1) < 1
    tissues = np.select([~brain, ventricle | (radius > 0.94), radius > 0.8], [0, 3, 1], 2)
    tumor = np.zeros(shape, bool)
    for centre, size in balls:
        tumor |= np.linalg.norm(where - centre, axis=-1) < size
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 1) * 30
    t1w = np.array([0, 600, 900, 250])[tissues] + noise
    t1w = np.where(tumor & brain, 230 if dark else 450, t1w) * brain
    regions = np.select(
        [~brain, (where[..., 2] < -15) & (where[..., 1] < -10), where[..., 0] < 0], [0, 3, 1], 2
    )
    return SimpleNamespace(
        t1w=t1w.astype(np.float32), brain=brain, tumor=tumor, tissues=tissues, regions=regions,
        affine=affine,
    )  # fmt: skip


#: Each hard case: its brain, and a word of the note the report has; None where none is due.
HARD = {
    'plain': (brain_with(((32, 25, 18), 9)), None),
    'none': (brain_with(), 'No tumour was found'),
    'large': (brain_with(((28, 10, 8), 38)), 'is large'),
    'bilateral': (brain_with(((34, 25, 12), 9), ((-34, 25, 12), 9)), 'both hemispheres'),
    'midline': (brain_with(((0, 42, 8), 13)), 'crosses the midline'),
    'border': (brain_with(((46, 10, 10), 14)), 'border of the brain'),
    'ventricle': (brain_with(((28, 0, 8), 10)), 'next to a ventricle'),
    'posterior fossa': (brain_with(((12, -35, -28), 8)), 'posterior fossa'),
    'cyst': (brain_with(((32, 25, 18), 9), dark=True), 'as dark as fluid'),
    'cavity': (brain_with(((45, 25, 10), 14), dark=True), 'as dark as fluid'),
    'extra-axial': (brain_with(((58, 0, 10), 14)), 'outside of the brain mask'),
    'outside': (brain_with(((66, 60, 55), 6)), 'lies outside'),
    'lesions': (
        brain_with(*(((x, y, 24), 3.5) for x in (-30, 28) for y in (-40, -20, 0, 20))),
        'both hemispheres',
    ),
    'whole brain': (brain_with(((0, 0, 0), 90)), 'covers the whole brain'),
}


LUT = 'index\tname\themisphere\n1\tleft\tL\n2\tright\tR\n3\tinf cerebellum\tB\n'


@pytest.fixture(params=HARD, scope='module')
def hard(request):
    """A hard case and what its note says."""
    case, word = HARD[request.param]
    return SimpleNamespace(name=request.param, note=word, **vars(case))


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return PConvUNet3D(width=4, levels=3).eval()


def image(data, case):
    return nb.Nifti1Image(data.astype(np.float32), case.affine)


@pytest.fixture(scope='module')
def outputs(hard, tmp_path_factory):
    """What the nodes of tissues and tables give, in folders of their own as in a workflow."""
    tmp_path = tmp_path_factory.mktemp('hard')
    (tmp_path / 'tissues').mkdir()
    (tmp_path / 'tables').mkdir()

    def save(name, data):
        image(data, hard).to_filename(tmp_path / f'{name}.nii.gz')
        return str(tmp_path / f'{name}.nii.gz')

    maps = [save(f'map{index}', hard.tissues == index) for index in (1, 2, 3)]
    brain, tumor = save('brain', hard.brain), save('tumor', hard.tumor)
    tissues = LabelTissues(in_files=maps, brain_mask=brain, tumor_mask=tumor)
    labels = tissues.run(cwd=str(tmp_path / 'tissues')).outputs
    (tmp_path / 'lut.tsv').write_text(LUT)
    tables = TumorTables(
        tumor_mask=tumor,
        std_tumor_mask=tumor,
        t1w=save('t1w', hard.t1w),
        brain_mask=brain,
        tissues=labels.out_healthy_dseg,
        atlas_tissues=labels.out_healthy_dseg,
        dilated_mask=tumor,
        atlas=save('atlas', hard.regions),
        atlas_lut=str(tmp_path / 'lut.tsv'),
        template_name='TPL',
        notes=['T1w: odd.'],
    )
    return labels, tables.run(cwd=str(tmp_path / 'tables')).outputs


def test_the_note_is_there_and_no_other_where_none_is_due(hard, outputs):
    first, *notes = outputs[1].notes
    assert first == 'T1w: odd.'  # what was said of the images comes along
    if hard.note is None:
        assert notes == []
    else:
        assert [note for note in notes if hard.note in note], notes


def test_tables(hard, outputs):
    (row,) = read_tsv(outputs[1].out_tumor)
    voxel = abs(np.linalg.det(hard.affine[:3, :3]))
    assert float(row['volume_mm3']) == pytest.approx(hard.tumor.sum() * voxel, rel=1e-5)
    sides = {'bilateral': 'B', 'midline': 'B', 'border': 'R', 'none': 'n/a', 'lesions': 'B'}
    assert row['hemisphere'] == sides.get(hard.name, row['hemisphere'])
    parts = {'none': 0, 'bilateral': 2, 'lesions': 8}
    assert int(row['n_components']) == parts.get(hard.name, 1)
    regions = pd.read_csv(outputs[1].out_regions, sep='\t')
    inside = (hard.tumor & hard.brain).sum() * voxel
    assert regions['tumor_mm3'].sum() == pytest.approx(inside, rel=1e-5)
    assert regions['volume_mm3'].sum() == pytest.approx(hard.brain.sum() * voxel, rel=1e-5)
    assert regions['tumor_fraction'].between(0, 1).all()


def test_tissues(hard, outputs):
    dseg, healthy = (
        np.asanyarray(nb.load(path).dataobj)
        for path in (outputs[0].out_dseg, outputs[0].out_healthy_dseg)
    )
    np.testing.assert_array_equal(dseg == 7, hard.tumor)
    np.testing.assert_array_equal(healthy, hard.tissues)


def test_hole_and_filling(hard, network):
    hole = dilate_mask(hard.tumor, np.full(3, SPACING), SPACING)
    t1w = image(hard.t1w, hard)
    found = inpaint(network, t1w, image(hole, hard), image(hard.brain, hard), spacing=SPACING)
    assert np.isfinite(found).all()
    missing = hole & hard.brain
    assert found[~missing].tobytes() == hard.t1w[~missing].tobytes()
    known = hard.brain & ~hole
    if missing.any() and known.any():
        assert (found[missing] != hard.t1w[missing]).mean() > 0.9
        assert hard.t1w[known].min() <= found[missing].min()
        assert found[missing].max() <= hard.t1w[known].max()
    row = measure_quality(found, hard.t1w, np.zeros(found.shape), hard.brain, hole)
    assert set(row) == set(MEASURES)
    assert 0 <= row['hole_share'] <= 1
