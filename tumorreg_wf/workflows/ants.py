"""Settings of ANTs as data, and seeds."""

from __future__ import annotations

import json
from importlib.resources import files

from nipype.pipeline import engine as pe


def ants_settings(name: str) -> dict:
    """Inputs of an ANTs node from ``data/ants_<name>.json``; keys that start with _ are notes."""
    settings = json.loads((files('tumorreg_wf') / 'data' / f'ants_{name}.json').read_text())
    return {key: value for key, value in settings.items() if not key.startswith('_')}


def seed_node(node: pe.Node, random_seed: int | None) -> None:
    """Fix the random sampling of a registration node; with one thread it repeats bit for bit."""
    if random_seed is not None:
        # native ANTs reads the option, the one inside antspyx only the variable
        node.inputs.random_seed = random_seed
        node.inputs.environ['ANTS_RANDOM_SEED'] = str(random_seed)
