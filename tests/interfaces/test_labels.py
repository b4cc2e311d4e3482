import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.labels import (
    CombineTissues,
    LabelTissues,
    TumorTables,
    label_tissues,
)


@pytest.fixture
def save(tmp_path, monkeypatch):
    """A function that writes an image of 2 mm; interfaces run in the same folder."""
    monkeypatch.chdir(tmp_path)

    def write(name, data):
        path = tmp_path / f'{name}.nii.gz'
        nb.Nifti1Image(np.asarray(data, np.float32), np.diag([2, 2, 2, 1])).to_filename(path)
        return str(path)

    return write


def test_tissues_with_and_without_the_tumour():
    brain = np.array([1, 1, 1, 1, 1, 0], bool)
    tumor = np.array([0, 1, 0, 0, 0, 0], bool)
    # GM, GM, WM, CSF, beyond the warped atlas, outside the brain
    maps = np.array(
        [[0.9, 0.8, 0.1, 0.1, 0, 1], [0.1, 0.2, 0.9, 0.1, 0, 0], [0, 0, 0, 0.8, 0, 0]]
    )[:, :, None, None]
    shape = (6, 1, 1)
    dseg, healthy, probabilities = label_tissues(maps, brain.reshape(shape), tumor.reshape(shape))
    assert dseg.ravel().tolist() == [1, 7, 2, 3, 3, 0]
    assert healthy.ravel().tolist() == [1, 1, 2, 3, 3, 0]
    np.testing.assert_allclose(probabilities.sum(0).ravel(), [1, 0, 1, 1, 1, 0], atol=1e-6)


def test_label_tissues_alone(save):
    gm = np.linspace(0, 1, 64).reshape(4, 4, 4)
    tumor = gm > 0.8
    outputs = (
        LabelTissues(
            in_files=[save('gm', gm), save('wm', 1 - gm), save('csf', 0 * gm)],
            brain_mask=save('brain', np.ones_like(gm)),
            tumor_mask=save('tumor', tumor),
        )
        .run()
        .outputs
    )
    dseg = np.asanyarray(nb.load(outputs.out_dseg).dataobj)
    healthy = np.asanyarray(nb.load(outputs.out_healthy_dseg).dataobj)
    np.testing.assert_array_equal(dseg == 7, tumor)
    np.testing.assert_array_equal(healthy, np.where(gm > 0.5, 1, 2))
    table = pd.read_csv(outputs.out_lut, sep='\t')
    assert set(np.unique(dseg)) <= {0, *table['index']}
    assert nb.load(outputs.out_gm).get_fdata()[tumor].max() == 0


def test_combine_tissues_alone(save):
    """Where something was replaced the atlas's maps count, elsewhere those found."""
    hole, brain = np.zeros((12, 12, 12)), np.ones((12, 12, 12))
    hole[:, :, 9:], brain[0] = 1, 0
    own, atlas = (0.6, 0.3, 0.1), (0.2, 0.3, 0.5)
    outputs = CombineTissues(
        brain_mask=save('brain', brain),
        in_mask=save('hole', hole),
        tissue_maps=[save(f'own{k}', share * np.ones_like(hole)) for k, share in enumerate(own)],
        atlas_maps=[save(f'atlas{k}', share + hole * 0) for k, share in enumerate(atlas)],
    ).run().outputs  # fmt: skip
    found = np.stack([nb.load(path).get_fdata() for path in outputs.out_files])
    expected = np.where(hole, *(np.reshape(one, (3, 1, 1, 1)) for one in (atlas, own))) * brain
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_maps_on_another_grid_are_refused(save, tmp_path):
    """The same brain, stored from right to left: as large, and elsewhere."""
    brain = save('brain', np.ones((6, 6, 6)))
    flipped = nb.Nifti1Image(np.ones((6, 6, 6), np.float32), np.diag([-2, 2, 2, 1]))
    flipped.to_filename(tmp_path / 'flipped.nii.gz')
    node = CombineTissues(brain_mask=brain, in_mask=brain, atlas_maps=[brain] * 3)
    node.inputs.tissue_maps = [brain, brain, str(tmp_path / 'flipped.nii.gz')]
    with pytest.raises(TumorregError, match=r'flipped\.nii\.gz: not on the grid of the T1w'):
        node.run()


@pytest.mark.parametrize('field', ['brain_mask', 'tumor_mask', 'in_files'])
def test_labels_on_another_grid_are_refused(save, tmp_path, field):
    brain = save('brain', np.ones((6, 6, 6)))
    flipped = str(tmp_path / 'flipped.nii.gz')
    nb.Nifti1Image(np.ones((6, 6, 6), np.float32), np.diag([-2, 2, 2, 1])).to_filename(flipped)
    files = {'in_files': [brain] * 3, 'brain_mask': brain, 'tumor_mask': brain}
    files[field] = [brain, brain, flipped] if field == 'in_files' else flipped
    with pytest.raises(TumorregError, match=r'flipped\.nii\.gz: not on the grid of the T1w'):
        LabelTissues(**files).run()


@pytest.mark.parametrize(
    'field', ['t1w', 'brain_mask', 'tissues', 'atlas_tissues', 'dilated_mask', 'atlas']
)
def test_tables_of_another_grid_are_refused(save, tmp_path, field):
    here = save('here', np.ones((6, 6, 6)))
    flipped = str(tmp_path / 'flipped.nii.gz')
    nb.Nifti1Image(np.ones((6, 6, 6), np.float32), np.diag([-2, 2, 2, 1])).to_filename(flipped)
    (tmp_path / 'lut.tsv').write_text('index\tname\n1\tall\n')
    names = ('tumor_mask', 'std_tumor_mask', 't1w', 'brain_mask', 'tissues', 'atlas_tissues',
             'dilated_mask', 'atlas')  # fmt: skip
    node = TumorTables(
        **dict.fromkeys(names, here), atlas_lut=str(tmp_path / 'lut.tsv'), template_name='TPL'
    )
    setattr(node.inputs, field, flipped)
    with pytest.raises(TumorregError, match=r'flipped\.nii\.gz: not on the grid of the T1w'):
        node.run()


def test_tumor_tables_alone(save, tmp_path):
    tumor, atlas = np.zeros((6, 6, 6)), np.zeros((6, 6, 6))
    tumor[1:3, 1:3, 1:3] = 1
    atlas[:3], atlas[3:] = 1, 2
    brain = np.ones_like(atlas)
    brain[5] = 0  # the warped atlas reaches beyond
    dilated = tumor.copy()
    dilated[3] = 1
    lut = tmp_path / 'lut.tsv'
    lut.write_text('index\tname\n1\tnear\n2\tfar\n')
    outputs = (
        TumorTables(
            tumor_mask=save('tumor', tumor),
            std_tumor_mask=save('std', tumor),
            t1w=save('t1w', atlas),
            brain_mask=save('brain', brain),
            tissues=save('tissues', atlas),
            atlas_tissues=save('atlas_tissues', np.where(atlas == 1, 2, atlas)),
            dilated_mask=save('dilated', dilated),
            atlas=save('atlas', atlas),
            atlas_lut=str(lut),
            template_name='TPL',
            notes=['an oddity'],
        )
        .run()
        .outputs
    )
    regions = pd.read_csv(outputs.out_regions, sep='\t').set_index('name')
    assert regions.loc['near', 'tumor_mm3'] == 64
    assert regions.loc['far', ['tumor_mm3', 'distance_mm']].tolist() == [0, 2]
    assert regions['reliability'].to_dict() == {'near': 0, 'far': 0.5}  # half is made up
    assert regions['volume_mm3'].to_dict() == {'near': 108 * 8, 'far': 72 * 8}
    (row,) = pd.read_csv(outputs.out_tumor, sep='\t').to_dict('records')
    assert (row['volume_mm3'], row['n_regions']) == (64, 1)
    assert (row['centroid_x'], row['centroid_TPL_x']) == (3, 3)
    assert outputs.notes[0] == 'an oddity'
