"""What failed, why, and what to do: from Nipype's crash files, for people."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tumorreg_wf.cli.console import Console
from tumorreg_wf.files import write_text

#: What a reason points at, and what helps.
ADVICE = (
    (
        r'CUDA',
        'The GPU could not do it. Try --device cpu, or a GPU that nobody else uses.',
    ),
    (
        r'exit code (-9|137)\b|code (-9|137)\b|MemoryError|bad_alloc|cannot allocate memory|'
        r'killed from outside',
        'Most often there was too little memory. Give --mem and a lower --nprocs, or ask the '
        'scheduler for more memory.',
    ),
    (
        r'exit code (-11|139)\b',
        'The program crashed, as greedy does with too little memory. Give --mem and a lower '
        '--nprocs, or ask the scheduler for more memory; if it crashes again, report it and add '
        'the crash file.',
    ),
    (
        r'code (-15|143)\b',
        'It was stopped from outside, as schedulers do at the time limit. Ask for more time.',
    ),
    (
        r'no space left|quota exceeded',
        'Free some space, or give another --work-dir or output folder.',
    ),
    (
        r'Job id .* finished or terminated',
        'The cluster ended the job: too little time or memory, or someone cancelled it. What it '
        'said is in the folder batch in the work folder.',
    ),
)

#: A disk with less free than this counts as full, MB.
LITTLE_SPACE = 100

OTHERWISE = (
    'If the reason does not help, delete the work folder, which may be damaged, and try again. '
    'If it fails again, report it and add the crash file.'
)


@dataclass(frozen=True)
class Failure:
    """Why a participant failed.

    Attributes
    ----------
    reason : in one line.
    node : name of the node that failed, from the T1w's workflow on; empty where none did.
    crash_file : where more is said; None where the reason is all there is.
    """

    reason: str
    node: str = ''
    crash_file: Path | None = None

    @property
    def advice(self) -> str:
        """What to do about it; empty where the reason says it."""
        if self.crash_file is None:
            return ''
        fitting = (
            text for pattern, text in ADVICE if re.search(pattern, self.reason, re.IGNORECASE)
        )
        return f'{next(fitting, OTHERWISE)} The same command then goes on from there.'


def read_crash(path: Path) -> Failure:
    """Read node and reason from a crash file that Nipype wrote as text."""
    text = path.read_text(encoding='utf-8', errors='replace')
    node = re.match(r'Node: [^.\s]+\.(\S+)', text)
    trace = text[max(text.find('Traceback'), 0) :]
    errors = re.findall(r'^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$', trace, re.MULTILINE)
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    if errors:
        kind, reason = errors[-1]
        if kind not in ('RuntimeError', 'TumorregError', 'OSError'):
            reason = f'{kind}: {reason}'
    else:
        reason = lines[-1] if lines else 'unknown'
    if 'exited with code' in reason:  # of a program: what it said last
        said = re.search(r'^Stderr:\n((?:\t.*\n|\s*\n)*)', trace, re.MULTILINE)
        said_lines = said.group(1).strip().splitlines() if said else []
        if said_lines:
            reason = f'{reason} {said_lines[-1].strip()}'
    return Failure(reason.strip(), node.group(1) if node else '', path)


def write_failure(folder: Path, message: str) -> None:
    """Leave what stopped a participant before any node ran where the report looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / 'crash-input.txt', f'Node: input\n\n{message}\n')


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
