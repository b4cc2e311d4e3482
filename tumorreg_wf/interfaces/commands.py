"""What all our command-line interfaces share."""

from __future__ import annotations

from nipype.interfaces.base import CommandLine

#: How lines begin that tell of an end which the exit code tells of too.
OF_THE_SHELL = ('Aborted', 'Killed', 'Segmentation fault', 'Terminated')


class CheckedCommand(CommandLine):
    """A Nipype command line; a program that fails stops its node.

    Nipype looks at the outputs alone; a program killed while it writes leaves half of one.
    """

    def _run_interface(self, runtime, correct_return_codes=(0,)):
        runtime = super()._run_interface(runtime, correct_return_codes)
        if runtime.returncode not in correct_return_codes:
            lines = (runtime.stderr or runtime.stdout or '').strip().splitlines()
            said = [line.strip() for line in lines if not line.startswith(OF_THE_SHELL)]
            raise RuntimeError(
                f'{self._cmd.split()[-1]} ended with exit code {runtime.returncode}: '
                f'{said[-1] if said else "it said nothing"}'
            )
        return runtime
