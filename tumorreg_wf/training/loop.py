"""The training loop: steps, validation, checkpoints, exact resume."""

from __future__ import annotations

import math
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import write_aside
from tumorreg_wf.training.logs import Logs

#: A larger norm is no gradient's: convolutions in bfloat16 on a CPU now and then return garbage.
LARGEST_GRADIENT = 1e3

#: Gradients are cut to this norm.
GRADIENT_NORM = 5.0

#: The learning rate rises over the first steps, this part of all and so many at most.
WARM_UP = (0.1, 100)


@dataclass(frozen=True)
class Validation:
    """How a network is judged while it learns.

    Attributes
    ----------
    measure : maps the network to a figure per case, the more the better; their mean counts.
    every : steps from one validation to the next; the last step is followed by one, too.
    patience : validations in a row without a better mean that end the training; None for never.
    """

    measure: Callable[[nn.Module], dict[str, float]]
    every: int
    patience: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes
    ----------
    steps : steps done, fewer than asked for where validation ended the training.
    seconds : time taken, all runs together.
    losses : means over the last steps, by name.
    validation : ``step``, ``mean`` and ``figures`` of the best network; None without validation.
    """

    steps: int
    seconds: float
    losses: dict[str, float]
    validation: dict | None


def train(
    network: nn.Module,
    batches: Callable[[np.random.Generator], tuple[Tensor, ...]],
    loss: Callable[..., dict[str, Tensor]],
    *,
    steps: int,
    learning_rate: float,
    out_dir: Path,
    fine_tuning_rate: float | None = None,
    weight_decay: float = 0.0,
    seed: int = 1,
    device: str = 'cpu',
    workers: int = 0,
    validation: Validation | None = None,
    settings: dict | None = None,
) -> Outcome:
    """Train a network, going on from the checkpoint in ``out_dir`` where there is one.

    Every step draws from its own generator, seeded by ``(seed, step)``: a resumed run sees what
    an uninterrupted one would have seen, however many workers there are. On a GPU, and on a CPU
    that computes in bfloat16, the network runs in it where that is safe, and the losses in
    float32.

    Parameters
    ----------
    network : trained in place; in the end the best one, or without validation the last.
    batches : gives a batch of tensors for a generator; called from several threads at once
        where there are ``workers``.
    loss : maps ``(forward, *batch)`` to named losses, of which ``total`` is minimised; ``forward``
        runs the network.
    steps : number of steps in all, earlier runs counted in.
    learning_rate : of Adam after a warm-up; falls to nothing along a half cosine.
    out_dir : gets ``log.csv``, ``validation.csv``, ``tensorboard`` and ``checkpoint.pt``.
    fine_tuning_rate : where given, the rate is constant instead, and this in the last third.
    weight_decay : decoupled from the gradients (AdamW; Loshchilov and Hutter 2019).
    seed : of the batches.
    device : torch device.
    workers : threads that prepare batches ahead; 0 for none.
    validation : how to judge the network; None for not at all.
    settings : what the result depends on, by name; a checkpoint of others is refused.

    Raises
    ------
    TumorregError
        If ``out_dir`` holds a training with other settings, or a damaged checkpoint.
    """
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
    state: dict[str, Any] = {'step': 0, 'seconds': 0.0, 'losses': {}, 'best': None}
    state['settings'] = settings or {}
    checkpoint = out_dir / 'checkpoint.pt'
    if checkpoint.exists():
        try:
            state |= torch.load(checkpoint, map_location=device, weights_only=True)
        except (EOFError, RuntimeError, pickle.UnpicklingError):
            raise TumorregError(
                f'{checkpoint}: this file is damaged. Delete {out_dir} to begin anew.'
            ) from None
        _check_settings(out_dir, state['settings'], settings or {})
        network.load_state_dict(state['network'])
        optimizer.load_state_dict(state['optimizer'])
    first, started = state['step'], time.monotonic() - state['seconds']
    every = min(50, max(1, steps // 10))
    kind = torch.device(device).type
    logs, terms = Logs(out_dir, first, steps), []

    mixed = in_bfloat16(device)

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=mixed):
            return network(*inputs).float()

    def draw(step: int) -> tuple[Tensor, ...]:
        return batches(np.random.default_rng([seed, step]))

    network.train()
    prepared = _prepare(draw, range(first, steps), workers)
    for done in range(first + 1, steps + 1):
        if validation is not None and _is_stale(state, validation):
            break
        for group in optimizer.param_groups:
            group['lr'] = _rate(done - 1, steps, learning_rate, fine_tuning_rate)
        before = [values.clone() for values in network.buffers()]
        found = loss(forward, *(part.to(device) for part in next(prepared)))
        optimizer.zero_grad()
        found['total'].backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        if norm <= LARGEST_GRADIENT:
            optimizer.step()
        else:  # statistics of batch normalisation are no better than the gradients
            for values, old in zip(network.buffers(), before, strict=True):
                values.copy_(old)
        terms.append({name: value.detach() for name, value in found.items()})
        logs.advance(done)

        judged = validation is not None and (done % validation.every == 0 or done == steps)
        if judged or done % every == 0 or done == steps:
            means = {
                name: float(torch.stack([row[name] for row in terms]).double().mean())
                for name in terms[0]
            }
            state |= {'step': done, 'losses': means, 'seconds': time.monotonic() - started}
            logs.losses(done, state['seconds'], means)
            terms = []
            if validation is not None and judged:
                _validate(network, validation, state, logs)
            state |= {'network': network.state_dict(), 'optimizer': optimizer.state_dict()}
            with write_aside(checkpoint) as part:
                torch.save(state, part)
    prepared.close()
    logs.close()
    best = state['best']
    if best is not None:
        network.load_state_dict(best['network'])
        best = {key: best[key] for key in ('step', 'mean', 'figures')}
    return Outcome(state['step'], state['seconds'], state['losses'], best)


def in_bfloat16(device: str) -> bool:
    """Whether networks are trained in bfloat16: where it is not emulated, for that is slower."""
    if torch.device(device).type == 'cuda':
        return True
    able: dict = getattr(torch.cpu, 'get_capabilities', dict)()  # older versions do not tell
    return bool(able.get('avx512_bf16') or able.get('amx_bf16'))


def _rate(step: int, steps: int, learning_rate: float, fine_tuning_rate: float | None) -> float:
    """Learning rate of a step, counted from 0."""
    if fine_tuning_rate is None:
        part, most = WARM_UP
        risen = min(1.0, (step + 1) / max(1.0, min(most, part * steps)))
        return learning_rate * risen * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
    return learning_rate if 3 * step < 2 * steps else fine_tuning_rate


def _prepare(
    draw: Callable[[int], tuple[Tensor, ...]], steps: range, workers: int
) -> Generator[tuple[Tensor, ...]]:
    """Draw batches in turn; with workers, some steps ahead."""
    if not workers:
        yield from map(draw, steps)
        return
    # each thread would start as many of its own as there are cores
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(draw, step))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _validate(network: nn.Module, validation: Validation, state: dict, logs: Logs) -> None:
    """Judge the network, and keep it in ``state`` if it is the best so far."""
    network.eval()
    figures = validation.measure(network)
    network.train()
    mean = float(np.mean(list(figures.values())))
    logs.validation(state['step'], {'mean': mean, **figures})
    best = state['best']
    if best is None or not math.isfinite(best['mean']) or mean > best['mean']:
        copy = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        state['best'] = {'step': state['step'], 'mean': mean, 'figures': figures, 'network': copy}


def _is_stale(state: dict, validation: Validation) -> bool:
    """Whether the last validations, as many as the patience, brought nothing better."""
    if validation.patience is None or state['best'] is None:
        return False
    return state['step'] - state['best']['step'] >= validation.patience * validation.every


def _check_settings(out_dir: Path, before: dict, now: dict) -> None:
    """Refuse to mix trainings; a checkpoint without settings fits any."""
    changed = [
        f'{name} {before[name]}, now {now.get(name)}'
        for name in before
        if before[name] != now.get(name)
    ]
    if changed:
        raise TumorregError(
            f'{out_dir}: holds a training with other settings ({"; ".join(changed)}). Name '
            'another folder; to build on the weights of a finished training, use --start-from.'
        )
