"""Voxels to channels and back."""

import torch

from tumorreg_wf.models.folding import fold, unfold


def test_there_and_back():
    volume = torch.randn(2, 3, 4, 6, 8)
    assert fold(volume).shape == (2, 24, 2, 3, 4)
    torch.testing.assert_close(unfold(fold(volume)), volume, rtol=0, atol=0)


def test_the_channels_of_a_block_are_its_voxels():
    volume = torch.arange(2 * 64.0).reshape(1, 2, 4, 4, 4)
    folded = fold(volume)
    block = volume[0, 1, 2:4, 0:2, 2:4]
    torch.testing.assert_close(folded[0, 8:, 1, 0, 1], block.flatten())
