"""Make the picture in method.md: python docs/figures.py, some minutes on two cores.

A patient is simulated, and what the inpainting network is given and what it gives is drawn.
"""

import tempfile
from pathlib import Path

import nibabel as nb
import numpy as np
from matplotlib.figure import Figure

from tumorreg_wf.cli.simulate import main as simulate
from tumorreg_wf.interfaces.images import DilateMask
from tumorreg_wf.interfaces.torch import InpaintTumor
from tumorreg_wf.symmetry import fit_mirror, mirror

HERE = Path(__file__).parent
RED, YELLOW = '#ff4d4d', '#ffe14d'


def read(path: str | Path) -> np.ndarray:
    """Read an image, axes R, A, S."""
    return nb.as_closest_canonical(nb.load(path)).get_fdata(dtype=np.float32)


def draw(bids_dir: Path, work_dir: Path, out_file: Path) -> None:
    """Draw the tumour, the hole, the mirrored brain and the recovered T1w of the first patient."""
    t1w = next(bids_dir.glob('sub-*/anat/*_T1w.nii.gz'))
    (tumor,) = bids_dir.glob('derivatives/*/sub-*/anat/*_label-tumor_mask.nii.gz')
    brain = work_dir / 'brain.nii.gz'
    image = nb.load(t1w)
    nb.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), image.affine).to_filename(brain)
    dilated = DilateMask(in_mask=tumor).run(cwd=str(work_dir)).outputs.out_mask
    found = InpaintTumor(in_file=t1w, in_mask=dilated, brain_mask=brain, num_threads=2)
    before, after = read(t1w), read(found.run(cwd=str(work_dir)).outputs.out_file)
    inside, hole = read(tumor) > 0, read(dilated) > 0

    known = (before > 0) & ~hole
    matrix = fit_mirror(before, known)
    seen = np.where(hole, 0, before)
    level = int(inside.sum((0, 1)).argmax())
    panels = [
        ('tumour, and the mask dilated', before, [(inside, RED), (hole, YELLOW)]),
        ('what is known', seen, []),
        ('the same, mirrored', mirror(seen, matrix), [(hole, YELLOW)]),
        ('recovered', after, []),
    ]
    x, y = np.nonzero((before > 0).any(2))
    window = np.s_[x.min() - 3 : x.max() + 4, y.min() - 3 : y.max() + 4, level]
    figure = Figure(figsize=(11.2, 3.6), facecolor='black', layout='constrained')
    brightest = np.percentile(before[known], 99.5)
    for axes, (title, volume, masks) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(volume[window].T, cmap='gray', origin='lower', vmin=0, vmax=brightest)
        for mask, colour in masks:
            axes.contour(mask[window].T, [0.5], colors=colour, linewidths=1)
        axes.set_title(title, color='white', fontsize=11)
        axes.axis('off')
    figure.savefig(out_file, dpi=100)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        simulate([f'{folder}/bids'])
        draw(Path(folder) / 'bids', Path(folder), HERE / 'recovery.png')
