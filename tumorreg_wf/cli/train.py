"""tumorreg-train: train a network and write a weights folder."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from tumorreg_wf import __version__
from tumorreg_wf.cli.parser import cores
from tumorreg_wf.cli.run import resolve_device
from tumorreg_wf.cli.train_parser import (
    FROM_LABEL_MAPS,
    MOST_WORKERS,
    VALIDATIONS,
    check_options,
    get_parser,
)
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import describe_error
from tumorreg_wf.training.recipes import choose_recipe

if TYPE_CHECKING:
    from tumorreg_wf.training.recipes import Recipe

#: Of networks that go on from a trained one: its name in them, what it is, and how many times
#: larger its voxels are.
FIRST_STAGES = {
    'TwoStageBrainUNet': ('coarse', 'BrainUNet', 2),
    'RefinedPConvUNet3D': ('unet', 'PConvUNet3D', 1),
    'RefinedTissueUNet': ('unet', 'TissueUNet', 1),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; see ``tumorreg-train --help``."""
    argv = sys.argv[1:] if argv is None else argv
    opts = get_parser().parse_args(argv)
    try:
        recipe = choose_recipe(
            opts.task,
            opts.preset,
            architecture=opts.architecture,
            width=opts.width,
            batch=opts.batch,
            learning_rate=opts.learning_rate,
            steps=opts.steps,
            spacing=opts.spacing,
        )
        check_options(opts)
        _train(opts, recipe, shlex.join(['tumorreg-train', *argv]))
    except TumorregError as error:
        print(f'tumorreg-train: {error}', file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, or one that went away
        print(f'tumorreg-train: {describe_error(error)}.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            'tumorreg-train: interrupted. The same command goes on from the last checkpoint.',
            file=sys.stderr,
        )
        return 1
    return 0


def _train(opts: argparse.Namespace, recipe: Recipe, command: str) -> None:
    import torch
    from safetensors.torch import load_file

    from tumorreg_wf.models import networks
    from tumorreg_wf.shapes import find_shapes
    from tumorreg_wf.training.cohort import read_cohort
    from tumorreg_wf.training.features import load_features
    from tumorreg_wf.training.heads import read_heads
    from tumorreg_wf.training.loop import Validation, in_bfloat16, train
    from tumorreg_wf.training.tasks import (
        brain_task,
        inpainting_task,
        segmentation_task,
        tissue_task,
    )
    from tumorreg_wf.weights import find_weights

    device = resolve_device(opts.device)
    if opts.omp_nthreads:
        torch.set_num_threads(opts.omp_nthreads)
    torch.manual_seed(opts.random_seed)
    config = {'width': recipe.width}
    network = networks.ARCHITECTURES[recipe.architecture](**config)
    start = None
    stage, first, coarser = FIRST_STAGES.get(recipe.architecture, (None, None, 1))
    if stage and opts.start_from is None:
        raise TumorregError(
            f'{recipe.architecture} needs --start-from: weights of a {first}, its first stage.'
        )
    if opts.start_from is not None:
        start = find_weights(opts.task, opts.start_from)
        part = getattr(network, stage) if stage and start.architecture == first else network
        if (start.architecture, start.config) != (type(part).__name__, config):
            raise TumorregError(
                f'{start.path}: weights of {start.architecture} {start.config}, which do not fit '
                f'{recipe.architecture} {config}.'
            )
        times = coarser if part is not network else 1
        if start.spacing != times * recipe.spacing:
            raise TumorregError(
                f'{start.path}: trained in voxels of {start.spacing:g} mm, and not '
                f'{times * recipe.spacing:g}. Choose --spacing {start.spacing / times:g}.'
            )
        part.load_state_dict(load_file(start.path))
    memory_format = networks.MEMORY_FORMATS[network.dimensions]
    if device == 'cpu' and network.dimensions == 3 and in_bfloat16(device):
        memory_format = torch.contiguous_format  # twice as fast there
    network.to(device, memory_format=memory_format)
    features = None
    if opts.features or recipe.with_features:
        if network.dimensions == 3:
            raise TumorregError(
                f'--features, --preset paper: {recipe.architecture} is trained without features.'
            )
        features = load_features(opts.features, device)

    if opts.task in FROM_LABEL_MAPS:
        shapes = find_shapes(opts.shapes, slice(opts.n_shapes)) if opts.shapes else []
        cohort = read_heads(opts.data, shapes, exclude=opts.exclude, validate=opts.validate)
        print(f'{len(cohort.heads)} heads, {len(cohort.held_out)} to validate')
        make = brain_task if opts.task == 'brain' else tissue_task
        task = make(network, recipe, cohort)
    else:
        inpainting = opts.task == 'inpainting'
        cohort = read_cohort(
            opts.data,
            spacing=recipe.spacing,
            healthy=opts.healthy,
            simulated=opts.simulated,
            shapes=opts.shapes,
            n_shapes=opts.n_shapes,
            exclude=opts.exclude,
            validate=opts.validate,
            judge_healthy=inpainting,
        )
        print(
            f'{len(cohort.patients)} patients, {len(cohort.healthy)} healthy brains, '
            f'{len(cohort.simulated)} simulated patients, {len(cohort.held_out)} to validate'
        )
        if inpainting:
            task = inpainting_task(network, recipe, cohort, device, features and features.maps)
        else:
            task = segmentation_task(network, recipe, cohort, device)
    every = opts.validate_every or max(1, recipe.steps // VALIDATIONS)
    workers = opts.workers
    if workers is None:  # heads are drawn on the CPU, while a GPU would wait
        drawn_aside = device != 'cpu' and opts.task in FROM_LABEL_MAPS
        workers = min(MOST_WORKERS, cores()) if drawn_aside else 0
    settings = {
        **asdict(recipe),
        'tumorreg': __version__,
        'random_seed': opts.random_seed,
        'start_from': start and start.sha256,
        'features': features and features.sha256,
        'data': cohort.checksum(),
        'validate': opts.validate,
        'validate_every': every if opts.validate else None,
        'patience': opts.patience,
    }
    opts.out.mkdir(parents=True, exist_ok=True)
    outcome = train(
        network,
        task.batches,
        task.loss,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        fine_tuning_rate=recipe.fine_tuning_rate,
        weight_decay=recipe.weight_decay,
        out_dir=opts.out,
        seed=opts.random_seed,
        device=device,
        workers=workers,
        validation=Validation(task.measure, every, opts.patience) if opts.validate else None,
        settings=settings,
    )
    facts = {'config': config, 'spacing': recipe.spacing}
    networks.save_network(
        network, opts.out / f'{opts.task}.safetensors', name=opts.name, task=opts.task, **facts
    )
    card = {
        'name': opts.name,
        'task': opts.task,
        'architecture': recipe.architecture,
        **facts,
        'command': command,
        'preset': opts.preset,
        **cohort.facts(),
        'excluded': opts.exclude,
        'start_from': start and start.name,
        'feature_network': features and features.name,
        **{
            key: settings[key]
            for key in ('batch', 'learning_rate', 'fine_tuning_rate', 'weight_decay')
        },
        'steps': outcome.steps,
        'random_seed': opts.random_seed,
        'losses': outcome.losses,
        'validation': outcome.validation and {'measure': task.unit, **outcome.validation},
        'seconds': round(outcome.seconds),
        'device': 'cpu' if device == 'cpu' else torch.cuda.get_device_name(device),
        'tumorreg': __version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
    }
    (opts.out / 'model_card.json').write_text(json.dumps(card, indent=1) + '\n')
    print(f'Weights: {opts.out}')


if __name__ == '__main__':
    sys.exit(main())
