"""Scanner effects, one at a time."""

import numpy as np
import pytest

from tumorreg_wf.training.scanner import Scanner, random_scanner, resolve_labels, scan

SHAPE, SPACING = (40, 36, 48), (1.0, 1.0, 1.0)


@pytest.fixture(scope='module')
def visible():
    mask = np.zeros(SHAPE, bool)
    mask[4:-4, 4:-4, 4:-4] = True
    return mask


@pytest.fixture(scope='module')
def image(visible):
    """Brain of 500 with a sheet of 1000 across each axis."""
    image = np.where(visible, np.float32(500), np.float32(0))
    image[20], image[:, 18], image[:, :, 24] = 1000, 1000, 1000
    return image * visible


def scanned(image, visible, **how):
    how = {'bias': 0, 'noise': 0, **how}
    return scan((image,), visible, 500, SPACING, Scanner(**how), np.random.default_rng(0))[0]


def test_a_perfect_scanner_changes_nothing(image, visible):
    np.testing.assert_allclose(scanned(image, visible), image, rtol=1e-6)


def test_gamma_keeps_white_matter(image, visible):
    bright = scanned(image, visible, gamma=1.25)
    assert bright[10, 10, 10] == pytest.approx(500)
    assert bright[20, 10, 10] == pytest.approx(500 * 2**1.25, rel=1e-4)


def test_what_is_stripped_does_not_blur_into_the_brain(image, visible):
    blurred = scanned(image, visible, blur=1.0)
    assert blurred[20, 10, 10] < 850
    assert blurred[4, 10, 10] == pytest.approx(500, rel=1e-3)
    assert not blurred[~visible].any()


def test_blur_is_as_wide_in_large_voxels(image, visible):
    how = Scanner(bias=0, noise=0, blur=1.0)
    (blurred,) = scan((image,), visible, 500, (1, 2, 4), how, np.random.default_rng(0))
    peaks = blurred[20, 10, 10], blurred[10, 18, 10], blurred[10, 10, 24]
    # the sheet and the middle of a Gaussian of 1, 1/2 and 1/4 voxel
    assert peaks == pytest.approx((699, 893, 1000), abs=2)


@pytest.mark.parametrize('axis', range(3))
def test_thick_slices_blur_across_one_axis(image, visible, axis):
    thick = scanned(image, visible, axis=axis, thickness=4.5)
    for other in range(3):
        place = [10, 10, 10]
        place[other] = (20, 18, 24)[other]
        low, high = (800, 1001) if other != axis else (500, 750)
        assert low < thick[tuple(place)] < high


@pytest.mark.parametrize('thickness', [1.0, 2.0, 2.4, 3.0, 4.0, 5.3, 6.0])
def test_thick_slices_stay_where_they_are(visible, thickness):
    """Truth is not thick: half a voxel would be an error of half of the cortex in places."""
    wave = np.sin(2 * np.pi * np.arange(SHAPE[2]) / 24)
    image = np.broadcast_to(500 + 400 * wave, SHAPE).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    thick = scanned(image, everywhere, axis=2, thickness=thickness)[20, 18]
    inner = slice(6, -6)
    phase = np.exp(2j * np.pi * np.arange(SHAPE[2]) / 24)[inner]
    turn = np.angle(((thick - thick.mean())[inner] * phase.conj()).sum()) + np.pi / 2
    assert abs(turn / (2 * np.pi) * 24) < 0.1


def test_noise_and_bias_are_the_same_for_twins(image, visible):
    how = Scanner(bias=0.1, noise=0.05, thickness=3.0)
    twins = scan((image, image), visible, 500, SPACING, how, np.random.default_rng(0))
    np.testing.assert_array_equal(*twins)
    flat = np.where(visible, np.float32(500), np.float32(0))
    noisy = scanned(flat, visible, noise=0.05)
    assert noisy[visible].std() == pytest.approx(25, rel=0.1)
    biased = scanned(flat, visible, bias=0.2)
    assert biased[visible].std() > 40
    assert np.abs(np.diff(biased[:, 18, 24][4:-4])).max() < 10  # shading has no edges
    # the magnitude of complex noise is never 0: its mean is that of Rayleigh's distribution
    dark = scanned(0 * flat, visible, noise=0.05)[visible]
    assert dark.mean() == pytest.approx(25 * np.sqrt(np.pi / 2), rel=0.02)


def test_labels_are_what_thick_slices_show():
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:30, 10:30, 12:36] = 1
    labels[15:25, 15:25, 24] = 2  # one voxel thin
    seen = resolve_labels(labels, SPACING, Scanner(bias=0, noise=0, thickness=6))
    assert set(np.unique(seen)) == {0, 1}
    assert seen.sum() == pytest.approx((labels > 0).sum(), rel=0.2)
    assert resolve_labels(labels, SPACING, Scanner(bias=0, noise=0)) is labels


def test_wild_scanners_vary():
    rng = np.random.default_rng(0)
    wild = [random_scanner(rng, wild=True) for _ in range(50)]
    assert 5 < sum(scanner.thickness > 0 for scanner in wild) < 45
    assert {scanner.axis for scanner in wild if scanner.thickness} == {0, 1, 2}
    typical = [random_scanner(rng, wild=False) for _ in range(50)]
    assert all(scanner.gamma == 1 and not scanner.thickness for scanner in typical)
    assert max(s.noise for s in typical) <= 0.025 < max(s.noise for s in wild)
