"""Settings of ANTs as data, and seeds."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from nipype.pipeline import engine as pe

from tumorreg_wf.errors import TumorregError


def ants_settings(name: str) -> dict:
    """Inputs of an ANTs node, as ``data/ants_<name>.json`` has them."""
    return read_settings(Path(str(files('tumorreg_wf') / 'data' / f'ants_{name}.json')))


def read_settings(source: Path) -> dict:
    """Read a JSON file; keys that start with _ are notes."""
    try:
        settings = json.loads(source.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise TumorregError(f'{source}: cannot be read as JSON ({error}).') from None
    if not isinstance(settings, dict):
        raise TumorregError(f'{source}: must hold an object, names and values in braces.')
    return {key: value for key, value in settings.items() if not key.startswith('_')}


def seed_node(node: pe.Node, random_seed: int | None) -> None:
    """Fix the random sampling of a registration node; with one thread it repeats bit for bit."""
    if random_seed is not None:
        # native ANTs reads the option, the one inside antspyx only the variable
        node.inputs.random_seed = random_seed
        node.inputs.environ['ANTS_RANDOM_SEED'] = str(random_seed)
