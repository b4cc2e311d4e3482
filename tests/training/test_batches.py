"""What the networks see: images and masks stay together."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training.batches import (
    InpaintingCubes,
    InpaintingSlices,
    SegmentationSlabs,
    SegmentationVolumes,
)
from tumorreg_wf.training.datasets import Case, make_case


@pytest.fixture(scope='module')
def patient(phantom):
    return make_case('sub-1', phantom.t1w, phantom.flair, phantom.tumor, spacing=2.0)


@pytest.fixture(scope='module')
def healthy(patient):
    return Case('sub-h', patient.t1w, None, np.zeros_like(patient.tumor), patient.brain)


class TestSegmentationSlabs:
    def test_target_is_where_flair_is_bright(self, patient, monkeypatch):
        monkeypatch.setattr('tumorreg_wf.training.batches.FADED', 0)
        batches = SegmentationSlabs([([patient], 1)], offsets=[0], size=(40, 64), batch=16)
        images, targets = batches(np.random.default_rng(0))
        assert images.shape == (16, 2, 40, 64) and targets.shape == (16, 1, 40, 64)
        assert set(targets.unique().tolist()) == {0, 1}
        checked = 0
        for image, target in zip(images, targets):
            flair, brain = image[1], image[1] != 0
            tumor = target[0] > 0
            if flair.any() and tumor.sum() > 20:
                assert flair[tumor].mean() > flair[brain & ~tumor].mean() + 1
                checked += 1
        assert checked > 3

    def test_neighbours_nearer_than_a_voxel(self, patient):
        """In large voxels they are the slice itself; there is one slice to mark still."""
        batches = SegmentationSlabs(
            [([patient], 1)], offsets=[-1, 0, 0, 0, 1], size=(32, 32), batch=2
        )
        images, targets = batches(np.random.default_rng(0))
        assert images.shape == (2, 10, 32, 32) and targets.shape == (2, 1, 32, 32)

    def test_some_slices_come_without_flair_and_some_without_t1w(self, patient):
        batches = SegmentationSlabs([([patient], 1)], offsets=[0], size=(32, 32), batch=80)
        images, _ = batches(np.random.default_rng(0))
        t1w, flair = images.any(dim=(2, 3)).unbind(1)
        assert 10 < (t1w & ~flair).sum() < 40
        assert 2 < (flair & ~t1w).sum() < 20
        assert (t1w | flair).all()

    def test_some_tumors_show_in_one_image_alone(self, patient, monkeypatch):
        monkeypatch.setattr('tumorreg_wf.training.batches.GRAFTED', 0)
        monkeypatch.setattr(
            'tumorreg_wf.training.batches.augment', lambda channel, brain, rng: channel
        )
        grey = np.where(patient.tumor, -2, np.where(patient.brain, 0.5, 0)).astype(np.float16)
        clear = Case('sub-c', grey, -grey, patient.tumor, patient.brain)
        batches = SegmentationSlabs([([clear], 1)], offsets=[0], size=(40, 64), batch=80)
        images, targets = batches(np.random.default_rng(0))
        contrasts = []
        for image, (target,) in zip(images, targets):
            tumor, brain = target > 0, (image != 0).all(0)
            if brain.any() and tumor.sum() > 20:
                contrasts.append(image[:, tumor].mean(1) - image[:, brain & ~tumor].mean(1))
        t1w, flair = (torch.stack(contrasts) / torch.stack(contrasts).abs().amax(0)).abs().T
        assert ((t1w < 0.5) & (flair > 0.7)).any() and ((flair < 0.5) & (t1w > 0.7)).any()
        assert not ((t1w < 0.5) & (flair < 0.5)).any()

    def test_patients_without_flair_and_simulated_ones(self, healthy, patient, monkeypatch):
        monkeypatch.setattr('tumorreg_wf.training.batches.GRAFTED', 0)
        groups = [([healthy], 0.5), ([], 0.3), ([patient], 0.5)]
        batches = SegmentationSlabs(groups, offsets=[0], size=(32, 32), batch=60)
        images, targets = batches(np.random.default_rng(0))
        with_tumor, with_flair = targets.any(dim=(1, 2, 3)), images[:, 1].any(dim=(1, 2))
        assert 8 < with_tumor.sum() < 36
        assert 10 < with_flair.sum() < 36
        assert not (with_tumor & ~with_flair).all()

    def test_a_healthy_brain_gets_the_tumor_of_a_patient(self, healthy, patient, monkeypatch):
        monkeypatch.setattr('tumorreg_wf.training.batches.GRAFTED', 1)
        monkeypatch.setattr('tumorreg_wf.training.batches.FADED', 0)
        monkeypatch.setattr(
            'tumorreg_wf.training.batches.augment', lambda channel, brain, rng: channel
        )
        marked = Case('sub-m', np.where(patient.tumor, 9, 0 * patient.t1w), patient.flair,
                      patient.tumor, patient.brain)  # fmt: skip
        groups = [([healthy], 1), ([marked], 1e-9)]
        batches = SegmentationSlabs(groups, offsets=[0], size=(40, 64), batch=20)
        images, targets = batches(np.random.default_rng(0))
        tumor = targets[:, 0] > 0
        assert tumor.any(dim=(1, 2)).sum() > 10 and not images[:, 1].any()
        assert images[:, 0][tumor].mean() > 6
        assert images[:, 0][~tumor].abs().mean() < 1

    def test_patients_without_flair_lend_to_those_without(self, healthy, patient, monkeypatch):
        monkeypatch.setattr('tumorreg_wf.training.batches.GRAFTED', 1)
        alone = Case('sub-a', patient.t1w, None, patient.tumor, patient.brain)
        whole = Case('sub-w', patient.t1w, patient.flair, healthy.tumor, patient.brain)
        groups = [([whole], 1), ([alone], 1e-9)]
        batches = SegmentationSlabs(groups, offsets=[0], size=(40, 64), batch=10)
        _, targets = batches(np.random.default_rng(0))
        assert not targets.any()

    def test_the_generator_decides(self, patient):
        batches = SegmentationSlabs([([patient], 1)], offsets=[-1, 0], size=(32, 32), batch=2)
        one, again, other = (batches(np.random.default_rng(seed))[0] for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)

    def test_neighbours_come_along(self, patient, monkeypatch):
        """On a brain whose grey values tell the slice."""
        monkeypatch.setattr(
            'tumorreg_wf.training.batches.augment', lambda channel, brain, rng: channel
        )
        depth = np.broadcast_to(np.arange(patient.brain.shape[2]) / 10, patient.brain.shape)
        t1w = np.where(patient.brain, 0.05 + depth, 0).astype(np.float16)
        case = Case('sub-d', t1w, None, patient.tumor, np.ones_like(patient.brain))
        batches = SegmentationSlabs([([case], 1)], offsets=[-3, 0, 2], size=(32, 32), batch=20)
        images, _ = batches(np.random.default_rng(0))
        assert images.shape == (20, 6, 32, 32) and not images[:, 3:].any()
        below, here, above = images[:, :3].unbind(1)
        everywhere = (images[:, :3] != 0).all(1)
        for k in range(20):
            if everywhere[k].sum() > 50:
                means = [slab[k][everywhere[k]].median() for slab in (below, here, above)]
                assert means[0] < means[1] < means[2]


class TestSegmentationVolumes:
    @pytest.fixture
    def plain(self, monkeypatch):
        """Nothing but the view is random."""
        for name, value in (
            ('GRAFTED', 0),
            ('FADED', 0),
            ('WITHOUT_FLAIR', 0),
            ('WITHOUT_T1W', 0),
        ):
            monkeypatch.setattr(f'tumorreg_wf.training.batches.{name}', value)
        monkeypatch.setattr(
            'tumorreg_wf.training.batches.augment', lambda channel, brain, rng: channel
        )

    def test_whole_brains_upright(self, patient, plain):
        batches = SegmentationVolumes([([patient], 1)], size=(80, 96, 80), batch=8)
        images, targets = batches(np.random.default_rng(0))
        assert images.shape == (8, 2, 80, 96, 80) and targets.shape == (8, 1, 80, 96, 80)
        brain = (images[:, 0] != 0).float()
        volumes = brain.sum((1, 2, 3)) / patient.brain.sum()
        assert (volumes > np.exp(-0.45)).all() and (volumes < np.exp(0.45)).all()
        overlap = (brain * brain.flip(1)).sum((1, 2, 3)) / brain.sum((1, 2, 3))
        assert overlap.median() > 0.9
        for image, (target,) in zip(images, targets):
            tumor = target > 0
            assert 0.5 < tumor.sum() / patient.tumor.sum() < 2
            assert image[1][tumor].mean() > image[1][(image[0] != 0) & ~tumor].mean() + 1

    def test_tumors_on_both_sides(self, patient, plain):
        batches = SegmentationVolumes([([patient], 1)], size=(80, 96, 80), batch=12)
        _, targets = batches(np.random.default_rng(0))
        left = targets[:, 0, :40].sum((1, 2, 3)) > targets[:, 0, 40:].sum((1, 2, 3))
        assert 1 < left.sum() < 11

    def test_the_generator_decides(self, patient):
        batches = SegmentationVolumes([([patient], 1)], size=(80, 96, 80), batch=1)
        one, again, other = (batches(np.random.default_rng(seed))[0] for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)


class TestInpaintingSlices:
    def draw(self, cases, shapes, seed=0):
        batches = InpaintingSlices(cases, shapes, spacing=2.0, size=(64, 48), batch=24)
        return batches(np.random.default_rng(seed))

    def test_holes_are_inside_the_brain(self, healthy, patient):
        images, masks, truth, valid = self.draw([healthy], [patient.tumor])
        assert images.shape == masks.shape == truth.shape == valid.shape == (24, 1, 64, 48)
        assert set(masks.unique().tolist()) == {0, 1}
        assert torch.equal(images, truth)
        assert (valid == 1).all()
        hole = masks[:, :1] == 0
        assert (hole.sum((1, 2, 3)) * 2**2 >= 50).all()  # mm^2
        assert (truth[hole] != 0).float().mean() > 0.999
        assert hole[..., 20:44, 12:36].any((1, 2, 3)).all()  # it is what the slice shows

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
        # nor is it seen
        assert (masks[images > 2] == 0).all()
        learnt = (masks[:, :1] == 0) & (valid == 1)
        assert learnt.any((1, 2, 3)).all()
        assert (truth[learnt] != 0).float().mean() > 0.999

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


class TestInpaintingCubes:
    def draw(self, cases, shapes, seed=0):
        cubes = InpaintingCubes(cases, shapes, spacing=2.0, size=(40, 40, 40), batch=6)
        return cubes(np.random.default_rng(seed))

    def test_holes_are_inside_the_brain(self, healthy, patient):
        images, masks, truth, valid = self.draw([healthy], [patient.tumor])
        assert images.shape == masks.shape == (6, 2, 40, 40, 40)
        assert truth.shape == valid.shape == (6, 1, 40, 40, 40)
        assert set(masks.unique().tolist()) == set(valid.unique().tolist()) == {0, 1}
        assert torch.equal(images[:, :1], truth)
        hole = masks[:, :1] == 0
        assert (hole.sum((1, 2, 3, 4)) >= 200 / 8).all()
        assert (truth[hole] != 0).float().mean() > 0.99
        assert (valid[hole] == 1).all()
        volumes = hole.sum((1, 2, 3, 4)).float()
        assert volumes.max() > 2 * volumes.min()  # of every size

    def test_real_tumors_are_never_learnt_from(self, patient):
        values = np.where(patient.tumor, 50, np.where(patient.brain, 1.0, 0))
        marked = Case('sub-m', values.astype(np.float16), None, patient.tumor, patient.brain)
        images, masks, truth, valid = self.draw([marked], [patient.tumor], seed=3)
        assert (truth > 5).any()
        assert (valid[truth > 5] == 0).all()
        assert (masks[images > 5] == 0).all()
        assert ((masks[:, :1] == 0) & (valid == 1)).any(dim=(1, 2, 3, 4)).all()

    def test_the_second_channel_is_the_other_hemisphere(self, patient):
        noise = np.random.default_rng(0).normal(0, 1, patient.brain.shape)
        t1w = ndimage.gaussian_filter(noise, 2)
        brain = patient.brain & patient.brain[::-1]
        t1w = np.where(brain, (t1w + t1w[::-1]) / t1w.std(), 0).astype(np.float16)
        case = Case('sub-s', t1w, None, np.zeros_like(brain), brain)
        images, masks, _, _ = self.draw([case], [patient.tumor], seed=1)
        inner = (images != 0).all(1) & (masks == 1).all(1)
        pairs = torch.stack([images[:, 0][inner], images[:, 1][inner]])
        assert torch.corrcoef(pairs)[0, 1] > 0.9
        for image, within in zip(images, inner, strict=True):  # as bright, and of the same range
            one, other = image[0][within], image[1][within]
            assert float(one.mean() - other.mean()) == pytest.approx(0, abs=0.02)
            assert float(one.std() / other.std()) == pytest.approx(1, abs=0.05)
        # what the other side of a mirrored hole shows is hidden too: holes swap sides
        here, there = (masks[:, 0] == 0), (masks[:, 1] == 0)
        assert there.any() and (here & there).sum() < 0.5 * here.sum()

    def test_shapes_too_small_to_make_a_hole(self, healthy):
        with pytest.raises(TumorregError, match='None of the tumour shapes is large enough'):
            self.draw([healthy], [np.zeros((4, 4, 4), np.uint8), np.ones((1, 1, 1), np.uint8)])

    def test_the_generator_decides(self, healthy, patient):
        one, again, other = (self.draw([healthy], [patient.tumor], seed)[0] for seed in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)
