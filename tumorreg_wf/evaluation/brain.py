"""How well the brain is found in simulated heads, and whether the tumour stays in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.figures import Picture, draw_distribution, draw_panel
from tumorreg_wf.evaluation.results import (
    choose_weights,
    describe_weights,
    summarise,
    to_markdown,
    write_results,
)
from tumorreg_wf.measures import dice
from tumorreg_wf.models.extraction import extract_brain, scale_intensity
from tumorreg_wf.models.networks import load_network
from tumorreg_wf.shapes import find_shapes, name_of, read_shape
from tumorreg_wf.training.head_images import HeadImage, Mixture, draw_head
from tumorreg_wf.training.heads import SHAPE_SPACING, read_head

#: Edge of the voxels of the heads drawn (mm), and of their field of view (voxels).
SPACING, SIZE = 2.0, 128

#: What is drawn.
GROUPS = {
    'whole head, T1w': Mixture(like_t1w=1, stripped=0),
    'whole head, any contrast': Mixture(like_t1w=0, stripped=0),
    'stripped, T1w': Mixture(like_t1w=1, stripped=1),
    'whole head, T1w, tumour at the surface': Mixture(like_t1w=1, stripped=0, at_surface=1),
}

COLUMNS = {
    'label_map': 'Label map the head was drawn from.',
    'group': 'What was drawn.',
    'number': 'Of the image; label map, group and number decide all.',
    'weights': 'Name of the weights.',
    'brain_ml': 'True volume of the brain in the field of view, ml.',
    'found_ml': 'Volume found, ml.',
    'dice': 'Twice the overlap over the sum of the volumes.',
    'tumor_ml': 'Volume of the tumours, ml.',
    'tumor_lost': 'Part of the tumours outside of what was found.',
}

STATISTICS = [
    ('n', 'dice', 'size'),
    *((f'Dice {how}', 'dice', how) for how in ('mean', 'median', 'min')),
    ('with tumour', 'tumor_lost', 'count'),
    *((f'tumour lost {how}', 'tumor_lost', how) for how in ('mean', 'max')),
]

INTRODUCTION = f"""\
# Brain extraction

Heads drawn from label maps at {SPACING:g} mm: turned and bent, three in four with tumours,
with the noise, shading and slice thickness of any scanner; some show a part of the head
alone, or have no face.
"""


def evaluate_brain(
    folder: Path,
    out_dir: Path,
    *,
    shapes: Path,
    shape_range: tuple[int, int] | None = None,
    label_maps: Sequence[str] = (),
    images: int = 4,
    weights: Sequence[str | Path | None] = (None,),
    device: str = 'cpu',
    command: str = '',
) -> pd.DataFrame:
    """Measure brain extraction weights; write tables and figures.

    Parameters
    ----------
    folder : label maps of whole heads, see :func:`tumorreg_wf.training.heads.read_heads`.
    out_dir : folder for the results.
    shapes : folder of tumour label volumes.
    shape_range : first and last of these to use, by name, counted from 1; None for all.
    label_maps : names of those to use; all where empty.
    images : number of images of each label map in each of :data:`GROUPS`.
    weights : as :func:`tumorreg_wf.weights.find_weights` takes them.
    device : torch device.
    command : noted in the results.

    Returns
    -------
    table : a row per image and weights, :data:`COLUMNS`.
    """
    paths = {name_of(path): path for path in find_shapes(folder)}
    if missing := [name for name in label_maps if name not in paths]:
        raise TumorregError(f'{folder}: no label map {", ".join(missing)} here.')
    first, last = shape_range or (1, None)
    tumors = [
        read_shape(path, spacing=SHAPE_SPACING)
        for path in find_shapes(shapes, slice(first - 1, last))
    ]
    chosen = choose_weights('brain', weights)
    networks = {name: (load_network(one, device), one.spacing) for name, one in chosen.items()}

    rows: list[dict] = []
    pictures: list[Picture] = []
    for name in label_maps or paths:
        head = read_head(paths[name])
        for group, (kind, mixture) in enumerate(GROUPS.items()):
            for number in range(images):
                rng = np.random.default_rng([number, group, *name.encode()])
                drawn = draw_head(head, tumors, rng, spacing=SPACING, size=SIZE, mixture=mixture)
                for label, (network, spacing) in networks.items():
                    image = nb.Nifti1Image(drawn.image, np.diag([SPACING] * 3 + [1.0]))
                    _, found = extract_brain(network, image, spacing=spacing, device=device)
                    figures = compare(drawn, found)
                    origin = {'label_map': name, 'group': kind, 'number': number}
                    rows.append({**origin, 'weights': label, **figures})
                    words = f'Dice {figures["dice"]:.3f}'
                    if drawn.tumor.any():
                        words += f', tumour lost {figures["tumor_lost"]:.1%}'
                    print(f'{name}, {kind} {number}, {label}: {words}', flush=True)
                    pictures.append(
                        _picture(f'{name}\n{kind}\n{words}', figures['dice'], drawn, found)
                    )
        pictures = sorted(pictures, key=lambda picture: picture.rank)[:12]

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    out_dir.mkdir(parents=True, exist_ok=True)
    summary = '\n'.join([
        INTRODUCTION,
        to_markdown(summarise(table, ['weights', 'group'], STATISTICS)),
        '## Columns of brain.tsv\n',
        ''.join(f'- `{name}`: {text}\n' for name, text in COLUMNS.items()),
    ])  # fmt: skip
    run = {'command': command, 'weights': describe_weights(chosen.items())}
    write_results(out_dir, 'brain', table, run=run, columns=COLUMNS, summary=summary)
    draw_distribution(table, 'dice', 'Dice', 'group', 'weights', out_dir / 'brain_dice.png')
    draw_panel(pictures, out_dir / 'brain_worst.png', ['truth', 'found'])
    return table


def compare(drawn: HeadImage, found: np.ndarray) -> dict[str, float]:
    """Compare what was found (bool) with the truth."""
    voxel = SPACING**3 / 1000
    brain, tumor = drawn.brain >= 0.5, drawn.tumor >= 0.5
    return {
        'brain_ml': brain.sum() * voxel,
        'found_ml': found.sum() * voxel,
        'dice': dice(found, brain),
        'tumor_ml': tumor.sum() * voxel,
        'tumor_lost': float((tumor & ~found).sum() / tumor.sum()) if tumor.any() else np.nan,
    }


def _picture(title: str, score: float, drawn: HeadImage, found: np.ndarray) -> Picture:
    """Cut slices in three planes where result and truth differ most."""
    brain = drawn.brain >= 0.5
    wrong = brain ^ found
    slices: list[tuple[str, np.ndarray, list[np.ndarray]]] = []
    grey = np.clip(scale_intensity(drawn.image), 0, 1)
    for axis, name in ((2, 'axial'), (1, 'coronal'), (0, 'sagittal')):
        k = int(wrong.sum(axis=tuple({0, 1, 2} - {axis})).argmax())
        cut = (slice(None),) * axis + (k,)
        slices.append((name, grey[cut], [brain[cut], found[cut]]))
    return Picture(title, score, slices)
