"""Parts of brains drawn from label maps, and the task that learns their tissues."""

import numpy as np
import pytest
import torch

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.models.unet3d import TissueUNet
from tumorreg_wf.training import heads, tissue_images
from tumorreg_wf.training.heads import BRAIN, INSIDE, SOFT, read_head
from tumorreg_wf.training.recipes import choose_recipe
from tumorreg_wf.training.scanner import Scanner
from tumorreg_wf.training.tasks import tissue_task
from tumorreg_wf.training.tissue_images import TISSUE_OF, TissueBatches, _cover, draw_tissues


@pytest.fixture(scope='module')
def head(head_labels):
    return read_head(head_labels / 'one.nii.gz')


@pytest.fixture(scope='module')
def codes():
    """Cerebral white matter, cortex, fluid, a vessel of the brain, and something unknown."""
    codes = np.zeros((40, 40, 40), np.uint8)
    codes[4:36, 4:36, 4:36] = SOFT
    codes[6:34, 6:34, 6:34] = BRAIN + 10 + INSIDE
    codes[9:31, 9:31, 9:31] = BRAIN + 3 + INSIDE
    codes[12:28, 12:28, 12:28] = BRAIN + INSIDE
    codes[20, 20, 6:34] = BRAIN + 12 + INSIDE
    codes[8, 8, 8] = 2 + INSIDE
    return codes


def test_tissues_of_codes(codes):
    _, tissues = draw_tissues(codes, np.random.default_rng(0))
    assert tissues[14, 14, 14] == 2 and tissues[10, 15, 15] == 1 and tissues[7, 20, 15] == 3
    assert tissues[20, 20, 16] == 3 and tissues[8, 8, 8] == 0 and not tissues[codes < INSIDE].any()
    assert set(np.unique(TISSUE_OF)) == {0, 1, 2, 3}


def test_images_are_t1w_of_a_stripped_brain(codes):
    """White matter is about 1, the order that of a T1w, nothing far outside; none like another."""
    drawn = [draw_tissues(codes, np.random.default_rng(seed)) for seed in range(8)]
    in_order = 0
    for image, tissues in drawn:
        assert image.dtype == np.float32 and np.isfinite(image).all() and image.min() >= 0
        assert not image[0].any() and not image[:, -1].any()
        gm, wm, csf = (np.median(image[tissues == index]) for index in (1, 2, 3))
        in_order += csf < gm < wm
        assert 0.7 < wm < 1.3
    assert in_order >= 6
    spread = np.std([image[14, 10, 14] for image, _ in drawn])
    assert spread > 0.03


def test_tissue_shows_through_tumors(codes, monkeypatch):
    """The same image but for the tumour, which hides nothing of what is to be found."""
    monkeypatch.setattr('tumorreg_wf.training.tissue_images.TUMORS', (0, 1))
    monkeypatch.setattr('tumorreg_wf.training.tissue_images.TUMOR_LEVELS', ((0.6, 0.6),) * 3)
    images = []
    for opacity in (0.0, 1.0):
        monkeypatch.setattr(
            'tumorreg_wf.training.tissue_images.TUMOR_OPACITY', ((opacity, opacity),) * 3
        )
        shape = np.ones((12, 12, 12), np.uint8)
        images.append(draw_tissues(codes, np.random.default_rng(0), [shape]))
    (clear, tissues), (covered, same) = images
    np.testing.assert_array_equal(tissues, same)
    hidden = np.abs(clear - covered) > 0.1
    assert 0.02 < hidden[tissues == 2].mean() and not hidden[codes < INSIDE].any()
    hidden &= tissues > 0
    assert np.std(covered[hidden]) < 0.8 * np.std(clear[hidden])


def test_tumors_as_grey_as_the_tissue_are_not_seen(codes, monkeypatch):
    """Nor is where they end; and in some no fluid is covered."""
    monkeypatch.setattr(tissue_images, 'random_field', lambda shape, *_: np.zeros(shape))
    tissues = np.where(codes >= INSIDE, TISSUE_OF[codes & (INSIDE - 1)], 0)
    ball = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0) < 12
    fluid = set()
    for level in (1.0, 2.0):
        monkeypatch.setattr(tissue_images, 'TUMOR_LEVELS', ((level, level),) * 3)
        for seed in range(8):
            image = np.ones(codes.shape)
            _cover(image, codes, ball.astype(np.uint8), np.random.default_rng(seed))
            changed = np.abs(image - 1) > 0.01
            assert not changed[codes < INSIDE].any()
            assert changed[tissues == 2].any() == (level > 1)
            fluid.add(changed[tissues == 3].any())
        assert image.max() <= level + 1e-6
        assert fluid == ({True, False} if level > 1 else {False})


def test_every_shape_is_laid_over_some_brains(codes, monkeypatch):
    sizes = set()
    monkeypatch.setattr(tissue_images, 'TUMORS', (0, 0, 1))
    monkeypatch.setattr(
        tissue_images, '_cover', lambda _, codes, shape, rng: sizes.add(len(shape))
    )
    for seed in range(4):
        draw_tissues(codes, np.random.default_rng(seed), [np.ones((n,) * 3) for n in (3, 5)])
    assert sizes == {3, 5}


@pytest.mark.parametrize('chance', [0, 1])
def test_what_surrounds_a_brain_is_left_in_some(codes, monkeypatch, chance):
    monkeypatch.setattr(tissue_images, 'BADLY_STRIPPED', chance)
    drawn = [draw_tissues(codes, np.random.default_rng(seed))[0] for seed in range(4)]
    assert any(image[codes < INSIDE].any() for image in drawn) == chance


@pytest.mark.parametrize('chance', [0, 1])
def test_some_have_the_grey_values_of_simulated_patients(codes, monkeypatch, chance):
    monkeypatch.setattr(tissue_images, 'AS_SIMULATED', chance)
    monkeypatch.setattr(tissue_images, 'random_t1w_levels', lambda rng: np.float32(0.8))
    drawn = (draw_tissues(codes, np.random.default_rng(seed)) for seed in range(4))
    flat = [
        np.median(image[tissues == 1]) > 0.95 * np.median(image[tissues == 2])
        for image, tissues in drawn
    ]
    assert all(flat) == chance


def test_images_come_from_a_scanner(codes, monkeypatch):
    noisy = Scanner(bias=0, noise=0.4)
    monkeypatch.setattr(tissue_images, 'random_scanner', lambda rng, wild: noisy)
    image, tissues = draw_tissues(codes, np.random.default_rng(0))
    assert np.std(image[tissues == 2]) > 0.2


def test_batches_repeat(head):
    batches = TissueBatches([head], size=64, batch=2)
    first, again = (batches(np.random.default_rng(3)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    images, tissues = first
    assert images.shape == (2, 1, 64, 64, 64) and tissues.shape == (2, 64, 64, 64)
    assert torch.equal(tissues[0], tissues[1]) and not torch.equal(images[0], images[1])
    assert (tissues > 0).float().mean() > 0.05


def test_a_brain_too_small_to_learn_from(head, monkeypatch):
    monkeypatch.setattr('tumorreg_wf.training.tissue_images.TRIES', 3)
    small = heads.Head('mouse', head.codes[::6, ::6, ::6].copy(), head.centre / 6)
    with pytest.raises(TumorregError, match='mouse: the brain in these label maps is too small'):
        TissueBatches([small], size=64, batch=1)(np.random.default_rng(0))


def test_judged_by_dice(head, monkeypatch):
    """A network that takes all for white matter has its Dice, and none of the others'."""
    monkeypatch.setattr('tumorreg_wf.training.tasks.IMAGES_PER_HEAD', 1)
    network = TissueUNet(width=2)
    task = tissue_task(network, choose_recipe('tissues', None), heads.Heads([head], [head], []))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 9, 0]).repeat_interleave(8))
    (figure,) = task.measure(network).values()
    batches = TissueBatches([head], size=network.size, batch=1)
    _, tissues = batches(np.random.default_rng(0))
    known, white = (tissues > 0).sum().item(), (tissues == 2).sum().item()
    assert figure == pytest.approx(2 * white / (white + known) / 3)  # nothing else counts
    assert task.unit == 'Dice'
    terms = task.loss(network, *task.batches(np.random.default_rng(0)))
    assert terms['total'].isfinite()
