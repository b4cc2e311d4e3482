"""What a training tells: CSV files, TensorBoard where it is installed, and the terminal."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

BAR = 30


class Logs:
    """Log of a training that may have been stopped and gone on with.

    ``log.csv`` gets a row per mean of the losses, ``validation.csv`` one per validation. What an
    earlier run wrote after its last checkpoint is taken back first.

    Parameters
    ----------
    folder : where the files are.
    first : step the training starts at, or goes on from.
    steps : number of steps in all.
    """

    def __init__(self, folder: Path, first: int, steps: int) -> None:
        self.folder, self.first, self.steps = folder, first, steps
        self.started = time.monotonic()
        self.on_terminal = sys.stdout.isatty()
        for name in ('log.csv', 'validation.csv'):
            _forget_after(folder / name, first)
        self.board = _open_board(folder / 'tensorboard', first)
        if first:
            print(f'step {first} of {steps} was the last; going on from there', flush=True)

    def advance(self, done: int) -> None:
        """Move the bar on a terminal."""
        if self.on_terminal:
            left = (time.monotonic() - self.started) / (done - self.first) * (self.steps - done)
            bar = '#' * (BAR * done // self.steps)
            text = f'[{bar:.<{BAR}}] {done}/{self.steps}, {left / 60:.0f} min left'
            print(f'\r{text}\x1b[K', end='', flush=True)

    def losses(self, step: int, seconds: float, means: dict[str, float]) -> None:
        """Note the mean losses since the last note."""
        self._note('log.csv', 'loss', step, {'seconds': round(seconds, 1)}, means)

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Note the figures of a validation."""
        self._note('validation.csv', 'validation', step, {}, figures)

    def close(self) -> None:
        """End the bar and the files."""
        if self.on_terminal:
            print(flush=True)
        if self.board is not None:
            self.board.close()

    def _note(self, file: str, group: str, step: int, time_taken: dict, numbers: dict) -> None:
        row = {'step': step, **time_taken, **numbers}
        path = self.folder / file
        new = not path.exists()
        with path.open('a', newline='') as stream:
            writer = csv.DictWriter(stream, row, lineterminator='\n')
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(f'{group}/{name}', value, step)
        line = ' '.join(f'{key} {value:.4g}' for key, value in row.items() if key != 'step')
        start = '\r\x1b[K' if self.on_terminal else ''
        print(f'{start}{"validation " if group == "validation" else ""}step {step} {line}',
              flush=True)  # fmt: skip


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows of a CSV file that tell of later steps, or were cut short by a kill."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines(keepends=True) or ['']
    kept = [row for row in rows if row.endswith('\n') and int(row.split(',')[0]) <= step]
    if kept:
        path.write_text(''.join([header, *kept]))
    else:
        path.unlink()


def _open_board(folder: Path, first: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first + 1 if first else None)
