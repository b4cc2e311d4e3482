"""What the networks learn from: images and masks stay together."""

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training.datasets import (
    Case,
    InpaintingSlices,
    SegmentationSlices,
    augment_intensity,
    deep_voxels,
    make_case,
    place_shape,
    random_affine,
    read_healthy,
    read_patients,
    read_shapes,
    simulate_cases,
)


class Scripted:
    """A generator whose turn (degrees), scales (log), shear and mirroring are given."""

    def __init__(self, turn=0.0, scale=(0.0, 0.0), shear=0.0, mirror=False):
        self.numbers = iter([turn, np.array(scale), shear])
        self.mirror = mirror

    def uniform(self, low, high, size=None):
        number = next(self.numbers)
        assert np.all(low <= number) and np.all(number <= high)
        return number

    def random(self):
        return 0.0 if self.mirror else 1.0


def dots(shape, *points):
    """Gaussian dots of unequal height on a slice."""
    rows, columns = np.indices(shape)
    image = np.zeros(shape)
    for height, (row, column) in enumerate(points, 1):
        image += height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4)
    return image


def dot_of(image, height, shape):
    """Where the dot of that height is."""
    rows, columns = np.indices(shape)
    weight = np.where(np.abs(image - height) < 0.5, image, 0)
    return np.array([(weight * rows).sum(), (weight * columns).sum()]) / weight.sum()


SIZES = [((40, 40), (40, 40)), ((40, 64), (48, 32)), ((61, 33), (30, 50))]


class TestRandomAffine:
    @pytest.mark.parametrize(('shape', 'size'), SIZES)
    def test_without_any_change_it_is_a_crop(self, shape, size):
        stack = np.random.default_rng(0).random((2, *shape))
        centre = np.array(shape) // 2 + [2, -3]
        # for an even size the middle lies between two pixels, for an odd one on a pixel
        found = random_affine(stack, centre + (np.array(size) % 2 == 0) * 0.5, size, Scripted())
        low = centre - (np.array(size) - 1) // 2
        expected = np.zeros((2, *size))
        for i, j in np.ndindex(*size):
            y, x = low + (i, j)
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                expected[:, i, j] = stack[:, y, x]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)

    def test_without_a_centre_the_middle_stays_the_middle(self):
        stack = np.random.default_rng(0).random((1, 10, 14))
        found = random_affine(stack, None, (6, 8), Scripted())
        np.testing.assert_allclose(found.numpy(), stack[:, 2:-2, 3:-3], atol=1e-5)

    @pytest.mark.parametrize(('shape', 'size'), SIZES)
    @pytest.mark.parametrize(
        'script',
        [
            {'turn': 15.0},
            {'turn': -90.0},
            {'turn': 137.0, 'mirror': True},
            {'scale': (0.15, -0.15)},
            {'shear': 0.1, 'turn': 40.0},
            {'turn': -33.0, 'scale': (0.1, 0.05), 'shear': -0.1, 'mirror': True},
        ],
    )
    def test_pixels_come_from_where_the_matrix_says(self, shape, size, script):
        """The map from output to input, in pixels, against the same by hand."""
        centre = np.array([shape[0] * 0.4, shape[1] * 0.55])
        ramps = np.stack([*np.indices(shape), np.ones(shape)]).astype(float)
        rows, columns, inside = random_affine(
            ramps, centre, size, Scripted(**script), turn=180
        ).numpy()
        angle = np.deg2rad(script.get('turn', 0))
        scale = np.exp(script.get('scale', (0, 0)))
        for at in np.ndindex(*size):
            if inside[at] < 0.9999:
                continue
            u, v = np.array(at) - (np.array(size) - 1) / 2
            u, v = u * scale[0], v * scale[1]
            u = u + script.get('shear', 0) * v
            u, v = (
                np.cos(angle) * u - np.sin(angle) * v,
                np.sin(angle) * u + np.cos(angle) * v,
            )
            if script.get('mirror'):
                u = -u
            np.testing.assert_allclose((rows[at], columns[at]), centre + (u, v), atol=2e-3)
        assert (inside > 0.9999).mean() > 0.2

    @pytest.mark.parametrize(('shape', 'size'), SIZES)
    @pytest.mark.parametrize('turn', [0.0, 30.0, 90.0, -120.0])
    def test_a_turn_keeps_distances(self, shape, size, turn):
        centre = np.array(shape) / 2
        points = centre, centre + (8, 0), centre + (0, 6)
        stack = dots(shape, *points)[None]
        found = random_affine(stack, centre, size, Scripted(turn=turn), turn=180)[0].numpy()
        peaks = []
        for height in (3, 2, 1):  # take away the highest in turn
            peak = np.unravel_index(found.argmax(), size)
            peaks.append(np.array(peak))
            assert found[peak] > 0.7 * height
            rows, columns = np.indices(size)
            found = np.where(np.hypot(rows - peak[0], columns - peak[1]) < 3.5, 0, found)
        third, second, first = peaks
        assert np.linalg.norm(second - first) == pytest.approx(8, abs=1)
        assert np.linalg.norm(third - first) == pytest.approx(6, abs=1)
        assert np.linalg.norm(third - second) == pytest.approx(10, abs=1.1)

    @pytest.mark.parametrize(('shape', 'size'), SIZES)
    @pytest.mark.parametrize('seed', range(5))
    def test_the_centre_comes_to_the_middle(self, shape, size, seed):
        centre = np.array([shape[0] // 3, shape[1] // 2 + 4])
        stack = dots(shape, centre)[None]
        found = random_affine(stack, centre, size, np.random.default_rng(seed))[0].numpy()
        rows, columns = np.indices(size)
        at = np.array([(found * rows).sum(), (found * columns).sum()]) / found.sum()
        np.testing.assert_allclose(at, (np.array(size) - 1) / 2, atol=0.1)

    @pytest.mark.parametrize('seed', range(5))
    def test_channels_stay_together(self, seed):
        image = np.random.default_rng(seed).random((30, 40))
        stack = np.stack([image, image, image > 0.5])
        one, other, mask = random_affine(stack, None, (36, 24), np.random.default_rng(seed))
        assert torch.equal(one, other)
        assert (one[mask > 0.999] > 0.5).all()

    def test_mirroring_is_along_axis_0(self):
        stack = np.random.default_rng(0).random((1, 12, 16))
        found = random_affine(stack, None, (12, 16), Scripted(mirror=True))
        np.testing.assert_allclose(found.numpy(), stack[:, ::-1], atol=1e-5)


class TestAugmentIntensity:
    @pytest.mark.parametrize('seed', range(6))
    def test_background_and_missing_images_stay_empty(self, seed):
        image = torch.zeros(2, 20, 24)
        image[0, 4:16, 5:20] = torch.randn(12, 15, generator=torch.Generator().manual_seed(1))
        out = augment_intensity(image, np.random.default_rng(seed))
        assert out.shape == image.shape
        assert not out[1].any()
        assert not out[0][image[0] == 0].any()
        assert torch.isfinite(out).all()
        assert not torch.equal(out[0], image[0])

    def test_contrast_is_not_turned_round(self):
        image = torch.linspace(-2, 3, 400).reshape(1, 20, 20)
        for seed in range(10):
            out = augment_intensity(image, np.random.default_rng(seed))
            assert torch.corrcoef(torch.stack([image.ravel(), out.ravel()]))[0, 1] > 0.7


class TestPlaceShape:
    @pytest.fixture
    def brain(self):
        where = np.indices((30, 34, 28)) - np.array([15, 17, 14])[:, None, None, None]
        return np.sqrt((where**2).sum(0)) < 12

    @pytest.mark.parametrize('size', [(1, 1, 1), (5, 8, 3), (20, 40, 29)])
    def test_inside_the_brain_whatever_the_size(self, brain, size):
        for seed in range(20):
            placed = place_shape(
                np.full(size, 2, np.uint8), brain, deep_voxels(brain), np.random.default_rng(seed)
            )
            assert placed.shape == brain.shape and placed.dtype == np.uint8
            assert placed.any()
            assert not placed[~brain].any()
            assert set(np.unique(placed)) <= {0, 2}

    def test_deep_voxels_are_away_from_the_edge(self, brain):
        where = deep_voxels(brain) - (15, 17, 14)
        assert 6 < np.linalg.norm(where, axis=1).max() < 9
        assert brain[tuple(deep_voxels(brain).T)].all()

    def test_a_small_shape_is_kept_whole_up_to_mirroring(self, brain):
        shape = np.arange(1, 25, dtype=np.uint8).reshape(2, 3, 4)
        turns = [shape, shape[::-1], shape[:, ::-1], shape[::-1, ::-1]]
        seen = set()
        for seed in range(20):
            placed = place_shape(shape, brain, deep_voxels(brain), np.random.default_rng(seed))
            low = np.argwhere(placed).min(0)
            block = placed[tuple(slice(a, a + n) for a, n in zip(low, shape.shape))]
            found = [k for k, turn in enumerate(turns) if np.array_equal(block, turn)]
            assert len(found) == 1
            seen.add(found[0])
        assert seen == {0, 1, 2, 3}


def write(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


@pytest.fixture
def dataset(tmp_path, phantom, turned):
    """Two patients, stored alike in different orientations; the second without FLAIR."""
    for name, axcodes in (('sub-1', 'RAS'), ('sub-2', 'LPS')):
        anat = tmp_path / name / 'anat'
        write(turned(phantom.t1w, axcodes), anat / f'{name}_T1w.nii.gz')
        label = tmp_path / 'derivatives' / 'truth' / name / 'anat'
        write(turned(phantom.tumor, axcodes), label / f'{name}_label-tumor_mask.nii.gz')
        # a program's outputs are no reference
        other = tmp_path / 'derivatives' / 'a_program' / name / 'anat'
        write(phantom.brain, other / f'{name}_label-tumor_desc-dilated_mask.nii.gz')
    write(phantom.flair, tmp_path / 'sub-1' / 'anat' / 'sub-1_FLAIR.nii.gz')
    return tmp_path


class TestReading:
    def test_patients(self, dataset, phantom):
        one, two = read_patients(dataset, spacing=2.0)
        assert (one.name, two.name) == ('sub-1', 'sub-2')
        assert two.flair is None
        assert one.tumor.sum() == (phantom.tumor.get_fdata() > 0).sum()
        for key in ('t1w', 'tumor', 'brain'):
            np.testing.assert_allclose(
                getattr(one, key).astype(float), getattr(two, key).astype(float), atol=1e-2
            )
        assert one.t1w.shape == one.flair.shape == one.tumor.shape == one.brain.shape
        assert np.median(one.flair[one.tumor]) > 2
        assert not one.t1w[~one.brain].any()

    @pytest.mark.parametrize('name', ['2', 'sub-2'])
    def test_exclude(self, dataset, name):
        cases = read_patients(dataset, spacing=4.0, exclude=[name])
        assert [case.name for case in cases] == ['sub-1']
        assert not read_healthy(dataset, spacing=4.0, exclude=['1', name])

    def test_patient_without_label(self, dataset):
        (dataset / 'derivatives/truth/sub-2/anat/sub-2_label-tumor_mask.nii.gz').unlink()
        with pytest.raises(TumorregError, match='sub-2: no reference label'):
            read_patients(dataset, spacing=4.0)

    def test_patient_without_t1w(self, dataset):
        (dataset / 'sub-1/anat/sub-1_T1w.nii.gz').unlink()
        with pytest.raises(TumorregError, match=r'sub-1_T1w\.nii\.gz: no such file'):
            read_patients(dataset, spacing=4.0)

    def test_healthy(self, dataset):
        cases = read_healthy(dataset, spacing=4.0)
        assert [case.name for case in cases] == ['sub-1', 'sub-2']
        assert all(case.flair is None and not case.tumor.any() for case in cases)

    def test_shapes_are_cropped_labels(self, tmp_path, turned):
        labels = np.zeros((20, 20, 20), np.uint8)
        labels[4:8, 5:11, 6:9] = 1
        labels[5:7, 6:9, 7] = 3
        for number in range(3):
            write(nb.Nifti1Image(labels, np.eye(4)), tmp_path / f'{number}.nii.gz')
        shapes = read_shapes(tmp_path, spacing=1.0, only=slice(2))
        assert len(shapes) == 2
        np.testing.assert_array_equal(shapes[0], labels[4:8, 5:11, 6:9])


@pytest.fixture(scope='module')
def patient(phantom):
    return make_case('sub-1', phantom.t1w, phantom.flair, phantom.tumor, spacing=2.0)


@pytest.fixture(scope='module')
def healthy(patient):
    return Case('sub-h', patient.t1w, None, np.zeros_like(patient.tumor), patient.brain)


def test_simulated_cases(healthy, patient):
    shapes = [2 * patient.tumor.astype(np.uint8)]  # core
    cases = simulate_cases([healthy], shapes, 2, spacing=2.0, seed=1)
    for case in cases:
        assert case.tumor.any() and not case.tumor[~case.brain].any()
        assert case.t1w.shape == case.flair.shape == case.brain.shape == healthy.brain.shape
        normal = case.brain & ~case.tumor
        assert np.median(case.flair[case.tumor]) > np.median(case.flair[normal])
    assert not np.array_equal(cases[0].tumor, cases[1].tumor)
    again = simulate_cases([healthy], shapes, 2, spacing=2.0, seed=1)
    np.testing.assert_array_equal(again[1].flair, cases[1].flair)


class TestSegmentationSlices:
    def test_target_is_where_flair_is_bright(self, patient):
        batches = SegmentationSlices([patient], [], size=(40, 64), batch=16)
        images, targets = batches(np.random.default_rng(0))
        assert images.shape == (16, 2, 40, 64) and targets.shape == (16, 1, 40, 64)
        assert set(targets.unique().tolist()) == {0, 1}
        checked = 0
        for image, target in zip(images, targets):
            flair, brain = image[1], image[0] != 0
            tumor = target[0] > 0
            if flair.any() and tumor.sum() > 20:
                assert flair[tumor].mean() > flair[brain & ~tumor].mean() + 1
                checked += 1
        assert checked > 3

    def test_some_slices_come_without_flair(self, patient):
        images, _ = SegmentationSlices([patient], [], size=(32, 32), batch=40)(
            np.random.default_rng(0)
        )
        empty = [not image[1].any() for image in images]
        assert 0 < sum(empty) < 20

    def test_patients_without_flair_and_simulated_ones(self, healthy, patient):
        batches = SegmentationSlices([healthy], [patient], size=(32, 32), batch=40)
        images, targets = batches(np.random.default_rng(0))
        assert targets.any()
        assert not images[~targets.any((1, 2, 3)), 1].any((1, 2)).all()

    def test_the_generator_decides(self, patient):
        batches = SegmentationSlices([patient], [patient], size=(32, 32), batch=2)
        one, again, other = (batches(np.random.default_rng(seed))[0] for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)


class TestInpaintingSlices:
    def draw(self, cases, shapes, seed=0):
        batches = InpaintingSlices(cases, shapes, spacing=2.0, size=(64, 48), batch=24)
        return batches(np.random.default_rng(seed))

    def test_holes_are_inside_the_brain(self, healthy, patient):
        images, masks, truth, valid = self.draw([healthy], [patient.tumor])
        assert images.shape == masks.shape == (24, 2, 64, 48)
        assert truth.shape == valid.shape == (24, 1, 64, 48)
        assert set(masks.unique().tolist()) == {0, 1}
        assert torch.equal(images[:, :1], truth)
        assert (valid == 1).all()
        hole = masks[:, :1] == 0
        assert (hole.sum((1, 2, 3)) >= 30).all()
        assert (truth[hole] != 0).float().mean() > 0.999
        assert hole[..., 30:34, 22:26].any((1, 2, 3)).all()  # it is what the slice shows

    def test_real_tumors_are_never_learnt_from(self, patient):
        """Marked by values that normal tissue never has."""
        marked = Case(
            'sub-m',
            np.where(patient.tumor, 50, np.where(patient.brain, 1.0, 0)).astype(np.float16),
            None,
            patient.tumor,
            patient.brain,
        )
        images, masks, truth, valid = self.draw([marked], [patient.tumor], seed=3)
        assert (truth > 2).any()
        assert (valid[truth > 2] == 0).all()
        # nor is it seen, here or mirrored
        assert (images[:, 1] > 2).any()
        assert (masks[images > 2] == 0).all()
        learnt = (masks[:, :1] == 0) & (valid == 1)
        assert learnt.any((1, 2, 3)).all()
        assert (truth[learnt] != 0).float().mean() > 0.999

    def test_the_second_channel_is_the_other_hemisphere(self, patient):
        """On a brain that is its own mirror image, but for marks that are not."""
        noise = np.random.default_rng(0).normal(0, 1, patient.brain.shape)
        t1w = ndimage.gaussian_filter(noise, 2)
        brain = patient.brain & patient.brain[::-1]
        t1w = np.where(brain, (t1w + t1w[::-1]) / t1w.std(), 0).astype(np.float16)
        case = Case('sub-s', t1w, None, np.zeros_like(brain), brain)
        images, masks, truth, _ = self.draw([case], [patient.tumor])
        inner = (images != 0).all(1) & (masks[:, 1] == 1)
        pairs = torch.stack([images[:, 0][inner], images[:, 1][inner]])
        assert torch.corrcoef(pairs)[0, 1] > 0.95
        # the mirrored hole hides what the mirrored image shows of it: mostly somewhere else
        both = ((masks == 0).all(1)).sum((1, 2))
        assert (both < 0.9 * (masks[:, 0] == 0).sum((1, 2))).float().mean() > 0.5

    def test_holes_are_shapes_dilated_by_3_mm(self, healthy):
        """A rod of 4 x 20 x 4 voxels of 1 mm."""
        rod = np.ones((4, 20, 4), np.uint8)
        batches = InpaintingSlices([healthy], [rod], spacing=1.0, size=(64, 64), batch=30)
        (grown,) = batches.shapes
        np.testing.assert_array_equal(np.ptp(np.argwhere(grown), axis=0) + 1, [10, 26, 10])
        _, masks, _, _ = batches(np.random.default_rng(0))
        areas = (masks[:, 0] == 0).sum((1, 2))
        # scaled by up to 15 % along each axis, and a rim of partial pixels
        assert 20 * 4 * np.exp(0.3) < areas.max() < 28 * 12 * np.exp(0.3)

    def test_shapes_too_small_to_make_a_hole_are_passed_over(self, healthy, patient):
        nothing, speck = np.zeros((4, 4, 4), np.uint8), np.ones((1, 1, 1), np.uint8)
        with pytest.raises(TumorregError, match='None of the tumour shapes is large enough'):
            self.draw([healthy], [nothing, speck])
        one = self.draw([healthy], [patient.tumor])
        other = self.draw([healthy], [nothing, patient.tumor, speck])
        assert torch.equal(one[1], other[1])
