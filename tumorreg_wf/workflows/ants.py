"""Settings of ANTs as data, and seeds."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from nipype.pipeline import engine as pe

from tumorreg_wf.errors import TumorregError

#: Transforms without a deformation, the first stages of a registration.
LINEAR = ('Translation', 'Rigid', 'Similarity', 'Affine')


def ants_settings(name: str) -> dict:
    """Inputs of an ANTs node; keys that start with _ are notes.

    Parameters
    ----------
    name : of ``data/ants_<name>.json``, or the path of a file that ends with ``.json``.
    """
    given = name.endswith('.json')
    source = Path(name) if given else files('tumorreg_wf') / 'data' / f'ants_{name}.json'
    try:
        settings = json.loads(source.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise TumorregError(f'{source}: cannot be read as JSON ({error}).') from None
    return {key: value for key, value in settings.items() if not key.startswith('_')}


def split_stages(settings: dict) -> tuple[dict, dict]:
    """Split settings of a registration into its linear stages and those that deform.

    The second has no start of its own: it wants ``initial_moving_transform``.
    """
    linear = [transform in LINEAR for transform in settings['transforms']]

    def keep(wanted: bool) -> dict:
        return {
            key: [one for one, is_linear in zip(value, linear, strict=True) if is_linear == wanted]
            if isinstance(value, list)
            else value
            for key, value in settings.items()
        }

    deforming = keep(False)
    deforming.pop('initial_moving_transform_com', None)
    return keep(True), deforming


def seed_node(node: pe.Node, random_seed: int | None) -> None:
    """Fix the random sampling of a registration node; with one thread it repeats bit for bit."""
    if random_seed is not None:
        # native ANTs reads the option, the one inside antspyx only the variable
        node.inputs.random_seed = random_seed
        node.inputs.environ['ANTS_RANDOM_SEED'] = str(random_seed)
