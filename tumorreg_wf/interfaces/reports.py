"""Figures of the report (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    Str,
    TraitedSpec,
    traits,
)

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box, dilate_mask, load_image, same_grid
from tumorreg_wf.interfaces import colours, figures

#: Of a whole head so much is shown around the brain, mm: its mask can be judged, and nobody is
#: known by it.
SHOWN = 10.0


class _PlotSlicesInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='3-D image, any intensities')
    brain_mask = File(exists=True, mandatory=True, desc='brain mask (0, 1), same grid')
    tumor_mask = File(exists=True, mandatory=True, desc='mask (0, 1), outlined, may be empty')
    dilated_mask = File(exists=True, desc='mask (0, 1), outlined where it is given')
    warp_file = File(
        exists=True,
        desc='displacement field of ANTs, mm, same grid; drawn as a grid on the highest layer',
    )
    through = traits.Enum(
        'brain', 'tumor', usedefault=True, desc='what slices cut through (brain if no tumour)'
    )
    n_slices = traits.Range(
        low=1,
        value=5,
        usedefault=True,
        desc='slices per plane; if 1, the planes lie in a row',
    )
    margin = traits.Float(desc='mm around the tumour that are shown; else the whole brain')
    over_file = File(exists=True, desc='3-D image on the same grid, shown in turns with in_file')
    over_as = traits.List(
        traits.Enum('image', 'change', 'edges', 'tissues', 'signed'),
        usedefault=True,
        desc='a layer for each: show over_file by itself; the same, on the grey scale of in_file; '
        'or, laid over in_file, its edges, labels (BIDS indices), or signed values less their '
        'median in the brain',
    )
    masked = traits.Bool(False, usedefault=True, desc='hide what lies outside the brain mask')
    outline_brain = traits.Bool(
        False, usedefault=True, desc='outline the brain mask, and show more of what is around it'
    )
    names = traits.List(Str, mandatory=True, desc='names of in_file and of the layers')
    title = Str(mandatory=True, desc='what the figure shows, for those who cannot see it')


class _PlotSlicesOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc='SVG figure')


class PlotSlices(SimpleInterface):
    """Draw slices in three planes, with layers to choose from and contours."""

    input_spec = _PlotSlicesInputSpec
    output_spec = _PlotSlicesOutputSpec

    def _run_interface(self, runtime):
        out_file = Path(runtime.cwd) / 'report.svg'
        out_file.write_text(plot_slices(**self.inputs.get_traitsfree()), encoding='utf-8')
        self._results['out_file'] = str(out_file)
        return runtime


def plot_slices(
    *,
    in_file: str | Path,
    brain_mask: str | Path,
    tumor_mask: str | Path,
    title: str,
    names: Sequence[str],
    dilated_mask: str | Path | None = None,
    warp_file: str | Path | None = None,
    through: str = 'brain',
    n_slices: int = 5,
    margin: float | None = None,
    over_file: str | Path | None = None,
    over_as: Sequence[str] = (),
    masked: bool = False,
    outline_brain: bool = False,
) -> str:
    """Draw slices of an image; see :class:`PlotSlices` for the parameters.

    Returns
    -------
    svg : text of an SVG file.

    Raises
    ------
    TumorregError
        If the images do not lie on one grid.
    """
    reference = load_image(brain_mask)

    def read(path: str | Path) -> nb.Nifti1Image:
        image = load_image(path)
        if not same_grid(image, reference):
            raise TumorregError(
                f'{path}: its shape or affine differs from that of {brain_mask}. '
                'Resample it to that grid.'
            )
        return nb.as_closest_canonical(image)

    whole = nb.as_closest_canonical(reference)
    inside = np.asanyarray(whole.dataobj) > 0
    tumor = np.asanyarray(read(tumor_mask).dataobj) > 0
    box = _find_box(inside, tumor, whole, margin, SHOWN if outline_brain else 0)

    affine, brain, tumor = whole.slicer[box].affine, inside[box], tumor[box]
    wanted = (tumor, brain) if through == 'tumor' else (brain, tumor)
    focus = next((mask for mask in wanted if mask.any()), np.ones_like(brain))
    mosaic = figures.Mosaic(focus, affine, n_slices)

    below = np.asanyarray(read(in_file).dataobj)[box]
    everywhere = np.asanyarray(read(over_file).dataobj) if over_file else inside
    over = everywhere[box]
    hidden = ~brain if masked else np.zeros_like(brain)
    if not masked and brain.any() and (below[~brain].any() or over[~brain].any()):
        hidden = ~dilate_mask(brain, nb.affines.voxel_sizes(affine), SHOWN)
    grey = colours.to_grey(below, colours.find_range(below, brain))
    grey[hidden] = 0
    wanted_names = 1 + (len(over_as) if over_file else 0)
    if len(names) != wanted_names:
        raise TumorregError(
            f'names: {len(names)} for {wanted_names} layers, in_file and each way of over_as.'
        )
    layers = [figures.Layer(names[0], mosaic.raster(grey))]
    if over_file:
        if 'signed' in over_as and inside.any():
            over = over - np.median(everywhere[inside])
        for name, how in zip(names[1:], over_as, strict=True):
            volumes, keys = _paint(how, name, below, grey, over, brain, affine)
            for volume in volumes:
                volume[hidden] = 0
            layers.append(figures.Layer(name, mosaic.raster(*volumes), keys))
    if warp_file:
        name, drawing, shown = layers[-1]
        grid = mosaic.grid(_find_places(warp_file, reference, box), brain)
        entries = [*shown, (figures.GRID, f'grid of {figures.GRID_STEP} mm')]
        layers[-1] = figures.Layer(name, drawing + grid, entries)

    outlines = [mosaic.contour(tumor, figures.TUMOR)]
    outlined = [(figures.TUMOR, 'tumour' if tumor.any() else 'no tumour')]
    if dilated_mask:
        dilated = np.asanyarray(read(dilated_mask).dataobj)[box]
        outlines.insert(0, mosaic.contour(dilated > 0, figures.DILATED))
        outlined.append((figures.DILATED, 'what is replaced'))
    if outline_brain:
        outlines.insert(0, mosaic.contour(brain, figures.BRAIN))
        outlined.append((figures.BRAIN, 'brain mask'))
    return figures.compose(mosaic, title, layers, outlines, outlined)


def _paint(
    how: str,
    name: str,
    below: np.ndarray,
    grey: np.ndarray,
    over: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
) -> tuple[list[np.ndarray], list[figures.Key]]:
    """Colour a layer as ``over_as`` says; give what to draw and what the colours mean."""
    if how == 'image':
        return [colours.to_grey(over, colours.find_range(over, brain))], []
    if how == 'change':
        return [colours.to_grey(over, colours.find_range(below, brain))], []
    if how == 'edges':
        edges = colours.find_edges(over, brain, nb.affines.voxel_sizes(affine))
        painted = [colours.blend(grey, np.array(colours.EDGES), 0.8 * lines) for lines in edges]
        return painted, [(f'rgb{colours.EDGES}', name)]
    if how == 'tissues':
        keys: list[figures.Key] = [
            (f'rgb{colour}', tissue) for tissue, colour in colours.TISSUES.values()
        ]
        return [colours.colour_tissues(grey, over)], keys
    limit = max(float(np.percentile(np.abs(over[brain]), 99)) if brain.any() else 0, 0.05)
    painted = [colours.colour_signed(grey, np.where(brain, over, 0), limit)]
    return painted, [(colours.SIGNED, f'{name}, {-limit:.2f} to {limit:.2f}')]


def _find_box(
    brain: np.ndarray,
    tumor: np.ndarray,
    image: nb.Nifti1Image,
    margin: float | None,
    around: float,
) -> tuple[slice, ...]:
    """Find what is shown: all of the brain, or the tumour and so many mm around it.

    ``around`` is what is shown besides the brain, mm.
    """
    sizes = nb.affines.voxel_sizes(image.affine)
    whole = bounding_box(brain | tumor, margin=max(4, int(around / sizes.min())))
    if margin is None or not tumor.any():
        return whole
    wide = np.ceil(margin / sizes).astype(int)
    return tuple(
        slice(max(outer.start, inner.start - more), min(outer.stop, inner.stop + more))
        for outer, inner, more in zip(whole, bounding_box(tumor), wide, strict=True)
    )


def _find_places(
    warp_file: str | Path, reference: nb.Nifti1Image, box: tuple[slice, ...]
) -> np.ndarray:
    """Find where a warp of ANTs takes each voxel of the box: (X, Y, Z, 3), mm, RAS+."""
    warp = cast('nb.Nifti1Image', nb.load(warp_file))
    shifts = np.asanyarray(warp.dataobj).astype(np.float32).squeeze(3)
    field = nb.as_closest_canonical(nb.Nifti1Image(shifts, warp.affine))
    if not same_grid(field.slicer[..., 0], nb.as_closest_canonical(reference)):
        raise TumorregError(f'{warp_file}: its shape or affine differs from that of the image.')
    part = field.slicer[box]
    here = nb.affines.apply_affine(part.affine, np.moveaxis(np.indices(part.shape[:3]), 0, -1))
    return here + np.asanyarray(part.dataobj) * (-1, -1, 1)  # ITK counts in LPS
