"""How well normal tissue is recovered: holes in healthy brains, whose content is known."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tumorreg_wf.bids import check_dataset, find_cases
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation.figures import Picture, draw_distribution, draw_panel, spread
from tumorreg_wf.evaluation.fills import CLASSICAL, METHODS, NETWORKS, Fill, with_network
from tumorreg_wf.evaluation.holes import Hole, make_holes, on_brats_grid
from tumorreg_wf.evaluation.metrics import compare_fill, grey_range, scale_grey
from tumorreg_wf.evaluation.results import (
    choose_weights,
    describe_weights,
    summarise,
    to_markdown,
    write_results,
)
from tumorreg_wf.images import bounding_box, load_image, require_images, voxel_spacing
from tumorreg_wf.intensity import require_stripped
from tumorreg_wf.models.networks import load_network
from tumorreg_wf.shapes import find_shapes
from tumorreg_wf.weights import Weights, find_weights

#: Classes of holes by the volume filled, ml.
CLASSES = {'all holes': (0, np.inf), 'up to 15 ml': (0, 15), '15 to 60 ml': (15, 60),
           'over 60 ml': (60, np.inf)}  # fmt: skip

COLUMNS = {
    'participant_id': 'Participant.',
    'hole': 'Number of the hole in this participant.',
    'shape': 'Label volume that lent its shape.',
    'scale': 'Size relative to that shape, as a length.',
    'volume_ml': 'Volume of the dilated hole within the brain, ml.',
    'method': 'What filled it.',
    'mse': 'Mean squared error in the hole; grey values clipped to the 0.5 and 99.5 percentiles '
    'of the voided image (all its voxels; the lower at least 0) and scaled to [0, 1].',
    'psnr': 'Peak signal-to-noise ratio of the same, dB, for a peak of 1.',
    'ssim': 'Mean over the hole of the map of structural similarity, of the same grey values; '
    '3-D Gaussian windows, sigma 1.5 voxels.',
    'slice_psnr': 'Mean over the axial slices that hold some hole of the PSNR of the whole '
    '240x240 slice, dB, of the same grey values.',
    'slice_ssim': 'Mean over the same slices of the structural similarity of the whole slice; '
    '2-D Gaussian windows, sigma 1.5 pixels.',
    'continuity': 'Mean absolute difference of neighbours in the hole between axial slices over '
    'that within slices, over the same ratio in the truth.',
}
MEASURES = {'psnr': 'PSNR, dB', 'ssim': 'SSIM', 'mse': 'MSE', 'slice_psnr': 'slice PSNR, dB',
            'slice_ssim': 'slice SSIM', 'continuity': 'continuity'}  # fmt: skip
STATISTICS = [
    ('n', 'psnr', 'size'),
    *((title, name, 'mean') for name, title in MEASURES.items()),
    ('PSNR sd', 'psnr', 'std'),
    ('SSIM sd', 'ssim', 'std'),
]

INTRODUCTION = """\
# Recovery of normal tissue

Shapes of tumours, dilated by 3 mm as in `tumorreg`, laid over healthy T1w on the BraTS grid
(240x240x155 voxels of 1 mm). Means over holes; the columns are explained below.
"""


def evaluate_inpainting(
    dataset: Path,
    out_dir: Path,
    *,
    shapes: Path,
    shape_range: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    holes_per_subject: int = 1,
    participants: Sequence[str] = (),
    methods: Sequence[str] = METHODS,
    weights: Sequence[str | Path] = (),
    seed: int = 1,
    device: str = 'cpu',
    command: str = '',
) -> pd.DataFrame:
    """Measure ways to recover normal tissue on the same holes; write tables and figures.

    Parameters
    ----------
    dataset : BIDS dataset of skull-stripped T1w of people without lesions.
    out_dir : folder for the results.
    shapes : folder of tumour label volumes.
    shape_range : first and last of them, by name, counted from 1; None for all.
    scales : sizes the shapes are brought to; with each, every participant has
    holes_per_subject : holes, one at a time.
    participants : labels; all where empty.
    methods : of :data:`METHODS`; a network whose weights are not there is left out.
    weights : further weights.
    seed : decides shapes and places; those of a participant do not depend on the others.
    device : torch device.
    command : noted in the results.

    Returns
    -------
    table : a row per hole and method, :data:`COLUMNS`.
    """
    check_dataset(dataset)
    cases = find_cases(dataset, participants)
    require_images(case.t1w for case in cases)
    first, last = shape_range or (1, None)
    paths = find_shapes(shapes, slice(first - 1, last))
    networks = _choose_networks(methods, weights)
    fills = {name: CLASSICAL[name] for name in methods if name in CLASSICAL}
    fills |= {
        name: with_network(load_network(one, device), one.spacing, device)
        for name, one in networks.items()
    }

    rows: list[dict] = []
    pictures: list[Picture] = []
    for number, case in enumerate(cases, 1):
        subject = f'sub-{case.subject}'
        t1w = load_image(case.t1w)
        require_stripped(np.asanyarray(t1w.dataobj), voxel_spacing(t1w), case.t1w)
        truth, brain = on_brats_grid(t1w)
        rng = np.random.default_rng((seed, zlib.crc32(case.subject.encode())))
        wanted = [scale for scale in scales for _ in range(holes_per_subject)]
        for hole in make_holes(brain, paths, wanted, rng):
            found = _fill_hole(truth, brain, hole, fills)
            where = {'participant_id': subject, 'hole': hole.number, 'shape': hole.shape}
            where |= {'scale': hole.scale, 'volume_ml': hole.volume}
            rows += [
                {**where, 'method': name, **compare_fill(filled, truth, hole.mask)}
                for name, filled in found.items()
            ]
            pictures.append(_picture(subject, truth, hole, found))
        print(
            f'{subject} ({number} of {len(cases)}): {len(wanted)} hole{"s" * (len(wanted) > 1)}',
            flush=True,
        )

    table = pd.DataFrame(rows, columns=list(COLUMNS))
    out_dir.mkdir(parents=True, exist_ok=True)
    run = {'command': command, 'weights': describe_weights(networks.items()), 'random_seed': seed}
    write_results(
        out_dir, 'inpainting', table, run=run, columns=COLUMNS, summary=summary_of(table)
    )
    classed = by_class(table)
    draw_distribution(
        classed, 'psnr', 'PSNR in the hole, dB', 'class', 'method', out_dir / 'inpainting_psnr.png'
    )
    draw_panel(spread(pictures), out_dir / 'inpainting_holes.png', ['hole'])
    return table


def _choose_networks(methods: Sequence[str], more: Sequence[str | Path]) -> dict[str, Weights]:
    """Weights by the name of the method; a method without any is left out with a note."""
    networks: dict[str, Weights] = {}
    for method in methods:
        if method in NETWORKS:
            try:
                networks[method] = find_weights('inpainting', NETWORKS[method])
            except TumorregError as error:
                print(f'{method}: left out. {error}', flush=True)
    for name, weights in choose_weights('inpainting', more).items():
        networks[f'{name} (given)' if name in METHODS else name] = weights
    return networks


def _fill_hole(
    truth: np.ndarray, brain: np.ndarray, hole: Hole, fills: dict[str, Fill]
) -> dict[str, np.ndarray]:
    """Fill a hole with every method, none of which sees what was there."""
    voided = np.where(hole.mask, 0, truth)
    return {
        name: np.where(hole.mask, fill(voided, hole.mask, brain), truth)
        for name, fill in fills.items()
    }


def _picture(subject: str, truth: np.ndarray, hole: Hole, found: dict[str, np.ndarray]) -> Picture:
    """Cut the axial slice with most of the hole."""
    k = int(hole.mask.sum(axis=(0, 1)).argmax())
    voided = np.where(hole.mask, 0, truth)
    box = bounding_box((truth != 0).any(axis=2), margin=3)
    mask = hole.mask[..., k][box]
    limits = grey_range(voided)

    def grey(image: np.ndarray) -> np.ndarray:
        return scale_grey(image[..., k][box], limits)

    slices = [('truth', grey(truth), [mask]), ('hole', grey(voided), [])]
    slices += [(name, grey(filled), []) for name, filled in found.items()]
    return Picture(f'{subject}, {hole.volume:.0f} ml', hole.volume, slices)


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Repeat the rows of a table for every class of volume they belong to."""
    classes = []
    for name, (above, up_to) in CLASSES.items():
        inside = (table['volume_ml'] > above) & (table['volume_ml'] <= up_to)
        classes.append(table[inside].assign(**{'class': name}))
    return pd.concat(classes)


def summary_of(table: pd.DataFrame) -> str:
    """Summarise a table in Markdown, by volume of the hole."""
    parts = [INTRODUCTION]
    for name, rows in by_class(table).groupby('class', sort=False):
        measured = to_markdown(summarise(rows, ['method'], STATISTICS))
        parts += [f'## {name.capitalize()}\n', measured]
    parts += ['## Columns of inpainting.tsv\n']
    parts += [''.join(f'- `{name}`: {text}\n' for name, text in COLUMNS.items())]
    return '\n'.join(parts)
