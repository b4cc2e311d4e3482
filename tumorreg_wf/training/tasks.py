"""What a network learns from and is judged by: batches, losses and measures of each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nb
import numpy as np
from torch import Tensor, nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import dilate_mask
from tumorreg_wf.measures import dice
from tumorreg_wf.models.extraction import extract_brain
from tumorreg_wf.models.inpainting import inpaint
from tumorreg_wf.models.networks import SIZE_MULTIPLE
from tumorreg_wf.models.segmentation import segment
from tumorreg_wf.models.tissues import find_tissues
from tumorreg_wf.shapes import deep_voxels, place_shape
from tumorreg_wf.tissues import CSF, GM, WM
from tumorreg_wf.training import losses
from tumorreg_wf.training.batches import (
    InpaintingCubes,
    InpaintingSlices,
    SegmentationBatches,
    SegmentationSlabs,
    SegmentationVolumes,
)
from tumorreg_wf.training.cohort import Cohort
from tumorreg_wf.training.datasets import Case
from tumorreg_wf.training.head_images import HeadBatches, Mixture, draw_head, times_finer
from tumorreg_wf.training.heads import Heads
from tumorreg_wf.training.recipes import Recipe
from tumorreg_wf.training.tissue_images import TissueBatches

#: In-plane size of training slices, mm: a whole brain for segmentation, a hole's
#: surroundings for inpainting.
FIELD_OF_VIEW = {'segmentation': (160, 192), 'inpainting': (128, 128)}

#: Edge of the cubes that networks over volumes are trained on, voxels.
CUBE = 96

#: How often the slices to segment are of patients, of healthy brains and of simulated patients.
SHARES = (0.7, 0.1, 0.2)

#: Holes to be judged by are at least as large, mm^3.
SMALLEST_HOLE = 1000.0

#: Grey values between these percentiles of the brain are what PSNR takes for their range.
PERCENTILES = (0.5, 99.5)

#: Images of each head held out that networks of heads and of tissues are judged by.
IMAGES_PER_HEAD = 3

Measure = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class Task:
    """What :func:`tumorreg_wf.training.loop.train` needs to know of a task.

    Attributes
    ----------
    batches, loss : as it takes them.
    measure : judges a network on the cases held out, as in use.
    unit : what the measure is.
    """

    batches: Callable[[np.random.Generator], tuple[Tensor, ...]]
    loss: Callable[..., dict[str, Tensor]]
    measure: Measure
    unit: str


def segmentation_task(network: nn.Module, recipe: Recipe, cohort: Cohort, device: str) -> Task:
    """Learn to find tumours; judged by Dice."""
    groups = list(zip((cohort.patients, cohort.healthy, cohort.simulated), SHARES, strict=True))
    batches: SegmentationBatches
    if network.dimensions == 3:
        size = network.size(cohort.spacing)
        batches = SegmentationVolumes(groups, size=size, batch=recipe.batch, device=device)
    else:
        batches = SegmentationSlabs(
            groups,
            offsets=[round(offset / cohort.spacing) for offset in network.offsets],
            size=_slice_size('segmentation', cohort.spacing),
            batch=recipe.batch,
            device=device,
        )

    def loss(forward, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        terms = losses.segmentation_loss(forward(images), targets)
        return terms if recipe.dice else {**terms, 'total': terms['cross_entropy']}

    def measure(network: nn.Module) -> dict[str, float]:
        figures = {}
        for case in cohort.held_out:
            t1w, brain = (_image(array, cohort.spacing) for array in (case.t1w, case.brain))
            flair = None if case.flair is None else _image(case.flair, cohort.spacing)
            _, found = segment(network, t1w, flair, brain, spacing=cohort.spacing, device=device)
            figures[case.name] = dice(found, case.tumor)
        return figures

    return Task(batches, loss, measure, 'Dice')


def inpainting_task(
    network: nn.Module, recipe: Recipe, cohort: Cohort, device: str, features: Callable | None
) -> Task:
    """Learn to recover normal tissue; judged by the PSNR in one hole per case.

    The peak is the range of grey values in the brain, :data:`PERCENTILES`.
    """
    spacing, volumes = cohort.spacing, network.dimensions == 3
    make = InpaintingCubes if volumes else InpaintingSlices
    batches = make(
        cohort.patients + cohort.healthy,
        cohort.shapes,
        spacing=spacing,
        size=(CUBE,) * 3 if volumes else _slice_size('inpainting', spacing),
        batch=recipe.batch,
        device=device,
    )

    def loss(forward, images: Tensor, masks: Tensor, truth: Tensor, valid: Tensor):
        output = forward(images, masks)
        if volumes:
            return losses.recovery_loss(output, truth, masks[:, :1], valid)
        return losses.inpainting_loss(output, truth, masks[:, :1], valid, features)

    tumors = [dilate_mask(case.tumor, np.full(3, spacing), 5.0) for case in cohort.held_out]
    holes = [
        draw_hole(case, tumor, batches.shapes, spacing, np.random.default_rng(number))
        for number, (case, tumor) in enumerate(zip(cohort.held_out, tumors, strict=True))
    ]

    def measure(network: nn.Module) -> dict[str, float]:
        figures = {}
        for case, tumor, hole in zip(cohort.held_out, tumors, holes, strict=True):
            images = [_image(array, spacing) for array in (case.t1w, hole | tumor, case.brain)]
            recovered = inpaint(network, *images, spacing=spacing, device=device)
            truth = case.t1w.astype(np.float32)
            low, high = np.percentile(truth[case.brain], PERCENTILES)
            error = np.clip(recovered[hole], low, high) - np.clip(truth[hole], low, high)
            figures[case.name] = float(
                20 * np.log10((high - low) / np.sqrt(np.mean(np.square(error))))
            )
        return figures

    return Task(batches, loss, measure, 'PSNR in the hole, dB')


def brain_task(network: nn.Module, recipe: Recipe, heads: Heads) -> Task:
    """Learn to find the brain in a head; judged by Dice, on the network's grid."""
    spacing = recipe.spacing
    grid = {'spacing': spacing, 'size': network.size, 'finer': times_finer(spacing)}
    batches = HeadBatches(
        heads.heads, heads.shapes, spacing=spacing, size=network.size, batch=recipe.batch
    )

    def loss(forward, images: Tensor, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
        return losses.segmentation_loss(forward(images), targets, weights)

    drawn = {
        f'{head.name}-{number}': draw_head(
            head, heads.shapes, np.random.default_rng(number), mixture=Mixture(like_t1w=1), **grid
        )
        for head in heads.held_out
        for number in range(IMAGES_PER_HEAD)
    }

    def measure(network: nn.Module) -> dict[str, float]:
        device = str(next(network.parameters()).device)
        figures = {}
        for name, head in drawn.items():
            image = _image(head.image, spacing)
            _, found = extract_brain(network, image, spacing=spacing, device=device)
            figures[name] = dice(found, head.brain >= 0.5)
        return figures

    return Task(batches, loss, measure, 'Dice')


def tissue_task(network: nn.Module, recipe: Recipe, heads: Heads) -> Task:
    """Learn to tell tissues apart; judged without tumours, by Dice, the mean of the tissues."""
    batches = TissueBatches(heads.heads, heads.shapes, size=network.size, batch=recipe.batch)
    drawn = {
        f'{head.name}-{number}': TissueBatches([head], size=network.size, batch=1)(
            np.random.default_rng(number)
        )
        for head in heads.held_out
        for number in range(IMAGES_PER_HEAD)
    }

    def loss(forward, images: Tensor, tissues: Tensor) -> dict[str, Tensor]:
        return losses.tissue_loss(forward(images), tissues)

    def measure(network: nn.Module) -> dict[str, float]:
        device = str(next(network.parameters()).device)
        figures = {}
        for name, (image, tissues) in drawn.items():
            t1w, truth = image[0, 0].numpy(), tissues[0].numpy()
            images = [_image(array, recipe.spacing) for array in (t1w, t1w > 0)]
            maps = find_tissues(network, *images, spacing=recipe.spacing, device=device)
            found = np.where(truth > 0, maps.argmax(0) + 1, 0)
            figures[name] = float(
                np.mean([dice(found == tissue, truth == tissue) for tissue in (GM, WM, CSF)])
            )
        return figures

    return Task(batches, loss, measure, 'Dice')


def draw_hole(
    case: Case,
    tumor: np.ndarray,
    shapes: list[np.ndarray],
    spacing: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Lay one of some shapes over the normal tissue of a brain (bool, on the case's grid)."""
    centres = deep_voxels(case.brain & ~tumor)
    for _ in range(100):
        shape = shapes[rng.integers(len(shapes))]
        hole = place_shape(shape, case.brain, centres, rng) & ~tumor
        if hole.sum() * spacing**3 >= SMALLEST_HOLE:
            return hole
    raise TumorregError(f'{case.name}: no room for a hole to be judged by.')


def _slice_size(task: str, spacing: float) -> tuple[int, int]:
    height, width = (
        -(-int(mm / spacing) // SIZE_MULTIPLE) * SIZE_MULTIPLE for mm in FIELD_OF_VIEW[task]
    )
    return height, width


def _image(array: np.ndarray, spacing: float) -> nb.Nifti1Image:
    """An array of the network grid as an image; its place does not matter."""
    return nb.Nifti1Image(array.astype(np.float32), np.diag([spacing] * 3 + [1.0]))
