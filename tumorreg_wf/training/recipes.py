"""How each network is trained unless the user says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tumorreg_wf.errors import TumorregError


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes
    ----------
    architecture : class name of the network.
    width : channels of its first level.
    batch : slices, cubes or images of a head in a batch.
    learning_rate : of Adam, see :func:`tumorreg_wf.training.loop.train`.
    steps : number of steps.
    spacing : edge of the voxels the network sees, mm.
    fine_tuning_rate, weight_decay : see :func:`tumorreg_wf.training.loop.train`.
    dice : whether the segmentation loss has soft Dice besides cross-entropy.
    with_features : whether losses (5) to (7) take the packaged feature network where no other
        is named; without, they are left out then.
    """

    architecture: str
    width: int
    batch: int
    learning_rate: float
    steps: int
    spacing: float = 1.0
    fine_tuning_rate: float | None = None
    weight_decay: float = 0.0
    dice: bool = True
    with_features: bool = False


#: For each task, the default first.
RECIPES = {
    'segmentation': (
        Recipe(
            'MirrorUNet',
            24,
            batch=8,
            learning_rate=2e-3,
            steps=6_000,
            spacing=2.0,
            weight_decay=0.01,
        ),
        Recipe('SlabUNet', width=24, batch=16, learning_rate=2e-3, steps=10_000),
        Recipe('UNet', width=24, batch=16, learning_rate=2e-3, steps=10_000),
    ),
    'inpainting': (
        Recipe('PConvUNet3D', width=24, batch=2, learning_rate=2e-3, steps=10_000),
        Recipe('RefinedPConvUNet3D', width=24, batch=2, learning_rate=1e-3, steps=2_000),
        Recipe('PConvNet', width=32, batch=6, learning_rate=1e-3, steps=10_000),
    ),
    'brain': (
        Recipe('BrainUNet', width=16, batch=2, learning_rate=2e-3, steps=10_000, spacing=4.0),
        Recipe('TwoStageBrainUNet', 16, batch=2, learning_rate=2e-3, steps=2_000, spacing=2.0),
    ),
    'tissues': (
        Recipe('TissueUNet', width=24, batch=2, learning_rate=2e-3, steps=5_000),
        Recipe('RefinedTissueUNet', width=24, batch=1, learning_rate=4e-3, steps=1_000),
    ),
}

#: The settings of the original method.
PAPER = {
    'segmentation': Recipe('UNet', 24, 6, 2e-4, 30_000, fine_tuning_rate=5e-5, dice=False),
    'inpainting': Recipe(
        'PConvNet', 32, 6, 2e-4, 30_000, fine_tuning_rate=5e-5, with_features=True
    ),
}


def choose_recipe(task: str, preset: str | None, **wanted) -> Recipe:
    """Settings of a preset (``'paper'``) or of an architecture, and what the user wants instead.

    Parameters
    ----------
    task : ``'segmentation'``, ``'inpainting'``, ``'brain'`` or ``'tissues'``.
    preset : ``'paper'``, or None.
    wanted : fields of :class:`Recipe`; None for what the recipe says.
    """
    known = {recipe.architecture: recipe for recipe in RECIPES[task]}
    architecture = wanted.get('architecture') or RECIPES[task][0].architecture
    if architecture not in known:
        raise TumorregError(f'--architecture {architecture}: {task} takes {" or ".join(known)}.')
    if preset == 'paper' and task not in PAPER:
        raise TumorregError(f'--preset paper: the original method has no network for {task}.')
    recipe = PAPER[task] if preset == 'paper' else known[architecture]
    return replace(recipe, **{key: value for key, value in wanted.items() if value is not None})
