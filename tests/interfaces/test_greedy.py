"""Registration with greedy, and composite transforms that ANTs reads."""

from pathlib import Path

import h5py
import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.evaluation.warps import read_warp
from tumorreg_wf.greedy_program import fit_levels, read_affine, write_composite
from tumorreg_wf.interfaces.ants import ApplyTransforms
from tumorreg_wf.interfaces.greedy import GreedyRegistration
from tumorreg_wf.workflows.engines import registration_settings

SETTINGS = {'affine': '-m NMI -n 40x20 -dof 12', 'deformable': '-m NCC 2x2x2 -n 20x10 -exp 3'}


@pytest.mark.parametrize('brains', ['RAS', 'LPS', 'oblique'], indirect=True)
def test_registration_and_its_inverse(brains):
    fixed, moving = brains
    found = GreedyRegistration(fixed_image=fixed, moving_image=moving, settings=SETTINGS).run()
    data = nb.load(fixed).get_fdata()
    before = np.corrcoef(data.ravel(), nb.load(moving).get_fdata().ravel())[0, 1]
    for image, reference, transform in (
        (moving, fixed, found.outputs.composite_transform),
        (fixed, moving, found.outputs.inverse_composite_transform),
    ):
        warped = ApplyTransforms(
            dimension=3, input_image=image, reference_image=reference, transforms=[transform]
        ).run()
        out = nb.load(warped.outputs.output_image).get_fdata()
        after = np.corrcoef(nb.load(reference).get_fdata().ravel(), out.ravel())[0, 1]
        assert after > 0.97 > before


@pytest.mark.parametrize('brains', ['oblique'], indirect=True)
def test_a_deformation_from_an_affine_that_is_given(brains, tmp_path, monkeypatch):
    """It ends where both stages in one go end."""
    shifts = []
    affine, deformable = ({key: SETTINGS[key]} for key in SETTINGS)
    for name, stages in (('whole', [SETTINGS]), ('parts', [affine, deformable])):
        start = {}
        for number, settings in enumerate(stages):
            folder = tmp_path / f'{name}{number}'
            folder.mkdir()
            node = GreedyRegistration(
                fixed_image=brains[0], moving_image=brains[1], settings=settings, **start
            )
            outputs = node.run(cwd=str(folder)).outputs
            start = {'initial_moving_transform': outputs.composite_transform}
        shifts.append(read_warp(outputs.composite_transform, brains[0])[0])
    assert np.abs(shifts[0]).max() > 3
    inside = nb.load(brains[0]).get_fdata() > 0
    apart = np.linalg.norm(shifts[0] - shifts[1], axis=-1)[inside]
    # greedy adds noise to the images, in which a background without any has no features
    assert np.median(apart) < 0.1


def test_tissues_alone_deform(brains, tmp_path):
    """One image twice, and maps that lie apart: the affine sees nothing, the deformation does."""
    settings = {'affine': SETTINGS['affine'], 'tissues': SETTINGS['deformable']}
    maps = {'fixed_maps': brains[:1], 'moving_maps': brains[1:]}
    alike = {'fixed_image': brains[0], 'moving_image': brains[0], 'settings': settings}
    outputs = GreedyRegistration(**alike, **maps).run(cwd=str(tmp_path)).outputs
    assert np.abs(read_affine(outputs.composite_transform) - np.eye(4)).max() < 1.5  # mm
    shifts, _ = read_warp(outputs.composite_transform, brains[0])
    inside = nb.load(brains[0]).get_fdata() > 0
    np.testing.assert_allclose(np.median(shifts[inside], axis=0), [0, -6, 0], atol=1)

    with pytest.raises(RuntimeError, match='tissues needs --fixed-maps'):
        GreedyRegistration(**alike).run(cwd=str(tmp_path))


@pytest.mark.parametrize(
    ('slices', 'steps'),
    [(13, '100x50x10'), (12, '100x10'), (7, '100x10'), (6, '100'), (4, '100')],
)
def test_thin_images_have_fewer_levels(slices, steps):
    options = fit_levels('-m SSD -n 100x50x10 -s 2vox 0.5vox', (90, slices, 80))
    assert options == f'-m SSD -n {steps} -s 2vox 0.5vox'


@pytest.mark.parametrize('brains', ['oblique'], indirect=True)
def test_there_and_back_is_where_it_was(brains):
    """Of a turned and bent image, in which the order of the steps shows."""
    fixed, moving = brains
    found = GreedyRegistration(fixed_image=fixed, moving_image=moving, settings=SETTINGS).run()
    both = [found.outputs.composite_transform, found.outputs.inverse_composite_transform]
    back = ApplyTransforms(
        dimension=3, input_image=fixed, reference_image=fixed, transforms=both
    ).run()
    data = nb.load(fixed).get_fdata()
    again = nb.load(back.outputs.output_image).get_fdata()
    assert np.corrcoef(data.ravel(), again.ravel())[0, 1] > 0.99


def test_levels_that_are_not_given():
    assert fit_levels('-m SSD', (9, 9, 2)) == '-m SSD'


@pytest.mark.parametrize('slices', [6, 12])
@pytest.mark.parametrize('brains', ['RAS'], indirect=True)
def test_thin_slabs(brains, slices, tmp_path):
    """greedy would stop: too few voxels to smooth over."""
    fixed, moving = brains
    slab = nb.load(fixed)
    middle = slab.shape[2] // 2 - slices // 2
    slab.slicer[:, :, middle : middle + slices].to_filename(tmp_path / 'slab.nii.gz')
    settings = {'affine': '-m NMI -n 40x20x10 -dof 12', 'deformable': '-m SSD -n 20x10x5'}
    GreedyRegistration(
        fixed_image=str(tmp_path / 'slab.nii.gz'), moving_image=moving, settings=settings
    ).run(cwd=str(tmp_path))


@pytest.mark.parametrize('brains', ['RAS'], indirect=True)
def test_what_is_no_number_is_no_transform(brains, tmp_path):
    fixed = nb.load(brains[0])
    nb.Nifti1Image(np.zeros(fixed.shape, np.uint8), fixed.affine).to_filename('nowhere.nii.gz')
    node = GreedyRegistration(
        fixed_image=brains[0],
        moving_image=brains[1],
        fixed_image_mask=str(Path('nowhere.nii.gz').absolute()),
        settings=SETTINGS,
    )
    with pytest.raises(RuntimeError, match='could not be registered'):
        node.run(cwd=str(tmp_path))
    assert not list(tmp_path.glob('*.h5'))


def test_it_repeats_bit_for_bit(brains, tmp_path):
    fields = []
    for run in ('one', 'other'):
        (tmp_path / run).mkdir()
        node = GreedyRegistration(
            fixed_image=brains[0],
            moving_image=brains[1],
            fixed_maps=brains[:1],
            moving_maps=brains[1:],
            settings=registration_settings('greedy_sloppy'),
            random_seed=5,
        )
        outputs = node.run(cwd=str(tmp_path / run)).outputs
        with h5py.File(outputs.composite_transform) as file:
            fields.append(file['TransformGroup/2/TransformParameters'][:])
    np.testing.assert_array_equal(*fields)


def test_steps_are_applied_in_their_order(tmp_path, monkeypatch):
    """A matrix that turns, then a shift: a point goes where hand and pencil send it."""
    monkeypatch.chdir(tmp_path)
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = nb.eulerangles.euler2mat(np.pi / 2), (1, 2, 3)
    grid = nb.Nifti1Image(np.zeros((8, 8, 8), np.float32), np.diag([2.0, 2, 2, 1]))
    grid.to_filename('grid.nii')
    shift = np.broadcast_to(np.float32([1, 0, 0]), (8, 8, 8, 1, 3))  # 1 mm to the left
    field = nb.Nifti1Image(shift, grid.affine)
    write_composite([field, turn], 'composite.h5')
    shifts, _ = read_warp('composite.h5', 'grid.nii')
    point = np.array([4.0, 6, 8])  # voxel 2, 3, 4
    expected = turn[:3, :3] @ (point + [-1, 0, 0]) + turn[:3, 3] - point
    np.testing.assert_allclose(shifts[2, 3, 4] * [-1, -1, 1], expected, atol=1e-5)

    write_composite([turn], 'affine.h5')
    np.testing.assert_allclose(read_affine('affine.h5'), turn, atol=1e-6)


def test_folders_with_odd_names(brains, tmp_path, monkeypatch):
    """Greedy splits its command at blanks; uncompressed files have another ending."""
    folder = tmp_path / 'a folder, é'
    folder.mkdir()
    monkeypatch.chdir(folder)
    nb.load(brains[1]).to_filename('moving.nii')
    (folder / 'fixed.nii.gz').write_bytes(Path(brains[0]).read_bytes())
    outputs = (
        GreedyRegistration(
            fixed_image=str(folder / 'fixed.nii.gz'),
            moving_image=str(folder / 'moving.nii'),
            settings={'affine': '-m NMI -n 40x20 -dof 12'},
        )
        .run()
        .outputs
    )
    found = read_affine(outputs.composite_transform)
    np.testing.assert_allclose(found[:3, 3], [0, 6, 0], atol=2.5)
    left = {path.name for path in folder.iterdir()}
    assert not any(name.startswith('tmp') for name in left), left


def test_a_program_that_fails_stops_its_node(brains, tmp_path):
    node = GreedyRegistration(
        fixed_image=brains[0], moving_image=brains[1], settings={'affine': '--no-such-option'}
    )
    with pytest.raises(RuntimeError, match='greedy_program ended with exit code'):
        node.run()
