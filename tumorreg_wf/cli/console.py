"""What a run says: one live line on a terminal, plain lines elsewhere and in a log file."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

#: To the start of the line, and clear it.
ERASE = '\r\x1b[K'

BOLD_YELLOW, BOLD_RED, PLAIN = '\x1b[1;33m', '\x1b[1;31m', '\x1b[0m'


class Console:
    """Where a run speaks to a person.

    Parameters
    ----------
    log_file : gets every line with date and time; its folder must exist.
    verbose : 0 for what happens to each participant, 1 for details too, 2 where Nipype speaks.
    stream : the terminal or file to write to.
    """

    def __init__(self, log_file: Path | None = None, verbose: int = 0, stream=None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._log_file = log_file
        self._verbose = verbose
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._shown = ''
        self._is_terminal = self._stream.isatty()
        if isinstance(self._stream, TextIOWrapper):  # names of files may be no text there
            self._stream.reconfigure(errors='backslashreplace')

    @property
    def name(self) -> str:
        """Name of the run, that of its log file."""
        return self._log_file.stem if self._log_file is not None else ''

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        """Write to the log file what ends this; it is told elsewhere."""
        try:
            yield
        except Exception as error:
            self._log(f'{type(error).__name__}: {error}')
            raise

    def say(self, text: str, *, colour: str = '') -> None:
        """Write a line with the time since the start."""
        self._log(text)
        if colour and self._is_terminal:
            text = f'{colour}{text}{PLAIN}'
        with self._lock:
            erase = ERASE if self._shown else ''
            print(f'{erase}[{format_time(self.elapsed):>7}] {text}', file=self._stream)
            self._stream.write(self._shown)
            self._stream.flush()

    def detail(self, text: str) -> None:
        """Write a line that only ``-v`` shows; the log file has it always."""
        if self._verbose:
            self.say(text)
        else:
            self._log(text)

    def warn(self, text: str) -> None:
        """Write a line that stands out."""
        self.say(f'WARNING: {text}', colour=BOLD_YELLOW)

    def fail(self, text: str) -> None:
        """Write that something failed."""
        self.say(text, colour=BOLD_RED)

    def error(self, lines: list[str]) -> None:
        """Write what went wrong to the error stream, the first line so that it stands out."""
        self._stream.flush()
        for number, line in enumerate(lines):
            self._log(line)
            red = number == 0 and sys.stderr.isatty()
            print(f'{BOLD_RED}{line}{PLAIN}' if red else line, file=sys.stderr)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @contextmanager
    def live(self, status: Callable[[], str], every: float = 1.0) -> Iterator[None]:
        """Keep the last line of a terminal at what ``status()`` says, while this lasts.

        Nothing happens where there is no terminal, or where Nipype writes to it.
        """
        if not self._is_terminal or self._verbose > 1:
            yield
            return
        over = threading.Event()

        def draw() -> None:
            while not over.wait(every):
                self._show(status())

        self._show(status())
        thread = threading.Thread(target=draw, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._show('')

    def _show(self, text: str) -> None:
        if text:
            text = f'[{format_time(self.elapsed):>7}] {text}'
            text = text[: shutil.get_terminal_size().columns - 1]
        with self._lock:
            self._stream.write(ERASE + text)
            self._stream.flush()
            self._shown = text

    def _log(self, text: str) -> None:
        if self._log_file is not None:
            # a full disk ends the step that needs it, not the one that only tells of it
            with (
                suppress(OSError),
                self._log_file.open('a', encoding='utf-8', errors='backslashreplace') as stream,
            ):
                stream.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}\n')


def format_time(seconds: float) -> str:
    """Write a time as a clock does: ``0:07``, ``1:02:03``."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'
