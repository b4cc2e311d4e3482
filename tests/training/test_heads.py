"""Heads from label maps: what is brain, tumours in it, images of any kind."""

from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
import torch
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box
from tumorreg_wf.models.unet3d import BrainUNet
from tumorreg_wf.training import head_images, heads, tasks
from tumorreg_wf.training.head_images import (
    HeadBatches,
    HeadImage,
    Mixture,
    draw_head,
    random_contrast,
    times_finer,
)
from tumorreg_wf.training.heads import (
    BRAIN,
    FAT,
    FAT_DEPTH,
    INSIDE,
    OUTER_FLUID,
    SOFT,
    SURFACE,
    TUMOR,
    Head,
    add_tumor,
    deform_head,
    place_tumor,
    read_head,
    read_heads,
)
from tumorreg_wf.training.recipes import choose_recipe
from tumorreg_wf.training.tasks import brain_task


@pytest.fixture(scope='module')
def head(head_labels):
    return read_head(head_labels / 'one.nii.gz')


@pytest.fixture(scope='module')
def shape():
    """A ball of oedema about a core, 40 mm across."""
    grid = np.indices((21, 21, 21)) - 10
    radius = np.sqrt((grid**2).sum(0))
    return np.select([radius < 5, radius < 10], [2, 1], 0).astype(np.uint8)


def test_codes_of_a_head(head):
    kinds, inside = head.codes & (INSIDE - 1), head.codes >= INSIDE
    assert head.name == 'one'
    assert set(np.unique(kinds[~inside])) >= {0, OUTER_FLUID, FAT}
    structures = set(np.unique(kinds[inside]))
    assert min(structures) == 2 and min(structures - {2}) >= BRAIN  # 2: the vessel
    # fat lies next to the skin, other soft tissue below
    skin = ndimage.distance_transform_cdt((kinds != 8) & (kinds != 0), 'chessboard')
    assert skin[kinds == FAT].max() == FAT_DEPTH < skin[kinds == SOFT].min()
    # no holes
    np.testing.assert_array_equal(ndimage.binary_fill_holes(inside), inside)
    middle = np.argwhere(inside)
    np.testing.assert_allclose(head.centre, (middle.min(0) + middle.max(0) + 1) / 2)


def test_deformed_heads_differ_and_stay_whole(head):
    grid = {'spacing': 4.0, 'size': 64, 'jitter': 0}
    volumes = []
    for seed in range(4):
        codes = deform_head(head, np.random.default_rng(seed), **grid)
        inside = codes >= INSIDE
        volumes.append(inside.sum() * 0.064)
        middle = np.argwhere(inside)
        middle = (middle.min(0) + middle.max(0)) / 2
        assert np.abs(middle - 31.5).max() < 5
        # bone is around the brain: nothing of it touches air
        air = ndimage.binary_dilation(codes == 0)
        assert not (air & inside).any()
    truth = (head.codes >= INSIDE).sum() / 1000
    assert len(set(volumes)) == 4 and all(0.5 < volume / truth < 2 for volume in volumes)
    again = deform_head(head, np.random.default_rng(0), **grid)
    np.testing.assert_array_equal(again, deform_head(head, np.random.default_rng(0), **grid))


@pytest.mark.parametrize('mirrored', [False, True])
def test_a_head_that_is_not_bent_stays_as_it_is_but_for_its_sides(monkeypatch, mirrored):
    """Seen in voxels of 2 mm."""
    monkeypatch.setattr(heads, 'random_field', lambda shape, *_: np.zeros(shape))
    still = SimpleNamespace(
        uniform=lambda low, high, size=(): np.full(size, (low + high) / 2),
        random=lambda: 1 - mirrored,
    )
    codes = np.random.default_rng(0).integers(1, 200, (60, 56, 52), np.uint8)
    head = Head('x', codes, np.array(codes.shape) / 2)
    found = deform_head(head, still, spacing=2.0, size=32, jitter=0)
    seen = codes[1::2, 1::2, 1::2]
    expected = seen[::-1] if mirrored else seen
    np.testing.assert_array_equal(found[bounding_box(found > 0)], expected)


def test_the_brain_lies_to_any_side_of_the_middle(head):
    middles = []
    for seed in range(8):
        codes = deform_head(head, np.random.default_rng(seed), spacing=8.0, size=32, jitter=60)
        middles.append(8 * (np.argwhere(codes >= INSIDE).mean(0) - 15.5))
    assert np.max(middles) < 75
    assert (np.max(middles, axis=0) > 20).all() and (np.min(middles, axis=0) < -20).all()


def test_sizes_of_tumors(shape):
    codes = np.zeros((40, 40, 40), np.uint8)
    codes[15:25, 15:25, 15:25] = BRAIN + INSIDE
    sizes = []
    for seed in range(20):
        _, tumor = place_tumor(codes, shape, 4.0, np.random.default_rng(seed))
        sizes.append(4 / 2 * np.cbrt((tumor > 0).sum() / (shape > 0).sum()))
    assert 0.36 < min(sizes) < 0.5 and 1.1 < max(sizes) < 1.35


def test_a_tumor_belongs_to_the_brain(head, shape):
    grid = {'spacing': 4.0, 'size': 64, 'jitter': 0}
    codes = deform_head(head, np.random.default_rng(1), **grid)
    before = codes.copy()
    outer = 0
    for seed in range(20):
        codes = before.copy()
        add_tumor(codes, shape, 4.0, np.random.default_rng(seed))
        tumor = (codes & (INSIDE - 1)) >= TUMOR
        assert tumor.any() and (codes[tumor] >= INSIDE).all()
        assert set(codes[tumor] - INSIDE) == {TUMOR, TUMOR + 1}  # oedema and core
        replaced = before[tumor]
        assert ((replaced >= INSIDE) | (replaced == OUTER_FLUID)).all()
        outer += (replaced == OUTER_FLUID).sum()
        np.testing.assert_array_equal(codes[~tumor], before[~tumor])
    assert outer > 0  # some reach into the fluid around the brain
    nothing = np.zeros((8, 8, 8), np.uint8)
    add_tumor(nothing, shape, 4.0, np.random.default_rng(0))
    assert not nothing.any()


def test_tumors_at_the_surface(head):
    """Their middle is no deeper than said; elsewhere it may lie anywhere."""
    codes = deform_head(head, np.random.default_rng(1), spacing=4.0, size=64, jitter=0)
    depth = ndimage.distance_transform_edt(codes >= INSIDE, sampling=4.0)
    dot = np.full((1, 1, 1), 2, np.uint8)
    deepest = []
    for at_surface in (1, 0):
        found = []
        for seed in range(40):
            box, tumor = place_tumor(
                codes, dot, 4.0, np.random.default_rng(seed), at_surface=at_surface
            )
            found += depth[box][tumor > 0].tolist()
        assert len(found) >= 40
        deepest.append(max(found))
    assert deepest[0] <= SURFACE + 8 < deepest[1]


def test_images(head, shape):
    grid = {'spacing': 4.0, 'size': 64, 'finer': 2}
    brains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = draw_head(head, [shape], rng, mixture=Mixture(stripped=0), **grid)
        assert drawn.image.shape == (64, 64, 64) and drawn.image.dtype == np.float32
        assert np.isfinite(drawn.image).all() and drawn.image.min() >= 0
        assert (drawn.tumor <= drawn.brain).all() and drawn.brain.max() <= 1
        assert ((drawn.brain > 0) & (drawn.brain < 1)).any()
        # where nothing was imaged, nothing is to be found
        assert not drawn.brain[drawn.image == 0].sum() > 0.01 * drawn.brain.sum()
        brains.append(drawn.brain.sum())
    assert np.ptp(brains) > 0


def test_stripped_images_show_the_brain_alone(head):
    drawn = draw_head(
        head, [], np.random.default_rng(2), spacing=4.0, size=64, finer=2,
        mixture=Mixture(stripped=1),
    )  # fmt: skip
    far = ndimage.distance_transform_edt(drawn.brain == 0) > 4
    assert not drawn.image[far].any()
    assert not drawn.tumor.any()


def test_batches_repeat(head, shape, monkeypatch):
    monkeypatch.setattr(head_images, 'FOUND', 1.0)
    batches = HeadBatches([head], [shape], spacing=8.0, size=32, batch=3)
    images, targets, weights = batches(np.random.default_rng(0))
    assert images.shape == targets.shape == weights.shape == (3, 1, 32, 32, 32)
    assert images.dtype == targets.dtype == weights.dtype == torch.float32
    # tumours count more, and all of them are brain
    assert weights.min() == 1 and weights.max() > 5
    assert targets[weights > 1].min() > 0
    assert 0 <= images.min() <= images.max() <= 1.5
    assert not torch.equal(images[0], images[1])  # one head, other contrasts
    again = batches(np.random.default_rng(0))
    assert torch.equal(images, again[0]) and torch.equal(targets, again[1])


@pytest.mark.parametrize(('found', 'near'), [(0.0, False), (1.0, True)])
def test_a_batch_is_often_far_from_the_middle(head, monkeypatch, found, near):
    monkeypatch.setattr(head_images, 'FOUND', found)
    monkeypatch.setattr(head_images, 'DRAWN', 8.0)
    batches = HeadBatches([head], [], spacing=8.0, size=32, batch=1)
    away = []
    for seed in range(6):
        brain = batches(np.random.default_rng(seed))[1][0, 0].numpy()
        away.append(8 * np.abs(ndimage.center_of_mass(brain) - np.full(3, 15.5)).max())
    assert (max(away) < 20) == near


def test_grey_values_vary_within_tumors_and_not_in_air():
    for seed in range(3):
        _, spread = random_contrast(np.random.default_rng(seed), like_t1w=True)
        assert (spread[TUMOR:] > 0).all() and spread[0] == 0


def test_heads_to_learn_from_and_to_be_judged_by(head_labels, tmp_path):
    found = read_heads(head_labels, [], validate=['two'])
    assert [head.name for head in found.heads] == ['one']
    assert [head.name for head in found.held_out] == ['two']
    assert found.facts() == {'anatomies': ['one'], 'shapes': 0}
    other = heads.Heads(found.held_out, found.heads, [])
    shaped = heads.Heads(found.heads, found.held_out, [np.ones((2, 2, 2), np.uint8)])
    assert len({one.checksum() for one in (found, other, shaped)}) == 3
    with pytest.raises(TumorregError, match='no label maps to learn from'):
        read_heads(head_labels, [], exclude=['one'], validate=['two'])
    nb.Nifti1Image(np.full((9, 9, 9), 515, np.int16), np.eye(4)).to_filename(
        tmp_path / 'skull.nii.gz'
    )
    with pytest.raises(TumorregError, match=r'skull\.nii\.gz: no FreeSurfer labels'):
        read_heads(tmp_path, [])


def test_judged_by_dice(head, shape, monkeypatch):
    """A network that finds all that was imaged, and one that finds nothing."""
    monkeypatch.setattr('tumorreg_wf.training.tasks.IMAGES_PER_HEAD', 2)
    network = BrainUNet(width=2)
    recipe = choose_recipe('brain', None, batch=1)
    task = brain_task(network, recipe, heads.Heads([head], [head], [shape]))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(-9)
        assert set(task.measure(network).values()) == {0.0}
        network.head.bias.fill_(9)
        figures = task.measure(network)
    assert list(figures) == ['one-0', 'one-1'] and task.unit == 'Dice'
    assert all(0 < value < 0.5 for value in figures.values())
    images, targets, weights = task.batches(np.random.default_rng(0))
    assert images.shape == (1, 1, 64, 64, 64) and times_finer(4.0) == 2
    total = task.loss(network, images, targets, weights)['total']
    assert total.isfinite()
    assert task.loss(network, images, targets, 2 * weights)['total'] > 1.5 * total


def test_voxels_of_which_half_is_brain_are_brain(head, monkeypatch):
    brain = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    drawn = HeadImage(brain, brain, 0 * brain)
    monkeypatch.setattr(tasks, 'draw_head', lambda *_, **how: drawn)
    monkeypatch.setattr(tasks, 'extract_brain', lambda *_, **how: (brain, brain >= 0.5))
    network = BrainUNet(width=2)
    task = brain_task(network, choose_recipe('brain', None), heads.Heads([head], [head], []))
    assert set(task.measure(network).values()) == {1.0}


def test_the_original_has_no_such_network():
    with pytest.raises(TumorregError, match='no network for brain'):
        choose_recipe('brain', 'paper')
