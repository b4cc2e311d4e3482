import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import resample
from tumorreg_wf.interfaces.images import (
    Conform,
    ConformMask,
    CropToMask,
    DilateMask,
    InvertMask,
    KeepScale,
    NormalizeIntensity,
    StrippedBrainMask,
)


@pytest.fixture
def save(tmp_path, monkeypatch):
    """A function that writes an image; interfaces run in the same folder."""
    monkeypatch.chdir(tmp_path)

    def write(data, name='image.nii.gz', spacing=(2, 2, 2), flip=False):
        affine = np.diag([*spacing, 1.0])
        if flip:
            data = data[::-1]
            affine[0, 0] *= -1
            affine[0, 3] = spacing[0] * (data.shape[0] - 1)
        path = tmp_path / name
        nb.Nifti1Image(data, affine).to_filename(path)
        return str(path)

    return write


def brain(shape=(30, 30, 30), radius=12):
    distance = np.linalg.norm(
        np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) // 2, axis=-1
    )
    return distance < radius


def load(path):
    return np.asanyarray(nb.load(path).dataobj)


def test_conform_squeezes_and_cleans(save):
    data = np.ones((6, 7, 8, 1), np.float32)
    data[3:] = 2
    data[0, 0, 0] = np.nan
    out = nb.load(Conform(in_file=save(data)).run().outputs.out_file)
    assert out.shape == (6, 7, 8)
    assert out.get_data_dtype() == np.float32
    assert load(out.get_filename())[0, 0, 0] == 0


def test_grey_values_below_zero_are_raised(save):
    inside = brain()
    values = np.random.default_rng(0).normal(0, 1, inside.shape).astype(np.float32)
    result = Conform(in_file=save(values * inside, 'scores.nii.gz')).run().outputs
    raised = load(result.out_file)
    np.testing.assert_array_equal(raised > 0, inside)
    assert (raised[~inside] == 0).all()
    usual = inside & (np.abs(values) < 2)
    np.testing.assert_allclose(np.ptp(raised[usual] - values[usual]), 0, atol=1e-5)
    (note,) = result.notes
    assert 'scores.nii.gz: its grey values go below 0' in note


def test_undershoot_is_cut_off(save):
    values = np.random.default_rng(0).uniform(50, 150, (30, 30, 30)).astype(np.float32)
    values[0, 0, 0], values[1] = -1, 0
    result = Conform(in_file=save(values)).run().outputs
    cleaned = load(result.out_file)
    assert 0 < cleaned[0, 0, 0] < 1
    np.testing.assert_array_equal(cleaned.ravel()[1:], values.ravel()[1:])
    assert not result.notes


def test_wild_voxels_are_cut(save):
    values = np.random.default_rng(0).uniform(50, 150, (30, 30, 30)).astype(np.float32)
    values[3, 3, 3] = 7e8
    result = Conform(in_file=save(values, 'wild.nii.gz')).run().outputs
    cleaned = load(result.out_file)
    assert 1000 < cleaned[3, 3, 3] < 2000
    assert np.count_nonzero(cleaned != values) == 1
    (note,) = result.notes
    assert note.startswith('wild.nii.gz: 1 voxel is more than 10 times as bright')


def test_conform_refuses_an_empty_image(save):
    with pytest.raises(TumorregError, match='every voxel is 0'):
        Conform(in_file=save(np.zeros((6, 7, 8), np.int16))).run()


def test_a_flipped_mask_finds_its_place(save):
    mask = np.zeros((10, 12, 14), np.uint8)
    mask[1:3, 4:6, 7:9] = 3
    reference = save(np.ones(mask.shape, np.float32), 'reference.nii.gz')
    found = ConformMask(in_file=save(mask, flip=True), reference=reference).run().outputs.out_mask
    np.testing.assert_array_equal(load(found), mask > 0)
    assert nb.load(found).get_data_dtype() == np.uint8


def test_a_mask_that_lies_elsewhere_is_refused(save):
    mask = np.zeros((40, 12, 14), np.uint8)
    mask[30:] = 1
    reference = save(np.ones((10, 12, 14), np.float32), 'reference.nii.gz')
    with pytest.raises(TumorregError, match='does not overlap'):
        ConformMask(in_file=save(mask), reference=reference).run()


def test_brain_mask_of_a_stripped_image(save):
    inside = brain()
    data = (inside * 100).astype(np.int16)
    data[15, 15, 15] = 0  # a dark voxel in the brain
    found = StrippedBrainMask(in_file=save(data)).run().outputs.out_mask
    np.testing.assert_array_equal(load(found), inside)


def test_a_whole_head_is_refused_unless_skipped(save):
    path = save(np.full((80, 80, 80), 5, np.int16), spacing=(3, 3, 3))
    with pytest.raises(TumorregError, match='whole head'):
        StrippedBrainMask(in_file=path).run()
    assert load(StrippedBrainMask(in_file=path, skull_strip='skip').run().outputs.out_mask).all()


def test_normalize_and_mask(save):
    inside = brain()
    rng = np.random.default_rng(0)
    image = save(rng.uniform(100, 900, inside.shape).astype(np.float32))
    mask = save(inside.astype(np.uint8), 'mask.nii.gz')
    out = load(NormalizeIntensity(in_file=image, in_mask=mask).run().outputs.out_file)
    assert abs(out[inside].mean()) < 1e-3 and abs(out[inside].std() - 1) < 1e-2
    assert not out[~inside].any()


def test_a_flair_of_a_part_of_the_brain(save):
    """What was not imaged is no tissue: it stays 0, and the rest is as it was."""
    inside = brain()
    data = np.random.default_rng(0).uniform(100, 900, inside.shape).astype(np.float32)
    mask = save(inside.astype(np.uint8), 'mask.nii.gz')
    part = data.copy()
    part[: part.shape[0] // 2] = 0
    missing = inside & (part == 0)
    assert 0.2 * inside.sum() < missing.sum() < 0.8 * inside.sum()
    outputs = [
        NormalizeIntensity(in_file=image, in_mask=mask, modality='FLAIR').run().outputs
        for image in (save(data), save(part, 'part.nii.gz'))
    ]
    results, notes = [load(one.out_file) for one in outputs], [one.notes for one in outputs]
    assert not results[1][missing].any()
    share = missing.sum() / inside.sum()
    assert notes[0] == []
    assert notes[1][0].startswith(f'The FLAIR does not show {share:.0%} of the brain')
    seen = inside & ~missing
    assert np.abs(results[0] - results[1])[seen].mean() < 0.05


def test_a_tenth_of_the_brain_without_flair_is_said(save):
    inside = brain()
    data = np.random.default_rng(0).uniform(100, 900, inside.shape).astype(np.float32)
    layers = np.cumsum(inside.sum((1, 2))) < 0.1 * inside.sum()
    data[layers] = 0
    mask = save(inside.astype(np.uint8), 'mask.nii.gz')
    node = NormalizeIntensity(in_file=save(data), in_mask=mask, modality='FLAIR')
    assert 'does not show' in node.run().outputs.notes[0]


def test_the_scale_is_kept(save):
    inside = brain()
    data = np.random.default_rng(0).uniform(100, 900, inside.shape).astype(np.float32)
    image, reference = save(1.5 * data), save(data, 'reference.nii.gz')
    mask = save(inside.astype(np.uint8), 'mask.nii.gz')
    out = KeepScale(in_file=image, in_mask=mask, reference=reference).run().outputs.out_file
    np.testing.assert_allclose(load(out), data, rtol=1e-5)
    nothing = save(0 * inside.astype(np.uint8), 'nothing.nii.gz')
    out = KeepScale(in_file=image, in_mask=nothing, reference=reference).run().outputs.out_file
    np.testing.assert_allclose(load(out), 1.5 * data, rtol=1e-5)


def test_crop_keeps_the_brain_where_it_is(save):
    inside = brain((40, 36, 44), 8)
    rng = np.random.default_rng(0)
    image = save(rng.uniform(100, 900, inside.shape).astype(np.float32), flip=True)
    mask = save(inside.astype(np.uint8), 'mask.nii.gz', flip=True)
    out = nb.load(CropToMask(in_file=image, in_mask=mask, margin=5).run().outputs.out_file)
    assert out.shape == (15 + 6,) * 3
    back = resample(out, nb.load(image), order=0)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), load(image) * load(mask))


def test_the_margin_is_in_millimetres_along_each_axis(save):
    mask = np.zeros((40, 40, 20), np.uint8)
    mask[18:22, 18:22, 9:11] = 1
    path = save(mask, spacing=(1, 1, 5))
    out = nb.load(CropToMask(in_file=path, in_mask=path, margin=10).run().outputs.out_file)
    assert out.shape[:2] == (24, 24) and out.shape[2] >= 6  # at least as much along the third


def test_dilation_is_in_millimetres(save):
    mask = np.zeros((21, 21, 21), np.uint8)
    mask[10, 10, 10] = 1
    path = save(mask, spacing=(1, 1.5, 3))
    out = load(DilateMask(in_mask=path, radius=3).run().outputs.out_mask)
    # 3 mm are 3, 2 and 1 voxels along the axes
    assert [out[:, 10, 10].sum(), out[10, :, 10].sum(), out[10, 10].sum()] == [7, 5, 3]


def test_everything_but_a_mask(save):
    mask = brain()
    out = InvertMask(in_mask=save(mask.astype(np.int16), flip=True)).run().outputs.out_mask
    np.testing.assert_array_equal(load(out), ~mask[::-1])
    assert load(out).dtype == np.uint8


def test_everything_but_everything(save):
    """No registration can be measured nowhere."""
    out = InvertMask(in_mask=save(np.ones((6, 7, 8), np.uint8))).run().outputs.out_mask
    assert load(out).all()


@pytest.mark.parametrize(
    ('interface', 'field'),
    [
        (CropToMask, 'in_mask'),
        (NormalizeIntensity, 'in_mask'),
        (KeepScale, 'in_mask'),
        (KeepScale, 'reference'),
    ],
)
def test_images_of_two_grids_are_not_combined(save, interface, field):
    """As large, and stored from left to right: voxel by voxel the other half of the brain."""
    here, there = save(brain() * 1.0), save(brain() * 1.0, 'there.nii.gz', flip=True)
    names = {'in_mask', 'reference'} & set(interface.input_spec().get())
    node = interface(in_file=here, **dict.fromkeys(names, here))
    node.run()
    setattr(node.inputs, field, there)
    with pytest.raises(TumorregError, match=r'there\.nii\.gz: not on the grid of the T1w'):
        node.run()
