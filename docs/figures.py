"""Draw the pictures of the documentation: make demo && .venv/bin/python docs/figures.py.

result.png: what goes in and what comes out. recovery.png: what the inpainting network is given.
"""

from pathlib import Path

import nibabel as nb
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from tumorreg_wf.symmetry import fit_mirror, mirror

HERE = Path(__file__).parent
ANAT = HERE.parent / 'demo' / 'derivatives' / 'sub-sim01' / 'anat'
RED, YELLOW = '#ff4d4d', '#ffe14d'


def read(name: str) -> np.ndarray:
    """Read an output of the demo, axes R, A, S."""
    image = nb.load(ANAT / f'sub-sim01_{name}.nii.gz')
    return nb.as_closest_canonical(image).get_fdata(dtype=np.float32)


def draw(panels, window, brightest: float, out_file: Path) -> None:
    """Draw a row of slices, each a title, a volume, outlined masks, and labels laid over it."""
    figure = Figure(figsize=(2.8 * len(panels), 3.6), facecolor='black', layout='constrained')
    for axes, (title, volume, masks, labels) in zip(
        figure.subplots(1, len(panels)), panels, strict=True
    ):
        axes.imshow(volume[window].T, cmap='gray', origin='lower', vmin=0, vmax=brightest)
        if labels is not None:
            # neighbours have neighbouring numbers: mix the colours
            colours = colormaps['rainbow'](labels[window].T * 0.618 % 1)
            colours[..., 3] = 0.45 * (labels[window].T > 0)
            axes.imshow(colours, origin='lower')
        for mask, colour in masks:
            axes.contour(mask[window].T, [0.5], colors=colour, linewidths=1)
        axes.set_title(title, color='white', fontsize=11)
        axes.axis('off')
    figure.savefig(out_file, dpi=150)


def main() -> None:
    """Draw both pictures."""
    before, after = map(read, ('desc-preproc_T1w', 'desc-inpainted_T1w'))
    tumor, hole = (read(f'label-tumor{desc}_mask') > 0 for desc in ('', '_desc-dilated'))
    outlines = [(tumor, RED), (hole, YELLOW)]
    known = (before > 0) & ~hole
    seen = np.where(hole, 0, before)
    mirrored = mirror(seen, fit_mirror(before, known))
    x, y = np.nonzero((before > 0).any(2))
    level = int(tumor.sum((0, 1)).argmax())
    window = np.s_[x.min() - 3 : x.max() + 4, y.min() - 3 : y.max() + 4, level]
    brightest = float(np.percentile(before[known], 99.5))
    draw(
        [
            ('tumour, and the mask dilated', before, outlines, None),
            ('what is known', seen, [], None),
            ('the same, mirrored', mirrored, outlines[1:], None),
            ('recovered', after, [], None),
        ],
        window,
        brightest,
        HERE / 'recovery.png',
    )
    atlas = read('atlas-Dosenbach2010_dseg')
    draw(
        [
            ('T1w', before, outlines, None),
            ('recovered', after, [], None),
            ('labels', before, outlines[:1], atlas),
        ],
        window,
        brightest,
        HERE / 'result.png',
    )


if __name__ == '__main__':
    main()
