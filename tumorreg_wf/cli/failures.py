"""What failed, said last; and left for the report where no step ran."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tumorreg_wf.cli.console import Console
from tumorreg_wf.failures import INPUT, Failure
from tumorreg_wf.files import write_text

#: A disk with less free than this counts as full, MB.
LITTLE_SPACE = 100


def write_failure(folder: Path, message: str) -> None:
    """Leave what stopped a participant before any node ran where the report looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / INPUT, f'Node: input\n\n{message}\n')


def tell_failures(
    failures: Mapping[str, Failure],
    participants: Collection[str],
    folders: Iterable[Path],
    console: Console,
) -> None:
    """Say last what failed, where more is said, and what to do.

    Parameters
    ----------
    failures : by participant.
    participants : all of the run.
    folders : whose disks may be full, of which failures often say something else.
    console : where to say it.
    """
    from tumorreg_wf.cli.progress import stage_of

    for participant, failure in failures.items():
        at = f' while {stage_of(failure.node)}' if failure.node else ''
        lines = [f'tumorreg: sub-{participant} failed{at}: {failure.reason}']
        if failure.crash_file is not None:
            lines += [f'    details: {failure.crash_file}', f'    to do: {failure.advice}']
        console.error(lines)
    if failures and len(participants) > 1:
        console.error([f'{len(failures)} of {len(participants)} participants failed.'])
    for folder in folders if failures else ():
        left = shutil.disk_usage(folder).free / 1e6
        if left < LITTLE_SPACE:
            console.error(
                [
                    f'tumorreg: {folder}: only {left:.0f} MB are left on its disk, which may be '
                    'why. Give another folder, or free some space; the same command then goes on '
                    'from there.'
                ]
            )
