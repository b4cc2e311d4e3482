"""Losses of the networks; equation numbers are those of the method (docs/method.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tumorreg_wf.images import bounding_box

#: Edge of the windows in which structural similarity is computed, voxels.
SSIM_WINDOW = 7


def segmentation_loss(
    logits: Tensor, target: Tensor, weight: Tensor | None = None
) -> dict[str, Tensor]:
    """Binary cross-entropy, as in the paper, plus soft Dice over the batch.

    Dice counters the imbalance of classes (a tumour fills few pixels of few slices).

    Parameters
    ----------
    logits, target : (N, 1, ...); target 1 in the tumour, 0 elsewhere.
    weight : (N, 1, ...), of each voxel in the cross-entropy; None for 1.
    """
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * target).sum() + 1
    dice = 1 - overlap / (probability.sum() + target.sum() + 1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, weight)
    return {'total': cross_entropy + dice, 'cross_entropy': cross_entropy, 'dice': dice}


def tissue_loss(logits: Tensor, tissues: Tensor) -> dict[str, Tensor]:
    """Cross-entropy plus soft Dice over the batch, the mean of the tissues.

    Parameters
    ----------
    logits : (N, K, ...), of tissues 1 to K.
    tissues : (N, ...), integer; nothing is learnt where it is 0.
    """
    known = (tissues > 0)[:, None]
    wanted = F.one_hot((tissues - 1).clamp(0), logits.shape[1]).movedim(-1, 1) * known
    found = logits.softmax(1) * known
    dims = [0, *range(2, logits.ndim)]
    overlap = 2 * (found * wanted).sum(dims) + 1
    dice = (1 - overlap / (found.sum(dims) + wanted.sum(dims) + 1)).mean()
    cross_entropy = F.cross_entropy(logits, tissues - 1, ignore_index=-1)
    return {'total': cross_entropy + dice, 'cross_entropy': cross_entropy, 'dice': dice}


def inpainting_loss(
    output: Tensor, truth: Tensor, mask: Tensor, valid: Tensor, features=None
) -> dict[str, Tensor]:
    """Total loss of the inpainting network, equation (9).

    Parameters
    ----------
    output : (N, 1, H, W), the raw output I_out.
    truth : (N, 1, H, W), I_gt.
    mask : (N, 1, H, W), M, 1 known, 0 hole.
    valid : (N, 1, H, W), 1 where the truth is known to be normal tissue; elsewhere (a real
        tumour) nothing is learnt.
    features : callable that maps (N, 1, H, W) to a list of feature maps (N, C_p, H_p, W_p),
        Psi_p; None leaves out (5)-(7).

    Returns
    -------
    losses : each term, unweighted, and their weighted ``total``.
    """
    output = torch.where(valid > 0, output, truth)
    composed = torch.where(mask > 0, truth, output)
    difference = output - truth
    losses = {
        'hole': ((1 - mask) * difference).square().mean(),  # (3)
        'valid': (mask * difference).square().mean(),  # (4)
        'tv': total_variation(composed, mask),  # (8)
    }
    losses['total'] = 6 * losses['hole'] + losses['valid'] + 0.1 * losses['tv']
    if features is not None:
        with torch.no_grad():
            wanted = features(truth)
        raw, comp = features(output), features(composed)
        losses['perceptual'] = perceptual(raw, wanted) + perceptual(comp, wanted)  # (5)
        losses['style'] = style(raw, wanted) + style(comp, wanted)  # (6), (7)
        losses['total'] = losses['total'] + 0.05 * losses['perceptual'] + 120 * losses['style']
    return losses


def recovery_loss(output: Tensor, truth: Tensor, mask: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Loss of the inpainting network that sees volumes: what the hole's measures reward.

    Mean absolute and squared error and structural dissimilarity in the hole, plus a little of
    the absolute error elsewhere, so that the filling meets what surrounds it.

    Parameters
    ----------
    output, truth, mask, valid : (N, 1, X, Y, Z), as in :func:`inpainting_loss`.
    """
    hole, known = (1 - mask) * valid, mask * valid
    composed = torch.where(hole > 0, output, truth)
    difference = output - truth
    similarity = torch.ones_like(truth)
    for n in range(len(hole)):  # slow, and of interest in the holes alone
        box = (..., *bounding_box(hole[n, 0].cpu().numpy() > 0, margin=SSIM_WINDOW - 1))
        similarity[n : n + 1][box] = structural_similarity(
            composed[n : n + 1][box], truth[n : n + 1][box]
        )

    def mean(values: Tensor, where: Tensor) -> Tensor:
        axes = (1, 2, 3, 4)  # every hole counts alike, however large
        return ((values * where).sum(axes) / where.sum(axes).clamp(min=1)).mean()

    losses = {
        'absolute': mean(difference.abs(), hole),
        'squared': mean(difference.square(), hole),
        'dissimilarity': 1 - mean(similarity, hole),
        'valid': mean(difference.abs(), known),
    }
    losses['total'] = (
        losses['absolute'] + losses['squared'] + losses['dissimilarity'] + 0.1 * losses['valid']
    )
    return losses


def structural_similarity(x: Tensor, y: Tensor, span: float = 5.0) -> Tensor:
    """SSIM map (Wang et al. 2004) of volumes (N, 1, X, Y, Z) in windows of :data:`SSIM_WINDOW`.

    Parameters
    ----------
    span : range of grey values; normalised brains span about 5.
    """

    def local(values: Tensor) -> Tensor:
        for axis in range(3):  # one axis after the other: 21 sums per voxel, not 343
            window, padding = [1, 1, 1], [0, 0, 0]
            window[axis], padding[axis] = SSIM_WINDOW, SSIM_WINDOW // 2
            values = F.avg_pool3d(values, window, stride=1, padding=padding)
        return values

    mean_x, mean_y = local(x), local(y)
    variance_x = local(x * x) - mean_x**2
    variance_y = local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )


def perceptual(maps: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """One half of equation (5): mean absolute difference of feature maps, summed over p."""
    return torch.stack([F.l1_loss(a, b) for a, b in zip(maps, wanted, strict=True)]).sum()


def gram(x: Tensor) -> Tensor:
    """Gram matrices (N, C, C) of feature maps (N, C, H, W), times K_p = 1 / (C H W)."""
    n, c, h, w = x.shape
    flat = x.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def style(maps: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Equation (6) or (7): 1 / C_p^2 times the L1 norm of Gram differences, summed over p."""
    return torch.stack(
        [F.l1_loss(gram(a), gram(b)) for a, b in zip(maps, wanted, strict=True)]
    ).sum()


def total_variation(composed: Tensor, mask: Tensor) -> Tensor:
    """Equation (8): absolute differences of neighbours within the hole dilated by 1 pixel."""
    region = F.max_pool2d(1 - mask, 3, stride=1, padding=1)
    vertical = (composed[..., 1:, :] - composed[..., :-1, :]).abs()
    horizontal = (composed[..., :, 1:] - composed[..., :, :-1]).abs()
    both = (vertical * region[..., 1:, :] * region[..., :-1, :]).sum()
    both = both + (horizontal * region[..., :, 1:] * region[..., :, :-1]).sum()
    return both / composed.numel()
