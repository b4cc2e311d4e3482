"""The template and its atlas as files."""

import shutil
import sys
from types import ModuleType

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import same_grid
from tumorreg_wf.template import load_template


@pytest.fixture(scope='session')
def default(tmp_path_factory):
    folder = tmp_path_factory.mktemp('templates')
    return load_template(None, folder), folder


def files_of(template):
    return [
        template.t1w,
        template.brain_mask,
        *template.tissues,
        template.atlas,
        template.atlas_lut,
    ]


def data_of(path):
    return nb.load(path).get_fdata(dtype=np.float32)


class TestDefault:
    def test_is_written_once(self, default):
        template, folder = default
        before = {path: path.stat().st_mtime_ns for path in folder.rglob('*.*')}
        assert set(before) == set(files_of(template))
        assert load_template(None, folder) == template
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*.*')} == before

    def test_everything_is_on_one_grid(self, default):
        template, _ = default
        t1w = nb.load(template.t1w)
        assert nb.aff2axcodes(t1w.affine) == ('R', 'A', 'S')
        for path in files_of(template)[1:-1]:
            assert same_grid(nb.load(path), t1w)

    def test_t1w_is_stripped(self, default):
        template, _ = default
        brain = data_of(template.brain_mask) > 0
        assert 1500 < brain.sum() / 1000 < 2200
        assert not data_of(template.t1w)[~brain].any()
        assert (data_of(template.t1w)[brain] > 0).mean() > 0.99

    def test_tissues_share_the_brain(self, default):
        template, _ = default
        brain = data_of(template.brain_mask) > 0
        gm, wm, csf = (data_of(path) for path in template.tissues)
        np.testing.assert_allclose((gm + wm + csf)[brain], 1, atol=0.02)
        for tissue in (gm, wm, csf):
            assert tissue.min() >= 0 and tissue.max() <= 1
            assert not tissue[~brain].any()
        t1w = data_of(template.t1w)
        means = [np.average(t1w, weights=tissue) for tissue in (csf, gm, wm)]
        assert means[0] < means[1] < means[2]

    def test_regions_lie_in_their_hemisphere(self, default):
        template, _ = default
        labels = data_of(template.atlas).astype(int)
        lut = pd.read_csv(template.atlas_lut, sep='\t')
        assert list(lut.columns) == ['index', 'name', 'hemisphere', 'network']
        assert lut['name'].is_unique and not lut.isna().any(axis=None)
        assert set(np.unique(labels)) - {0} <= set(lut['index'])
        where = np.argwhere(labels)
        x = nb.affines.apply_affine(nb.load(template.atlas).affine, where)[:, 0]
        side = lut.set_index('index')['hemisphere'].loc[labels[labels > 0]].to_numpy()
        assert (x[side == 'L'] < 0).all()
        assert (x[side == 'R'] >= 0).all()
        assert {'L', 'R'} < set(side)

    def test_regions_cover_tissue(self, default):
        template, _ = default
        labels = data_of(template.atlas)
        gm, wm, csf = (data_of(path) for path in template.tissues)
        assert not labels[data_of(template.brain_mask) == 0].any()
        assert (labels[gm + wm > 0.6] > 0).all()
        assert not labels[csf > 0.9].any()
        volumes = np.bincount(labels[labels > 0].astype(int))[1:]
        assert (volumes > 100).mean() > 0.95


class TestFolder:
    @pytest.fixture
    def source(self, template_phantom, tmp_path):
        """A copy of the phantom, to take pieces from."""
        return shutil.copytree(template_phantom, tmp_path / 'in' / template_phantom.name)

    def test_images_are_taken_as_they_are(self, source, tmp_path):
        template = load_template(source, tmp_path / 'out')
        assert (template.name, template.atlas_name) == ('Phantom', 'Quarters')
        assert not template.tissues_found
        stem = source / 'tpl-Phantom_res-01'
        for path, ending in (
            (template.t1w, 'desc-brain_T1w'),
            (template.brain_mask, 'desc-brain_mask'),
            (template.tissues[0], 'label-GM_probseg'),
            (template.tissues[1], 'label-WM_probseg'),
            (template.tissues[2], 'label-CSF_probseg'),
            (template.atlas, 'atlas-Quarters_dseg'),
        ):
            original = nb.load(f'{stem}_{ending}.nii.gz')
            assert same_grid(nb.load(path), original)
            np.testing.assert_allclose(data_of(path), original.get_fdata(), rtol=1e-5)
        lut = pd.read_csv(template.atlas_lut, sep='\t')
        assert list(lut['name']) == ['back_L', 'back_R', 'front_L', 'front_R']

    def test_the_folder_above_will_do(self, source, tmp_path):
        assert load_template(source.parent, tmp_path / 'out').name == 'Phantom'

    def test_is_written_once(self, source, tmp_path):
        template = load_template(source, tmp_path / 'out')
        before = [path.stat().st_mtime_ns for path in files_of(template)]
        assert load_template(str(source), tmp_path / 'out') == template
        assert [path.stat().st_mtime_ns for path in files_of(template)] == before

    @pytest.mark.parametrize('number', range(7))
    def test_what_is_gone_is_written_anew(self, source, tmp_path, number):
        """Scratch disks are tidied up file by file."""
        template = load_template(source, tmp_path / 'out')
        gone = files_of(template)[number]
        wanted = gone.read_bytes()
        gone.unlink()
        assert load_template(source, tmp_path / 'out') == template
        assert gone.read_bytes() == wanted

    def test_skull_is_stripped_by_the_mask(self, source, tmp_path):
        stripped = source / 'tpl-Phantom_res-01_desc-brain_T1w.nii.gz'
        image = nb.load(stripped)
        head = nb.Nifti1Image(image.get_fdata(dtype=np.float32) + 100, image.affine)
        stripped.unlink()
        head.to_filename(source / 'tpl-Phantom_res-01_T1w.nii.gz')
        template = load_template(source, tmp_path / 'out')
        assert not data_of(template.t1w)[data_of(template.brain_mask) == 0].any()

    def test_tissues_are_found_where_there_are_no_maps_of_all(self, source, tmp_path):
        (source / 'tpl-Phantom_res-01_label-WM_probseg.nii.gz').unlink()
        with pytest.raises(TumorregError, match='no maps of tissues .*label-GM_probseg'):
            load_template(source, tmp_path / 'out')
        seen = []

        def find_tissues(t1w, brain_mask, folder):
            seen.append((t1w.name, brain_mask.name))
            maps = [folder / f'{number}.nii.gz' for number in range(3)]
            for share, path in zip((0.5, 0.3, 0.2), maps, strict=True):
                brain = nb.load(brain_mask)
                nb.Nifti1Image(share * brain.get_fdata(), brain.affine).to_filename(path)
            return maps

        template = load_template(source, tmp_path / 'out', find_tissues=find_tissues)
        assert seen == [
            ('tpl-Phantom_desc-brain_T1w.nii.gz', 'tpl-Phantom_desc-brain_mask.nii.gz')
        ]
        brain = data_of(template.brain_mask)
        np.testing.assert_allclose(data_of(template.tissues[1]), 0.3 * brain, atol=1e-6)
        assert len(list(template.t1w.parent.iterdir())) == 7
        load_template(source, tmp_path / 'out', find_tissues=find_tissues)
        assert len(seen) == 1
        assert template.tissues_found
        other = load_template(source, tmp_path / 'out', find_tissues=find_tissues, found_by='b')
        assert len(seen) == 2 and other.t1w.parent != template.t1w.parent

    def test_a_table_for_all_resolutions_is_found(self, source, tmp_path):
        """TemplateFlow leaves the resolution out of the names of tables."""
        table = source / 'tpl-Phantom_res-01_atlas-Quarters_dseg.tsv'
        table.rename(source / 'tpl-Phantom_atlas-Quarters_dseg.tsv')
        assert len(pd.read_csv(load_template(source, tmp_path / 'o').atlas_lut, sep='\t')) == 4

    def test_atlas_of_another_orientation_is_brought_to_the_t1w(self, source, tmp_path, turned):
        path = source / 'tpl-Phantom_res-01_atlas-Quarters_dseg.nii.gz'
        original = nb.load(path)
        before = original.get_fdata()
        flipped = turned(original, 'LAS')
        nb.Nifti1Image(np.asanyarray(flipped.dataobj), flipped.affine).to_filename(path)
        template = load_template(source, tmp_path / 'out')
        np.testing.assert_array_equal(data_of(template.atlas), before)

    def test_what_templateflow_has_not_fetched_is_not_there(self, source, tmp_path):
        """It keeps an empty file in its place."""
        for ending in ('nii.gz', 'tsv'):
            (source / f'tpl-Phantom_res-01_atlas-Absent_dseg.{ending}').touch()
        assert load_template(source, tmp_path / 'out').atlas_name == 'Quarters'

    def test_what_changed_is_written_anew(self, source, tmp_path):
        before = load_template(source, tmp_path / 'out')
        table = source / 'tpl-Phantom_res-01_atlas-Quarters_dseg.tsv'
        table.write_text(table.read_text().replace('back_L', 'rear_L'))
        after = load_template(source, tmp_path / 'out')
        assert after.atlas_lut.read_text() != before.atlas_lut.read_text()

    def test_an_atlas_of_the_user(self, source, tmp_path):
        given = tmp_path / 'parcels.nii.gz'
        labels = nb.load(source / 'tpl-Phantom_res-01_atlas-Quarters_dseg.nii.gz')
        halves = np.minimum(np.asanyarray(labels.dataobj), 1).astype(np.int16)
        nb.Nifti1Image(halves, labels.affine).to_filename(given)
        with pytest.raises(TumorregError, match='needs a look-up table beside it, parcels.tsv'):
            load_template(source, tmp_path / 'out', atlas=given)
        (tmp_path / 'parcels.tsv').write_text('index\tname\n1\tall\n')
        template = load_template(source, tmp_path / 'out', atlas=given)
        assert (template.name, template.atlas_name) == ('Phantom', 'parcels')
        np.testing.assert_array_equal(data_of(template.atlas), halves)
        away = nb.Nifti1Image(halves, nb.affines.from_matvec(np.eye(3), [900, 0, 0]))
        away.to_filename(given)
        with pytest.raises(TumorregError, match='no label of this atlas lies in the brain'):
            load_template(source, tmp_path / 'out', atlas=given)

    def test_labels_of_an_atlas_without_a_row_are_no_regions(self, source, tmp_path):
        given = tmp_path / 'parcels.nii.gz'
        labels = nb.load(source / 'tpl-Phantom_res-01_atlas-Quarters_dseg.nii.gz')
        halves = np.minimum(np.asanyarray(labels.dataobj), 1).astype(np.int32)
        where = tuple(np.argwhere(halves)[0])
        halves[where] = 2**16 + 1  # would become 1 in 16 bits
        nb.Nifti1Image(halves, labels.affine).to_filename(given)
        (tmp_path / 'parcels.tsv').write_text('index\tname\n1\tall\n')
        found = data_of(load_template(source, tmp_path / 'out', atlas=given).atlas)
        assert found[where] == 0 and found.sum() == (halves == 1).sum()
        (tmp_path / 'parcels.tsv').write_text('index\tname\n9\tall\n')
        with pytest.raises(TumorregError, match=r'parcels\.tsv names none of the labels'):
            load_template(source, tmp_path / 'out', atlas=given)

    def test_labels_stored_with_a_scale_factor(self, source, tmp_path):
        """They are whole numbers but for rounding; cut off, most regions would be lost."""
        image = nb.load(next(source.glob('*atlas-Quarters_dseg.nii.gz')))
        atlas = tmp_path / 'atlas-Scaled_dseg.nii.gz'
        shutil.copy(
            next(source.glob('*atlas-Quarters_dseg.tsv')), tmp_path / 'atlas-Scaled_dseg.tsv'
        )
        labels = image.get_fdata()
        nb.Nifti1Image(labels * (1 - 3e-4), image.affine).to_filename(atlas)
        template = load_template(source, tmp_path / 'out', atlas=atlas)
        assert set(np.unique(data_of(template.atlas))) == set(np.unique(labels))

    def test_an_atlas_that_was_blurred(self, source, tmp_path):
        image = nb.load(next(source.glob('*atlas-Quarters_dseg.nii.gz')))
        atlas = tmp_path / 'atlas-Blurred_dseg.nii.gz'
        shutil.copy(
            next(source.glob('*atlas-Quarters_dseg.tsv')), tmp_path / 'atlas-Blurred_dseg.tsv'
        )
        nb.Nifti1Image(image.get_fdata() * 0.5, image.affine).to_filename(atlas)
        with pytest.raises(TumorregError, match=r'Blurred_dseg\.nii\.gz: its values are no whole'):
            load_template(source, tmp_path / 'out', atlas=atlas)

    def test_atlases_of_a_template_do_not_matter_where_another_is_given(self, source, tmp_path):
        atlas = next(source.glob('*atlas-Quarters_dseg.nii.gz'))
        for path in (atlas, next(source.glob('*atlas-Quarters_dseg.tsv'))):
            shutil.copy(path, tmp_path / path.name.replace('Quarters', 'Mine'))
        nb.Nifti1Image(np.ones((4, 4, 4, 3)), np.eye(4)).to_filename(atlas)
        mine = tmp_path / atlas.name.replace('Quarters', 'Mine')
        assert load_template(source, tmp_path / 'out', atlas=mine).atlas_name == 'Mine'

    def test_atlases_that_desc_tells_apart(self, source, tmp_path):
        names = []
        for parcels in ('100', '400'):
            stem = 'tpl-Phantom_res-01_atlas-Quarters'
            for ending in ('.nii.gz', '.tsv'):
                shutil.copy(
                    source / f'{stem}_dseg{ending}',
                    tmp_path / f'{stem}_desc-{parcels}_dseg{ending}',
                )
            given = tmp_path / f'{stem}_desc-{parcels}_dseg.nii.gz'
            template = load_template(source, tmp_path / 'out', atlas=given)
            names.append(template.atlas_name)
            assert template.atlas_source == given
        assert names == ['Quarters100', 'Quarters400']

    def test_no_such_atlas(self, source, tmp_path):
        atlas = tmp_path / 'atlas-X_dseg.nii.gz'
        atlas.with_name('atlas-X_dseg.tsv').write_text('index\tname\n1\tone\n')
        with pytest.raises(TumorregError, match='atlas-X_dseg.nii.gz: no such file'):
            load_template(source, tmp_path, atlas=atlas)

    @pytest.mark.parametrize('missing', ['desc-brain_T1w', 'desc-brain_mask'])
    def test_missing_image(self, source, tmp_path, missing):
        (source / f'tpl-Phantom_res-01_{missing}.nii.gz').unlink()
        with pytest.raises(TumorregError, match=r'tpl-Phantom: a template needs a T1w and'):
            load_template(source, tmp_path / 'out')
        assert not (tmp_path / 'out').exists()

    @pytest.mark.parametrize('suffix', ['nii.gz', 'tsv'])
    def test_missing_atlas(self, source, tmp_path, suffix):
        (source / f'tpl-Phantom_res-01_atlas-Quarters_dseg.{suffix}').unlink()
        with pytest.raises(TumorregError, match=r'tpl-Phantom: this template has no atlas'):
            load_template(source, tmp_path / 'out')

    def test_corrupt_image(self, source, tmp_path):
        (source / 'tpl-Phantom_res-01_desc-brain_T1w.nii.gz').write_text('nothing')
        with pytest.raises(TumorregError, match='not a readable NIfTI'):
            load_template(source, tmp_path / 'out')

    @pytest.mark.parametrize('name', ['tpl-$(touch x)', 'tpl-<b>', 'tpl-a b'])
    def test_names_are_letters_and_digits(self, source, tmp_path, name):
        with pytest.raises(TumorregError, match='letters and digits alone. Rename it'):
            load_template(source.rename(source.with_name(name)), tmp_path / 'out')

    def test_mni_space_borrows_the_packaged_atlas(self, default, tmp_path):
        template, _ = default
        source = tmp_path / 'tpl-MNIother'
        source.mkdir()
        for path in (template.t1w, template.brain_mask, *template.tissues):
            name = path.name.replace(template.name, 'MNIother')
            (source / name).symlink_to(path)
        found = load_template(source, tmp_path / 'out')
        assert found.atlas_name == template.atlas_name
        agree = data_of(found.atlas) == data_of(template.atlas)
        assert agree.mean() > 0.999


def test_the_packaged_template_by_its_name(default, tmp_path, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.template._fetch', lambda name: pytest.fail('fetched'))
    template, _ = default
    named = load_template(template.name, tmp_path)
    assert named.name == template.name
    np.testing.assert_array_equal(data_of(named.t1w), data_of(template.t1w))


def test_neither_folder_nor_name(tmp_path, monkeypatch):
    templateflow = ModuleType('templateflow')

    class TemplateFlowClient:
        def get(self, name, **entities):
            raise KeyError(f'no template {name}')

    templateflow.TemplateFlowClient = TemplateFlowClient
    monkeypatch.setitem(sys.modules, 'templateflow', templateflow)
    with pytest.raises(TumorregError, match='--template Nowhere: no folder'):
        load_template('Nowhere', tmp_path)
    assert not list(tmp_path.iterdir())
