"""Weights of the networks: which file, whether it is what it says it is."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tumorreg_wf.errors import TumorregError

#: What networks are for.
TASKS = ('brain', 'segmentation', 'inpainting', 'tissues')

#: What weights may call themselves: the methods text has it.
NAME = re.compile(r'[\w.+() -]{1,80}')

#: Names of packaged weights; not every task has all.
NAMES = ('default', 'paper')

#: Folder of the packaged weights, and of the registry that names them by task.
PACKAGED = Path(str(files('tumorreg_wf') / 'data' / 'weights'))


@dataclass(frozen=True)
class Weights:
    """One set of weights on disk.

    Attributes
    ----------
    path : the safetensors file.
    sha256 : hash of its content; a node that uses the weights hashes this.
    name : name and version, for reports.
    task : ``'brain'``, ``'segmentation'``, ``'inpainting'`` or ``'tissues'``.
    architecture : class name of the network.
    config : its keyword arguments.
    spacing : edge of the voxels the network sees, mm.
    """

    path: Path
    sha256: str
    name: str
    task: str
    architecture: str
    config: dict
    spacing: float


def find_weights(task: str, source: str | Path | None = None) -> Weights:
    """Find and check the weights for a task.

    Parameters
    ----------
    task : ``'brain'``, ``'segmentation'``, ``'inpainting'`` or ``'tissues'``.
    source : name of packaged weights, ``'default'`` (also None) or, for segmentation and
        inpainting, ``'paper'``, a network as in the original method; or a safetensors file,
        or a folder that holds one, as ``tumorreg-train`` writes it.

    Raises
    ------
    TumorregError
        If there is no such file, it is not a weights file for this task, or the packaged file
        is not the one that was released (by hash).
    """
    packaged = json.loads((PACKAGED / 'registry.json').read_text())[task]
    entry = packaged.get('default' if source is None else str(source))
    if entry is not None:
        weights = read_weights(PACKAGED / entry['file'])
        if weights.sha256 != entry['sha256']:
            raise TumorregError(
                f'{weights.path}: these packaged weights were altered (sha256 '
                f'{weights.sha256[:12]}..., released {entry["sha256"][:12]}...). '
                'Reinstall tumorreg.'
            )
    elif str(source) in NAMES:
        raise TumorregError(
            f'{source}: there are no packaged weights of this name for {task}, only '
            f'{", ".join(packaged)}. A folder of yours is ./{source}.'
        )
    else:
        weights = read_weights(str(source))
    if weights.task != task:
        raise TumorregError(
            f'{weights.path}: these weights are for {weights.task}, not for {task}.'
        )
    return weights


def read_weights(source: str | Path) -> Weights:
    """Describe a weights file (or the single one in a folder) from its own metadata."""
    path = Path(source).absolute()
    if path.is_dir():
        found = sorted(path.glob('*.safetensors'))
        if len(found) != 1:
            raise TumorregError(
                f'{path}: one .safetensors file is needed in this folder, {len(found)} found.'
            )
        path = found[0]
    try:
        with safe_open(path, framework='numpy') as opened:
            metadata = opened.metadata() or {}
        if not NAME.fullmatch(metadata['name']):
            raise ValueError('its name is not made of letters, digits and blanks')
        return Weights(
            path=path,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            name=metadata['name'],
            task=metadata['task'],
            architecture=metadata['architecture'],
            config=json.loads(metadata['config']),
            spacing=float(metadata['spacing']),
        )
    except OSError:
        raise TumorregError(f'{path}: no such weights file.') from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise TumorregError(
            f'{path}: not a weights file of tumorreg ({error!r}). Weights are safetensors '
            'files written by tumorreg-train.'
        ) from None
