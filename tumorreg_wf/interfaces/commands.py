"""What all our command-line interfaces share."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from nipype.interfaces.base import CommandLine

from tumorreg_wf.errors import REFUSED, TumorregError

#: How lines begin that tell of an end which the exit code tells of too.
OF_THE_SHELL = ('Aborted', 'Killed', 'Segmentation fault', 'Terminated')


#: Paths that mean the same wherever they are written.
PLAIN = re.compile(r'[\w@%+:./-]*', re.ASCII)


def _paths(value) -> Iterator[str]:
    """Find the absolute paths among inputs."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, str) and os.path.isabs(value):
        yield value


class CheckedCommand(CommandLine):
    """A Nipype command line; a program that fails, or refuses its input, stops its node.

    Nipype looks at the outputs alone; a program killed while it writes leaves half of one.
    """

    @property
    def cmdline(self) -> str:
        """The command as a shell takes it.

        Names of folders may hold what the shell, or ANTs inside its brackets, takes for its own,
        and Nipype quotes but some of them. Such paths are written from this folder on.
        """
        line = super().cmdline
        for path in sorted(_paths(self.inputs.get_traitsfree()), key=len, reverse=True):
            if not PLAIN.fullmatch(path):
                folder, name = os.path.split(path)
                near = os.path.join(os.path.relpath(os.path.realpath(folder)), name)
                if not PLAIN.fullmatch(near):
                    near = shlex.quote(near)
                line = line.replace(shlex.quote(path), near).replace(path, near)
        return line

    def _format_arg(self, name, trait_spec, value):
        if name.startswith('out_') and isinstance(value, str):  # names of our own files are texts
            value = shlex.quote(value)
        return super()._format_arg(name, trait_spec, value)

    def _run_interface(self, runtime, correct_return_codes=(0,)):
        runtime = super()._run_interface(runtime, correct_return_codes)
        if runtime.returncode not in correct_return_codes:
            lines = (runtime.stderr or runtime.stdout or '').strip().splitlines()
            said = [line.strip() for line in lines if not line.startswith(OF_THE_SHELL)]
            if runtime.returncode == REFUSED and said:
                raise TumorregError(said[-1])
            raise RuntimeError(
                f'{self._cmd.split()[-1]} ended with exit code {runtime.returncode}: '
                f'{said[-1] if said else "it said nothing"}'
            )
        return runtime
