"""The engines of the registration, greedy and SyN: settings as data, nodes of the same fields."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nipype.pipeline import engine as pe
from traits.api import TraitError

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.ants import Registration
from tumorreg_wf.interfaces.greedy import GreedyRegistration
from tumorreg_wf.workflows.ants import ants_settings, read_settings, seed_node

#: What the methods text says of each.
ENGINES = {
    'greedy': 'greedy [@greedy] (affine, then a diffeomorphic deformation)',
    'syn': 'ANTs (affine, then SyN [@syn])',
}

#: Stages of greedy: the deformation is by the images or by maps of tissues.
STAGES = ({'affine', 'deformable'}, {'affine', 'tissues'})

#: Transforms of ANTs without a deformation, the first stages of a registration.
LINEAR = ('Translation', 'Rigid', 'Similarity', 'Affine')

#: Settings that come along.
SETTINGS = tuple(engine + effort for engine in ENGINES for effort in ('', '_sloppy', '_precise'))


def registration_settings(name: str) -> dict:
    """Settings of a registration by one of the engines.

    Parameters
    ----------
    name : ``'greedy'`` or ``'syn'``, with ``'_sloppy'`` or ``'_precise'`` or as they are; or the
        path of a file of the form of ``data/greedy.json`` or ``data/ants_syn.json`` that ends
        with ``.json``.

    Returns
    -------
    settings : inputs of ANTs' node, or the stages of greedy.

    Raises
    ------
    TumorregError
        If there are no such settings, or a file holds none.
    """
    if name.endswith('.json'):
        settings = read_settings(Path(name))
        if engine_of(settings) == 'greedy' and set(settings) not in STAGES:
            raise TumorregError(
                f'{name}: neither settings of greedy ("affine", and "deformable" or "tissues") '
                'nor of antsRegistration ("transforms" and so on).'
            )
        if engine_of(settings) == 'greedy' and not all(
            isinstance(options, str) for options in settings.values()
        ):
            raise TumorregError(f'{name}: the options of a stage of greedy are one text.')
        if engine_of(settings) == 'syn':
            try:
                Registration(**settings)
            except TraitError as error:
                raise TumorregError(f'{name}: {error}') from None
        return settings
    if name not in SETTINGS:
        raise TumorregError(
            f'{name}: no settings of a registration. There are {", ".join(SETTINGS)}, and JSON '
            'files.'
        )
    if name.startswith('greedy'):
        return read_settings(Path(str(files('tumorreg_wf') / 'data' / f'{name}.json')))
    return ants_settings(name)


def engine_of(settings: dict) -> str:
    """Tell whose settings these are."""
    return 'syn' if 'transforms' in settings else 'greedy'


def by_tissues(settings: dict) -> bool:
    """Tell whether the deformation is by maps of tissues; by the images otherwise."""
    return 'tissues' in settings


def registration_node(
    settings: dict, *, omp_nthreads: int, random_seed: int | None, name: str
) -> pe.Node:
    """Make the node that registers.

    Its fields are those of :class:`nipype.interfaces.ants.Registration`: ``fixed_image``,
    ``moving_image``, ``fixed_image_mask``, ``initial_moving_transform``; ``composite_transform``
    and ``inverse_composite_transform`` come out. That of greedy has ``fixed_maps`` and
    ``moving_maps`` too, of which :func:`by_tissues` says whether they are needed.

    Parameters
    ----------
    settings : of :func:`registration_settings`.
    omp_nthreads : threads.
    random_seed : of the metric's sampling; None leaves it to ANTs, and is 1 for greedy.
    name : name of the node.
    """
    if engine_of(settings) == 'syn':
        node = pe.Node(
            Registration(num_threads=omp_nthreads, **settings),
            name=name,
            n_procs=omp_nthreads,
            mem_gb=3,
        )
        seed_node(node, random_seed)
        return node
    interface = GreedyRegistration(settings=settings, num_threads=omp_nthreads)
    if random_seed is not None:
        interface.inputs.random_seed = random_seed
    return pe.Node(interface, name=name, n_procs=omp_nthreads, mem_gb=3)


def split_stages(settings: dict) -> tuple[dict, dict]:
    """Split settings of a registration into its linear stages and those that deform.

    The second has no start of its own: it wants ``initial_moving_transform``.
    """
    if engine_of(settings) == 'greedy':
        return {'affine': settings['affine']}, {
            stage: options for stage, options in settings.items() if stage != 'affine'
        }
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
