"""Losses against the equations of the method, written out element by element."""

import itertools

import numpy as np
import pytest
import torch

from tumorreg_wf.training.losses import (
    inpainting_loss,
    recovery_loss,
    segmentation_loss,
    structural_similarity,
    tissue_loss,
)

N, H, W = 2, 6, 7


def feature_maps(x):
    """A small fixed feature network: three maps at one size, two at half."""
    x = x.reshape(len(x), 1, *x.shape[-2:])
    fine = torch.cat([x, x.square(), x.roll(1, -1) * 0.5 + 0.3], 1)
    return [fine, fine[:, :2, ::2, ::2].sin()]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    output, truth = rng.standard_normal((2, N, 1, H, W))
    mask = np.ones((N, 1, H, W))
    mask[0, 0, 2:5, 1:4] = 0
    mask[1, 0, :2, 4:] = 0  # touches the border
    valid = np.ones_like(mask)
    valid[0, 0, 4:, :2] = 0
    return output, truth, mask, valid


def loss_of(output, truth, mask, valid, features=feature_maps):
    tensors = [torch.tensor(part) for part in (output, truth, mask, valid)]
    return {key: float(value) for key, value in inpainting_loss(*tensors, features).items()}


def squares(mask, output, truth):
    """Equations (3) and (4)."""
    total = 0
    for at in np.ndindex(output.shape):
        total += (mask[at] * (output[at] - truth[at])) ** 2
    return total / output.size


def perceptual(one, other):
    """A half of equation (5)."""
    result = 0
    for a, b in zip(feature_maps(torch.tensor(one)), feature_maps(torch.tensor(other))):
        result += np.abs(a.numpy() - b.numpy()).sum() / a.numel()
    return result


def style(one, other):
    """Equation (6) or (7), mean over the batch."""
    result = 0
    for a, b in zip(feature_maps(torch.tensor(one)), feature_maps(torch.tensor(other))):
        n, c, h, w = a.shape
        for k, i, j in itertools.product(range(n), range(c), range(c)):
            grams = [(m[k, i] * m[k, j]).sum().item() / (c * h * w) for m in (a, b)]
            result += abs(grams[0] - grams[1]) / (c * c) / n
    return result


def total_variation(composed, mask):
    """Equation (8)."""
    region = np.zeros_like(mask)
    for n, _, i, j in np.argwhere(mask == 0):
        region[n, 0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = 1
    total = 0
    for n, i, j in np.ndindex(N, H, W):
        for y, x in ((i + 1, j), (i, j + 1)):
            if y < H and x < W and region[n, 0, i, j] and region[n, 0, y, x]:
                total += abs(composed[n, 0, y, x] - composed[n, 0, i, j])
    return total / composed.size


@pytest.mark.parametrize('everything_valid', [True, False])
def test_every_term_and_their_sum(data, everything_valid):
    output, truth, mask, valid = data
    if everything_valid:
        valid = np.ones_like(valid)
    found = loss_of(output, truth, mask, valid)
    output = np.where(valid > 0, output, truth)  # nothing is learnt elsewhere
    composed = np.where(mask > 0, truth, output)
    expected = {
        'hole': squares(1 - mask, output, truth),
        'valid': squares(mask, output, truth),
        'perceptual': perceptual(output, truth) + perceptual(composed, truth),
        'style': style(output, truth) + style(composed, truth),
        'tv': total_variation(composed, mask),
    }
    expected['total'] = (
        6 * expected['hole']
        + expected['valid']
        + 0.05 * expected['perceptual']
        + 120 * expected['style']
        + 0.1 * expected['tv']
    )
    assert found == pytest.approx(expected)
    assert all(value > 0 for value in expected.values())


def test_output_where_nothing_is_valid_does_not_matter(data):
    output, truth, mask, valid = data
    wild = np.where(valid > 0, output, 1e3)
    assert loss_of(wild, truth, mask, valid) == pytest.approx(loss_of(output, truth, mask, valid))
    everywhere = np.ones_like(valid)
    assert loss_of(wild, truth, mask, everywhere)['total'] > 1e3


def test_without_features(data):
    found = loss_of(*data, features=None)
    assert set(found) == {'hole', 'valid', 'tv', 'total'}
    assert found['total'] == pytest.approx(6 * found['hole'] + found['valid'] + 0.1 * found['tv'])


def test_a_perfect_output_of_flat_tissue_costs_nothing(data):
    _, _, mask, valid = data
    flat = np.full((N, 1, H, W), 0.7)
    assert loss_of(flat, flat, mask, valid) == pytest.approx(
        dict.fromkeys(('hole', 'valid', 'perceptual', 'style', 'tv', 'total'), 0)
    )


def test_no_hole_no_cost_in_it(data):
    output, truth, mask, valid = data
    found = loss_of(output, truth, np.ones_like(mask), valid)
    assert found['hole'] == found['tv'] == 0
    assert found['valid'] > 0


def test_gradients_reach_the_output_where_it_is_valid(data):
    output, truth, mask, valid = (torch.tensor(part) for part in data)
    output.requires_grad_(True)
    inpainting_loss(output, truth, mask, valid, feature_maps)['total'].backward()
    assert (output.grad[valid > 0] != 0).all()
    assert (output.grad[valid == 0] == 0).all()


@pytest.mark.parametrize('weighted', [False, True])
def test_segmentation_loss(weighted):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 1, 4, 5))
    target = (rng.random(logits.shape) > 0.7).astype(float)
    weight = rng.uniform(1, 9, logits.shape) if weighted else np.ones(logits.shape)
    entropy = overlap = filled = 0
    for at in np.ndindex(logits.shape):
        p = 1 / (1 + np.exp(-logits[at]))
        entropy -= weight[at] * (target[at] * np.log(p) + (1 - target[at]) * np.log(1 - p))
        overlap += p * target[at]
        filled += p + target[at]
    dice = 1 - (2 * overlap + 1) / (filled + 1)
    expected = {'cross_entropy': entropy / logits.size, 'dice': dice}
    expected['total'] = sum(expected.values())
    weights = torch.tensor(weight) if weighted else None
    found = segmentation_loss(torch.tensor(logits), torch.tensor(target), weights)
    assert {key: float(value) for key, value in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize('tumor', [0.0, 1.0])
def test_segmentation_loss_ends_at_zero(tumor):
    target = torch.full((1, 1, 4, 4), tumor)
    right, wrong = (segmentation_loss(sign * 40 * (2 * target - 1), target) for sign in (1, -1))
    assert float(right['total']) == pytest.approx(0, abs=1e-4)
    assert float(wrong['total']) > 10


def test_tissue_loss():
    """Against loops; nothing is learnt where the tissue is not known."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 4, 5))
    tissues = rng.integers(0, 4, (2, 4, 5))
    entropy, known = 0.0, 0
    overlap, filled = np.zeros(3), np.zeros(3)
    for n, i, j in np.ndindex(tissues.shape):
        if tissues[n, i, j]:
            p = np.exp(logits[n, :, i, j]) / np.exp(logits[n, :, i, j]).sum()
            wanted = np.arange(1, 4) == tissues[n, i, j]
            entropy -= np.log(p[wanted]).item()
            known += 1
            overlap += p * wanted
            filled += p + wanted
    expected = {
        'cross_entropy': entropy / known,
        'dice': np.mean(1 - (2 * overlap + 1) / (filled + 1)),
    }
    expected['total'] = sum(expected.values())
    found = tissue_loss(torch.tensor(logits), torch.tensor(tissues))
    assert {key: float(value) for key, value in found.items()} == pytest.approx(expected)
    other = np.where((tissues == 0)[:, None], 7.0, logits)
    again = tissue_loss(torch.tensor(other), torch.tensor(tissues))
    assert float(again['total']) == pytest.approx(float(found['total']))


@pytest.fixture
def volumes():
    """Output, truth, mask and valid of two volumes."""
    rng = np.random.default_rng(1)
    output, truth = rng.standard_normal((2, 2, 1, 9, 8, 10))
    mask = np.ones_like(truth)
    mask[0, 0, 2:6, 1:4, 3:8] = 0
    mask[1, 0, 5:, 4:, :2] = 0  # touches the border
    valid = np.ones_like(truth)
    valid[0, 0, :3, :, 6:] = 0
    return output, truth, mask, valid


def similarity_at(one, other, at, span=5.0):
    """SSIM in the window about a voxel; what lies beyond the border is 0."""
    a, b = (np.pad(image, 3)[tuple(slice(i, i + 7) for i in at)] for image in (one, other))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return ((2 * a.mean() * b.mean() + c1) * (2 * covariance + c2)) / (
        (a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2)
    )


@pytest.mark.parametrize('span', [5.0, 1.0])
def test_structural_similarity_window_by_window(volumes, span):
    one, other = volumes[0], 0.7 * volumes[1] + 0.3 * volumes[0] + 0.2
    found = structural_similarity(torch.tensor(one), torch.tensor(other), span).numpy()
    assert found.shape == one.shape
    for n, _, *at in np.ndindex(one.shape):
        expected = similarity_at(one[n, 0], other[n, 0], at, span)
        assert found[n, 0][tuple(at)] == pytest.approx(expected)


def test_structural_similarity_is_that_of_scikit_image(volumes):
    from skimage.metrics import structural_similarity as reference

    one, other = volumes[0][0, 0], volumes[0][0, 0] + volumes[1][0, 0]
    _, expected = reference(
        one, other, win_size=7, data_range=5.0, full=True, use_sample_covariance=False
    )
    found = structural_similarity(*(torch.tensor(x)[None, None] for x in (one, other)))
    inside = (slice(3, -3),) * 3
    np.testing.assert_allclose(found[0, 0].numpy()[inside], expected[inside])


def test_recovery_loss(volumes):
    output, truth, mask, valid = volumes
    expected = dict.fromkeys(('absolute', 'squared', 'dissimilarity', 'valid'), 0.0)
    for n in range(2):
        hole = (mask[n, 0] == 0) & (valid[n, 0] == 1)
        composed = np.where(hole, output[n, 0], truth[n, 0])
        for at in np.ndindex(hole.shape):
            error = output[n, 0][at] - truth[n, 0][at]
            if hole[at]:
                share = 1 / hole.sum() / 2  # the mean in each hole, then of the holes
                expected['absolute'] += share * abs(error)
                expected['squared'] += share * error**2
                similarity = similarity_at(composed, truth[n, 0], at)
                expected['dissimilarity'] += share * (1 - similarity)
            elif valid[n, 0][at]:
                known = (mask[n, 0] * valid[n, 0]).sum()
                expected['valid'] += abs(error) / known / 2
    expected['total'] = sum(expected.values()) - 0.9 * expected['valid']
    found = recovery_loss(*map(torch.tensor, volumes))
    assert {key: float(value) for key, value in found.items()} == pytest.approx(expected)


def test_recovery_loss_of_what_is_not_valid(volumes):
    output, truth, mask, valid = map(torch.tensor, volumes)
    output.requires_grad_(True)
    recovery_loss(output, truth, mask, valid)['total'].backward()
    assert (output.grad[valid > 0] != 0).all()
    assert (output.grad[valid == 0] == 0).all()
    nothing = recovery_loss(output.detach(), truth, torch.ones_like(mask), valid)
    assert nothing['absolute'] == nothing['squared'] == 0  # no hole, nothing divided by 0
