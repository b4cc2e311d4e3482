"""Random views: images and masks stay together."""

import numpy as np
import pytest
import torch

from tumorreg_wf.training.augment import (
    augment,
    fade,
    graft,
    random_affine,
    random_matrix,
    sample,
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


class TestCubes:
    def test_an_unturned_cube_is_a_crop(self):
        volume = np.random.default_rng(0).random((20, 24, 18))
        matrix = np.eye(4)
        matrix[:3, 3] = (3, -2, 5)
        (found,) = sample([volume], matrix, (12, 10, 12))
        expected = np.zeros((12, 10, 12))
        expected[:, 2:, :] = volume[3:15, :8, 5:17]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize('seed', range(8))
    def test_voxels_come_from_where_the_matrix_says(self, seed):
        shape = (30, 36, 28)
        ramps = [*np.indices(shape).astype(float), np.ones(shape)]
        matrix = random_matrix(
            np.array([16, 20, 12]),
            (16, 14, 18),
            np.random.default_rng(seed),
            jitter=3,
            turn=40,
        )
        *found, inside = sample(ramps, matrix, (16, 14, 18)).numpy()
        voxels = np.indices((16, 14, 18)).reshape(3, -1)
        expected = (matrix[:3, :3] @ voxels + matrix[:3, 3:]).reshape(3, 16, 14, 18)
        sure = inside > 0.9999
        assert sure.mean() > 0.3
        np.testing.assert_allclose(np.stack(found)[:, sure], expected[:, sure], atol=2e-3)

    def test_a_cube_beyond_the_volume_is_empty(self):
        matrix = np.eye(4)
        matrix[:3, 3] = 100
        assert not sample([np.ones((10, 10, 10))], matrix, (8, 8, 8)).any()

    @pytest.mark.parametrize('seed', range(5))
    def test_the_centre_stays_within_the_jitter(self, seed):
        centre = np.array([30.0, 40, 50])
        matrix = random_matrix(centre, (17, 9, 17), np.random.default_rng(seed), jitter=4)
        middle = matrix @ [8, 4, 8, 1]
        assert 0 < np.abs(middle[:3] - centre).max() <= 4

    def test_turns_are_limited_axis_by_axis(self):
        for seed in range(20):
            matrix = random_matrix(
                np.zeros(3), (9, 9, 9), np.random.default_rng(seed), jitter=0, turn=(20, 0, 0)
            )
            np.testing.assert_allclose(matrix[0, 1:3], 0, atol=1e-9)
            np.testing.assert_allclose(matrix[1:3, 0], 0, atol=1e-9)

    def test_sizes_and_both_sides(self):
        matrices = [
            random_matrix(np.zeros(3), (9, 9, 9), np.random.default_rng(seed), jitter=0, scale=2)
            for seed in range(40)
        ]
        lengths = np.array([np.linalg.norm(matrix[:3, :3], axis=0) for matrix in matrices])
        assert 2 * np.exp(-0.15) <= lengths.min() < 1.85 < 2.15 < lengths.max() <= 2 * np.exp(0.15)
        mirrored = [np.linalg.det(matrix[:3, :3]) < 0 for matrix in matrices]
        assert 8 < sum(mirrored) < 32


class TestAugment:
    @pytest.mark.parametrize('shape', [(12, 20, 24), (1, 20, 24), (5, 20, 24)])
    @pytest.mark.parametrize('seed', range(12))
    def test_background_stays_empty(self, shape, seed):
        image = torch.zeros(shape)
        image[:, 4:16, 5:20] = torch.randn(12, 15, generator=torch.Generator().manual_seed(1))
        brain = image != 0
        out = augment(image, brain, np.random.default_rng(seed))
        assert out.shape == image.shape
        assert not out[~brain].any()
        assert torch.isfinite(out).all()
        assert not torch.equal(out, image)

    def test_contrast_is_not_turned_round(self):
        image = torch.linspace(-2, 3, 8 * 400).reshape(8, 20, 20)
        for seed in range(10):
            out = augment(image, torch.ones_like(image) > 0, np.random.default_rng(seed))
            assert torch.corrcoef(torch.stack([image.ravel(), out.ravel()]))[0, 1] > 0.7


def test_faded_tumor():
    brain = torch.ones(2, 12, 12, dtype=torch.bool)
    tumor = torch.zeros(2, 12, 12)
    tumor[:, 3:9, 3:9] = 1
    channel = 1 + 2 * tumor
    faded = fade(channel, tumor, brain, 0.25)
    assert faded[:, 4:8, 4:8].mean() == pytest.approx(1.5)
    assert torch.equal(faded[:, :2], channel[:, :2])
    assert torch.equal(fade(channel, tumor, brain, 1.0), channel)
    assert torch.equal(fade(channel, torch.zeros_like(tumor), brain, 0.5), channel)


def test_grafted_tumor():
    brain = torch.ones(2, 12, 12, dtype=torch.bool)
    brain[:, :, 8:] = False
    tumor = torch.zeros(2, 12, 12)
    tumor[:, 3:9, 3:9] = 1
    channel, donor = brain * 1.0, brain * 1.0 + 2 * tumor
    grafted = graft(channel, donor, tumor, brain)
    assert (grafted[:, 4:8, 4:8] == 3).all()
    assert ((grafted[:, 3, 4:7] > 1) & (grafted[:, 3, 4:7] < 3)).all()
    assert torch.equal(grafted[:, :2], channel[:, :2])
    assert not grafted[~brain].any()
