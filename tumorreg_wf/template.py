"""The template and its atlas, as files for ANTs."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nb
import numpy as np
import pandas as pd

from tumorreg_wf.bids import LABEL
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import write_aside
from tumorreg_wf.images import load_image, resample, save_like
from tumorreg_wf.measures import read_lut
from tumorreg_wf.provenance import fingerprint

#: nilearn's packaged template by its BIDS name: ICBM 152 nonlinear 2009a symmetric, 1 mm.
DEFAULT_TEMPLATE = 'MNI152NLin2009aSym'

#: Territories around the seeds of Dosenbach et al. (2010), whose coordinates nilearn packages.
DEFAULT_ATLAS = 'Dosenbach2010'


@dataclass(frozen=True)
class Template:
    """A skull-stripped template with tissue maps and an atlas, all on one grid.

    Attributes
    ----------
    name : as in file names, ``space-<name>``.
    t1w : stripped T1w.
    brain_mask : its brain mask.
    tissues : probability maps of GM, WM and CSF.
    atlas_name : as in file names, ``atlas-<name>``.
    atlas, atlas_lut : label image and BIDS look-up table (index, name, ...).
    source, atlas_source : T1w and label image the user gave; None for the packaged ones.
    tissues_found : whether a network found the maps, since the template came without.
    """

    name: str
    t1w: Path
    brain_mask: Path
    tissues: tuple[Path, Path, Path]
    atlas_name: str
    atlas: Path
    atlas_lut: Path
    source: Path | None = None
    atlas_source: Path | None = None
    tissues_found: bool = False

    @property
    def is_there(self) -> bool:
        """Whether all its files are."""
        files = (self.t1w, self.brain_mask, *self.tissues, self.atlas, self.atlas_lut)
        return all(map(_is_there, files))


#: Labels stored with a scale factor are whole numbers but for this much.
NEARLY_WHOLE = 0.05

#: Finds GM, WM and CSF in a stripped T1w, given with its brain mask, and writes maps to a folder.
TissueFinder = Callable[[Path, Path, Path], Sequence[Path]]


def load_template(
    source: str | Path | None,
    folder: str | Path,
    *,
    atlas: str | Path | None = None,
    find_tissues: TissueFinder | None = None,
    found_by: str = '',
) -> Template:
    """Get a template ready as files.

    Parameters
    ----------
    source : None, or its name, for nilearn's MNI152; a folder in TemplateFlow's layout
        (``tpl-<name>`` or what holds one such folder); or a TemplateFlow name, fetched by
        templateflow.
    folder : where files are written, all of them if one is missing; those of other sources, or of
        the same with other content, get other names.
    atlas : label image in the space of the template, its look-up table (.tsv) beside it; None
        for one of the source, or else the packaged one, which is made for MNI space.
    find_tissues : makes maps of tissues where the source has none, as
        :func:`tumorreg_wf.workflows.tissues.find_tissues` does; None to refuse such a source.
    found_by : what it goes by, as the hash of weights; with others the maps are made anew.

    Raises
    ------
    TumorregError
        If the source is neither, or lacks an image that is needed.
    """
    folder = Path(folder).absolute()
    if str(source) == DEFAULT_TEMPLATE and not Path(DEFAULT_TEMPLATE).is_dir():
        source = None
    found = None if source is None else _find_images(_find_folder(source))
    name = DEFAULT_TEMPLATE if found is None else found.name
    labels = _find_atlas(found) if found and atlas is None else atlas
    labels = None if labels is None else Path(labels).absolute()
    if labels is not None and not _is_there(labels):
        raise TumorregError(f'{labels}: no such file.')
    if labels is None and not name.startswith('MNI'):
        raise TumorregError(
            f'{source}: this template has no atlas (tpl-{name}_res-01_atlas-..._dseg.nii.gz with '
            'its .tsv beside it), and the packaged one is made for MNI space only. Give one with '
            '--atlas.'
        )
    if labels is not None and not _is_there(_table_of(labels)):
        raise TumorregError(
            f'{labels}: an atlas needs a look-up table beside it, {_table_of(labels).name}, with '
            'the columns index and name.'
        )
    without_maps = found is not None and not found.maps
    if without_maps and find_tissues is None:
        raise TumorregError(
            f'{source}: this template has no maps of tissues '
            f'(tpl-{name}_res-01_label-GM_probseg.nii.gz, and of WM and CSF). A find_tissues '
            'finds them.'
        )
    files = [] if found is None else [found.t1w, found.mask, *found.maps]
    files += [] if labels is None else [labels, _table_of(labels)]
    atlas_name = DEFAULT_ATLAS if labels is None else _name_of_atlas(labels)
    stamp = _stamp(files, found_by if without_maps else '')
    paths = replace(
        _paths(name, atlas_name, folder / f'{name}-{stamp}'),
        source=None if found is None else found.t1w,
        atlas_source=labels,
        tissues_found=without_maps,
    )
    if not paths.is_there:  # those who tidy up scratch disks delete file by file
        paths.t1w.parent.mkdir(parents=True, exist_ok=True)
        image, brain, tissues = _default_images() if found is None else found.read()
        _save((image.get_fdata() * brain).astype(np.float32), image, paths.t1w)
        _save(brain.astype(np.uint8), image, paths.brain_mask)
        if tissues is None:
            assert find_tissues is not None
            with TemporaryDirectory(dir=paths.t1w.parent) as scratch:
                maps = find_tissues(paths.t1w, paths.brain_mask, Path(scratch))
                tissues = np.stack([load_image(path).get_fdata() for path in maps])
        for data, path in zip(tissues, paths.tissues, strict=True):
            _save(data.astype(np.float32), image, path)
        if labels is None:
            _write_seed_atlas(paths, image)
        else:
            _write_atlas(paths, image, brain, labels)
    return paths


def packaged_images() -> tuple[nb.Nifti1Image, ...]:
    """Read T1w, GM, WM and brain mask of the template nilearn packages, 1 mm; no download."""
    from nilearn import datasets

    return tuple(
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )


def _default_images() -> tuple[nb.Nifti1Image, np.ndarray, np.ndarray]:
    """T1w, brain (bool) and tissues (3, X, Y, Z) of the packaged template."""
    t1w, gm_map, wm_map, mask = packaged_images()
    brain = mask.get_fdata() > 0
    gm, wm = gm_map.get_fdata() * brain, wm_map.get_fdata() * brain
    return t1w, brain, np.stack([gm, wm, brain - np.minimum(gm + wm, 1)])


@dataclass(frozen=True)
class _Images:
    """What a folder in TemplateFlow's layout has; ``maps`` are three or none."""

    name: str
    t1w: Path
    mask: Path
    maps: list[Path]

    def read(self) -> tuple[nb.Nifti1Image, np.ndarray, np.ndarray | None]:
        """T1w, brain (bool) and tissues (3, X, Y, Z) or None, on the grid of the T1w."""
        image = load_image(self.t1w)
        brain = resample(load_image(self.mask), image, order=0).get_fdata() > 0
        if not self.maps:
            return image, brain, None
        maps = [resample(load_image(path), image, order=1) for path in self.maps]
        return image, brain, np.stack([tissue.get_fdata() for tissue in maps]) * brain


def _find_folder(source: str | Path) -> Path:
    path = Path(source)
    if not path.is_dir():
        path = _fetch(str(source))
    inner = sorted(path.glob('tpl-*/'))
    return inner[0] if not path.name.startswith('tpl-') and len(inner) == 1 else path


def _find_images(source: Path) -> _Images:
    name = _plain(source.name.removeprefix('tpl-'), source)

    def find(*endings: str) -> Path | None:
        for ending in endings:
            for resolution in ('res-01_', 'res-1_', ''):
                for path in sorted(source.glob(f'tpl-{name}_{resolution}{ending}')):
                    if _is_there(path):
                        return path.absolute()
        return None

    t1w, mask = find('desc-brain_T1w.nii.gz', 'T1w.nii.gz'), find('desc-brain_mask.nii.gz')
    if t1w is None or mask is None:
        raise TumorregError(
            f"{source}: a template needs a T1w and a desc-brain_mask in TemplateFlow's layout "
            f'(tpl-{name}_res-01_desc-brain_T1w.nii.gz ...).'
        )
    maps = [find(f'label-{tissue}_probseg.nii.gz') for tissue in ('GM', 'WM', 'CSF')]
    there = [path for path in maps if path is not None]
    return _Images(name, t1w, mask, there if len(there) == 3 else [])


def _find_atlas(images: _Images) -> Path | None:
    """The first atlas beside the images of a template, of their resolution."""
    shape = load_image(images.mask).shape
    for path in sorted(images.mask.parent.glob(f'tpl-{images.name}_*atlas-*_dseg.nii.gz')):
        if _is_there(path) and _is_there(_table_of(path)) and load_image(path).shape == shape:
            return path
    return None


def _is_there(path: Path) -> bool:
    """Whether a file has content; TemplateFlow keeps empty ones for what was not fetched."""
    return path.is_file() and path.stat().st_size > 0


def _stamp(files: list[Path], found_by: str) -> str:
    """A word that changes with the files a template is made of, and with what makes it."""
    facts = [fingerprint(), found_by]
    for path in files:
        stat = path.stat()
        facts.append(f'{path} {stat.st_size} {stat.st_mtime_ns}')
    return hashlib.sha256('\n'.join(facts).encode()).hexdigest()[:8]


def _name_of_atlas(path: Path) -> str:
    """Name of an atlas: what its file's entities say, or else all of the file's name.

    One atlas may come with 100 or 400 parcels, which only ``desc`` tells apart.
    """
    named = re.findall('(?:^|_)(?:atlas|seg|desc)-([^_.]+)', path.name)
    return _plain(''.join(named) or path.name.partition('.')[0], path)


def _write_atlas(paths: Template, image: nb.Nifti1Image, brain: np.ndarray, atlas: Path) -> None:
    values = resample(load_image(atlas), image, order=0).get_fdata()
    labels = np.rint(values)  # stored with a scale factor, they are whole but for rounding
    if np.abs(values - labels).max() > NEARLY_WHOLE:
        raise TumorregError(
            f'{atlas}: its values are no whole numbers, as the labels of an atlas are. Was it '
            'resampled? That needs nearest neighbour interpolation.'
        )
    if not labels[brain].any():
        raise TumorregError(
            f'{atlas}: no label of this atlas lies in the brain of the template {paths.name}. '
            'It must be in the same space.'
        )
    table = _table_of(atlas)
    lut = read_lut(table)
    # what the table does not name is no region, and may be more than the type holds
    labels[~np.isin(labels, lut['index'])] = 0
    if not labels[brain].any():
        raise TumorregError(f'{atlas}: {table.name} names none of the labels of this image.')
    _save(labels.astype(np.int16), image, paths.atlas)
    _write_lut(lut, paths.atlas_lut)


def _plain(name: str, source: Path) -> str:
    """Refuse what would lead elsewhere, or mean something to a shell, once in names of files."""
    if not LABEL.fullmatch(name):
        raise TumorregError(
            f'{source}: the name of a template or an atlas, here "{name}", has letters and digits '
            'alone. Rename it.'
        )
    return name


def _table_of(atlas: Path) -> Path:
    """Look-up table of an atlas; in TemplateFlow one table serves all resolutions."""
    table = atlas.with_name(re.sub(r'\.nii(\.gz)?$', '.tsv', atlas.name))
    return table if _is_there(table) else atlas.with_name(re.sub('_res-[^_]+', '', table.name))


def _fetch(name: str) -> Path:
    try:
        from templateflow import TemplateFlowClient

        fetch = partial(TemplateFlowClient().get, name, resolution=1)
        found = fetch(suffix=['T1w', 'mask'], raise_empty=True)
        fetch(suffix='probseg', label=['GM', 'WM', 'CSF'], atlas=None)
        return Path(found[0]).parent
    except Exception as error:  # the network, the cache and the name can all fail
        reason = f'{error}'.rstrip('.')[:150]
        raise TumorregError(
            f'--template {name}: no folder, and nothing that TemplateFlow could give: '
            f'{reason}. Check the name and the network, or give a folder in the layout of '
            'TemplateFlow.'
        ) from None


def _paths(name: str, atlas_name: str, folder: Path) -> Template:
    def path(ending: str) -> Path:
        return folder / f'tpl-{name}_{ending}'

    return Template(
        name=name,
        t1w=path('desc-brain_T1w.nii.gz'),
        brain_mask=path('desc-brain_mask.nii.gz'),
        tissues=(
            path('label-GM_probseg.nii.gz'),
            path('label-WM_probseg.nii.gz'),
            path('label-CSF_probseg.nii.gz'),
        ),
        atlas_name=atlas_name,
        atlas=path(f'atlas-{atlas_name}_dseg.nii.gz'),
        atlas_lut=path(f'atlas-{atlas_name}_dseg.tsv'),
    )


def _save(data: np.ndarray, like: nb.Nifti1Image, path: Path) -> None:
    with write_aside(path) as part:  # two runs may share the folder
        save_like(data, like, part)


def _write_seed_atlas(paths: Template, image: nb.Nifti1Image) -> None:
    """Label each voxel of brain tissue by the nearest seed of its own hemisphere."""
    from nilearn import datasets
    from scipy.spatial import cKDTree

    seeds = datasets.fetch_coords_dosenbach_2010(ordered_regions=False)
    points = np.array([[rois[axis] for axis in 'xyz'] for rois in seeds.rois.to_dict('records')])
    gm, wm, csf = (load_image(path).get_fdata() for path in paths.tissues)
    voxels = np.argwhere((gm + wm) > np.maximum(csf, 0.2))
    where = nb.affines.apply_affine(image.affine, voxels)
    labels = np.zeros(image.shape, np.int16)
    for sign, side in ((-1, where[:, 0] < 0), (1, where[:, 0] >= 0)):
        # a seed on the midline serves both sides
        own = np.flatnonzero(points[:, 0] * sign >= -2)
        labels[tuple(voxels[side].T)] = own[cKDTree(points[own]).query(where[side])[1]] + 1
    _save(labels, image, paths.atlas)
    sides = np.select([points[:, 0] < -2, points[:, 0] > 2], ['L', 'R'], 'B')
    names = [
        f'{str(label).rsplit(" ", 1)[0]} {side} {index}'
        for index, (label, side) in enumerate(zip(seeds.labels, sides, strict=True), 1)
    ]
    lut = pd.DataFrame(
        {
            'index': np.arange(1, len(points) + 1),
            'name': names,
            'hemisphere': sides,
            'network': list(seeds.networks),
        }
    )
    _write_lut(lut, paths.atlas_lut)


def _write_lut(lut: pd.DataFrame, path: Path) -> None:
    with write_aside(path) as part:  # with it the template counts as complete
        lut.to_csv(part, sep='\t', index=False, quoting=csv.QUOTE_NONE)
