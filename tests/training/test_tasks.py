"""Settings, brains and measures of a training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import dilate_mask
from tumorreg_wf.training import tasks
from tumorreg_wf.training.cohort import Cohort
from tumorreg_wf.training.datasets import Case, make_case
from tumorreg_wf.training.recipes import choose_recipe
from tumorreg_wf.training.tasks import draw_hole, inpainting_task, segmentation_task

SPACING = 2.0


@pytest.fixture(scope='module')
def patient(phantom):
    return make_case('sub-1', phantom.t1w, phantom.flair, phantom.tumor, spacing=SPACING)


@pytest.fixture(scope='module')
def cohort(patient):
    """One patient to learn from, and the same to be judged by, with FLAIR and without."""
    alone = replace(patient, name='sub-2', flair=None)
    return Cohort([patient], [], [], [patient.tumor], [patient, alone], SPACING)


class Threshold(nn.Module):
    """Finds a tumour where FLAIR (or T1w) is bright; counts how often it is run."""

    dimensions, offsets = 2, (0,)

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x):
        return 50 * (x[:, 1:] - self.level)


class Constant(nn.Module):
    """Fills a hole with one grey value."""

    dimensions, in_channels = 2, 1

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, mask):
        assert not (x * (1 - mask)).isnan().any()
        return torch.full_like(x[:, :1], self.value)


class TestRecipes:
    def test_the_default_needs_no_words(self):
        recipe = choose_recipe('segmentation', None, architecture=None, width=None)
        assert (recipe.architecture, recipe.width, recipe.batch) == ('MirrorUNet', 24, 8)
        assert recipe.fine_tuning_rate is None
        assert choose_recipe('inpainting', None).architecture == 'PConvUNet3D'

    def test_of_the_paper(self):
        recipe = choose_recipe('inpainting', 'paper')
        assert (recipe.architecture, recipe.batch) == ('PConvNet', 6)
        assert (recipe.learning_rate, recipe.fine_tuning_rate) == (2e-4, 5e-5)
        assert recipe.with_features
        assert not choose_recipe('segmentation', 'paper').dice

    def test_words_count_more(self):
        recipe = choose_recipe('segmentation', 'paper', batch=3, steps=0, width=None)
        assert (recipe.batch, recipe.steps, recipe.learning_rate) == (3, 0, 2e-4)

    def test_a_network_for_something_else(self):
        with pytest.raises(TumorregError, match='segmentation takes MirrorUNet or SlabUNet'):
            choose_recipe('segmentation', None, architecture='PConvNet')


def test_checksum_sees_every_voxel(cohort, patient):
    before = cohort.checksum()
    assert before == replace(cohort).checksum() and len(before) == 8
    for key in ('t1w', 'flair', 'tumor', 'brain'):
        array = getattr(patient, key).copy()
        array[20, 20, 20] = not array[20, 20, 20]
        changed = replace(cohort, patients=[replace(patient, **{key: array})])
        assert changed.checksum() != before
    assert replace(cohort, shapes=[]).checksum() != before


class TestSegmentation:
    def test_dice_of_what_is_found(self, cohort, patient):
        recipe = choose_recipe('segmentation', None, architecture='UNet', batch=2)
        task = segmentation_task(Threshold(0), recipe, cohort, 'cpu')
        found = task.measure(Threshold(2.0))
        assert set(found) == {'sub-1', 'sub-2'} and task.unit == 'Dice'
        assert found['sub-1'] > 0.8
        assert found['sub-2'] == 0  # nothing to see without FLAIR
        everywhere = task.measure(Threshold(-100.0))['sub-1']
        both = patient.brain.sum() + patient.tumor.sum()
        assert everywhere == pytest.approx(2 * patient.tumor.sum() / both, rel=0.05)
        assert task.measure(Threshold(100.0))['sub-1'] == 0

    def test_no_tumor_and_none_found(self, cohort, patient):
        healthy = replace(patient, name='sub-h', tumor=np.zeros_like(patient.tumor))
        recipe = choose_recipe('segmentation', None, architecture='UNet', batch=2)
        task = segmentation_task(Threshold(0), recipe, replace(cohort, held_out=[healthy]), 'cpu')
        assert task.measure(Threshold(100.0)) == {'sub-h': 1.0}
        assert task.measure(Threshold(2.0))['sub-h'] == 0.0

    @pytest.mark.parametrize('preset', [None, 'paper'])
    def test_dice_is_not_in_the_loss_of_the_paper(self, cohort, preset):
        recipe = choose_recipe('segmentation', preset, architecture='UNet', batch=2)
        task = segmentation_task(Threshold(0), recipe, cohort, 'cpu')
        images, targets = torch.randn(2, 2, 8, 8), torch.zeros(2, 1, 8, 8)
        terms = task.loss(Threshold(0), images, targets)
        entropy = nn.functional.binary_cross_entropy_with_logits(50 * images[:, 1:], targets)
        assert terms['total'] == pytest.approx(
            float(entropy + (0 if preset else terms['dice'])), rel=1e-5
        )

    def test_neighbours_are_counted_in_voxels(self, cohort):
        network = Threshold(0)
        network.offsets = (-4, 0, 4)  # mm
        recipe = choose_recipe('segmentation', None, batch=3)
        batches = segmentation_task(network, recipe, cohort, 'cpu').batches
        images, targets = batches(np.random.default_rng(0))
        assert images.shape == (3, 6, 96, 96) and targets.shape == (3, 1, 96, 96)
        assert batches.offsets.tolist() == [-2, 0, 2]


class TestInpainting:
    @pytest.fixture
    def task(self, cohort):
        recipe = choose_recipe('inpainting', None, architecture='PConvNet', batch=2)
        return inpainting_task(Constant(0.0), recipe, cohort, 'cpu', None)

    def test_psnr_in_the_hole(self, task):
        """A mean grey value is better than a wild one, and always as good."""
        good, wild = task.measure(Constant(0.2)), task.measure(Constant(-3.0))
        assert set(good) == {'sub-1', 'sub-2'}
        assert all(good[name] > wild[name] + 3 for name in good)
        assert 5 < good['sub-1'] < 40
        assert task.measure(Constant(0.2)) == good

    def test_psnr_by_hand(self, patient):
        """A hole in even tissue, filled with another value, in units of the brain's range."""
        rng = np.random.default_rng(0)
        even = np.where(patient.brain, rng.choice([-1.0, 1.0], patient.brain.shape), 0)
        case = Case('sub-e', even.astype(np.float16), None, 0 * patient.tumor > 0, patient.brain)
        cohort = Cohort([case], [], [], [patient.tumor], [case], SPACING)
        recipe = choose_recipe('inpainting', None, architecture='PConvNet', batch=2)
        task = inpainting_task(Constant(0.0), recipe, cohort, 'cpu', None)
        # half of the voxels are 2 away from the brightest value there is, of a range of 2
        assert task.measure(Constant(50.0))['sub-e'] == pytest.approx(-10 * np.log10(0.5), abs=0.1)

    def test_tumours_and_what_is_near_them_are_not_shown(self, task, patient, monkeypatch):
        """However wrong a fill is, it is no further off than the range of the brain."""
        near = dilate_mask(patient.tumor, np.full(3, SPACING), 5.0)

        def inpaint(network, t1w, hole, brain, **how):
            hole = hole.get_fdata() > 0
            assert hole[near].all() and (hole & ~near).any()
            return np.full(hole.shape, 1e6)

        monkeypatch.setattr(tasks, 'inpaint', inpaint)
        assert all(0 <= figure < 20 for figure in task.measure(None).values())

    def test_holes_lie_away_from_the_tumour(self, patient, monkeypatch):
        """Next to none of the shape is lost, however little would do."""
        monkeypatch.setattr(tasks, 'SMALLEST_HOLE', 1.0)
        half = patient.brain.copy()
        half[: len(half) // 2] = False
        for seed in range(8):
            hole = draw_hole(
                patient, half, [np.ones((6, 6, 6), bool)], SPACING, np.random.default_rng(seed)
            )
            assert hole.sum() > 0.95 * 6**3

    def test_holes_are_normal_tissue(self, patient):
        rng = np.random.default_rng(0)
        grown = np.ones((6, 6, 6), bool)
        for _ in range(10):
            hole = draw_hole(patient, patient.tumor, [grown], SPACING, rng)
            assert hole.shape == patient.brain.shape
            assert hole.sum() * SPACING**3 >= 1000
            assert not hole[patient.tumor | ~patient.brain].any()
        one, other = (
            draw_hole(patient, patient.tumor, [grown], SPACING, np.random.default_rng(seed))
            for seed in (3, 4)
        )
        assert not np.array_equal(one, other)

    def test_no_room_for_a_hole(self, patient):
        with pytest.raises(TumorregError, match='sub-1: no room for a hole'):
            draw_hole(
                patient, patient.tumor, [np.ones((2, 2, 2), bool)], SPACING,
                np.random.default_rng(0),
            )  # fmt: skip
