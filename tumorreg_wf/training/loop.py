"""The training loop: steps, checkpoints, a log."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def train(
    network: nn.Module,
    batches: Callable[[np.random.Generator], tuple[Tensor, ...]],
    loss: Callable[..., dict[str, Tensor]],
    *,
    steps: int,
    learning_rate: float,
    out_dir: Path,
    seed: int = 1,
    device: str = 'cpu',
    every: int = 50,
) -> None:
    """Train a network, resuming from the checkpoint in ``out_dir`` where there is one.

    Every step draws from its own generator, seeded by ``(seed, step)``, so that a resumed
    run sees what an uninterrupted one would have seen. Adam; the learning rate falls to
    nothing along a half cosine.

    Parameters
    ----------
    network : trained in place.
    batches : gives a batch of tensors for a generator.
    loss : maps ``(network, *batch)`` to named losses, of which ``total`` is minimised.
    steps : number of steps in all, earlier runs counted in.
    learning_rate : of the first step.
    out_dir : gets ``log.csv`` and ``checkpoint.pt``.
    seed : of the batches.
    device : torch device.
    every : steps between checkpoints and lines of the log.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    checkpoint, log = out_dir / 'checkpoint.pt', out_dir / 'log.csv'
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state['network'])
        optimizer.load_state_dict(state['optimizer'])
        first = state['step']
    network.train()
    started, sums = time.monotonic(), []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group['lr'] = learning_rate * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        batch = [part.to(device) for part in batches(np.random.default_rng([seed, step]))]
        losses = loss(network, *batch)
        optimizer.zero_grad()
        losses['total'].backward()
        optimizer.step()
        sums.append({name: float(value.detach()) for name, value in losses.items()})
        if (step + 1) % every == 0 or step + 1 == steps:
            means = {name: np.mean([row[name] for row in sums]) for name in sums[0]}
            row = {'step': step + 1, 'seconds': round(time.monotonic() - started, 1), **means}
            _append(log, row)
            print(' '.join(f'{key} {value:.4g}' for key, value in row.items()), flush=True)
            sums = []
            state = {
                'network': network.state_dict(),
                'optimizer': optimizer.state_dict(),
                'step': step + 1,
            }
            torch.save(state, checkpoint.with_suffix('.part'))
            os.replace(checkpoint.with_suffix('.part'), checkpoint)


def _append(log: Path, row: dict) -> None:
    new = not log.exists()
    with log.open('a', newline='') as stream:
        writer = csv.DictWriter(stream, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
