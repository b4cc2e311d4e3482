"""What failed, why, and what to do: from Nipype's crash files, for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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

#: Crash file of a participant whose input was refused before any node ran.
INPUT = 'crash-input.txt'

#: A file of the work folder: its path leads through the folder of a workflow.
IN_WORK_FOLDER = re.compile(r'_wf/\S')

DAMAGED = 'It is an intermediate result: delete the work folder, which is damaged, and try again. '

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
    refused : whether the input was refused; the reason says what to do.
    """

    reason: str
    node: str = ''
    crash_file: Path | None = None
    refused: bool = False

    @property
    def advice(self) -> str:
        """What to do about it; empty where the reason says it."""
        if self.crash_file is None:
            return ''
        if self.refused:
            damaged = IN_WORK_FOLDER.search(self.reason)
            return f'{DAMAGED if damaged else ""}The same command then goes on from there.'
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
        kind, reason = '', lines[-1] if lines else 'unknown'
    if 'exited with code' in reason:  # of a program: what it said last
        said = re.search(r'^Stderr:\n((?:\t.*\n|\s*\n)*)', trace, re.MULTILINE)
        said_lines = said.group(1).strip().splitlines() if said else []
        if said_lines:
            reason = f'{reason} {said_lines[-1].strip()}'
    refused = kind == 'TumorregError' or path.name == INPUT
    return Failure(reason.strip(), node.group(1) if node else '', path, refused)
