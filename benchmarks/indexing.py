"""How long tumorreg takes to find its images among 10,000 participants.

    python benchmarks/indexing.py FOLDER [PARTICIPANTS]

makes a dataset of empty files in FOLDER (T1w with and without contrast agent, FLAIR, and their
sidecars), then starts tumorreg and stops it once it has collected its participants: one without a
database; one that makes the database; one with the database; all with the database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def make_dataset(root: Path, participants: int) -> None:
    """Make a BIDS dataset of empty files."""
    root.mkdir(parents=True, exist_ok=True)
    (root / 'dataset_description.json').write_text('{"Name": "many", "BIDSVersion": "1.10.0"}')
    for number in range(1, participants + 1):
        anat = root / f'sub-{number:05d}' / 'anat'
        anat.mkdir(parents=True, exist_ok=True)
        for suffix in ('T1w', 'FLAIR', 'ce-gadolinium_T1w'):
            for extension in ('nii.gz', 'json'):
                (anat / f'sub-{number:05d}_{suffix}.{extension}').touch()


def start(folder: Path, options: tuple[str, ...]) -> tuple[float, float, str]:
    """Start tumorreg; wall and CPU seconds until it has collected, and what it said then."""
    command = [sys.executable, '-m', 'tumorreg_wf.cli.run', folder / 'bids', folder / 'out']
    command += ['participant', '-w', folder / 'work', '--boilerplate-only', '--device', 'cpu']
    command += options
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if 'Participants: ' in line:
                fields = Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
                cpu = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
                process.kill()
                return time.monotonic() - began, cpu, line.partition('] ')[2].strip()
    raise SystemExit('tumorreg ended before it had collected its participants')


def main(folder: Path, participants: int) -> None:
    """Make the dataset and print a row per start."""
    make_dataset(folder / 'bids', participants)
    (folder / 'database' / 'layout_index.sqlite').unlink(missing_ok=True)
    one = ('--participant-label', f'{participants // 2:05d}')
    database = ('--bids-database-dir', str(folder / 'database'))
    for name, options in (
        ('one participant, no database', one),
        ('one participant, database made', one + database),
        ('one participant, database reused', one + database),
        ('all participants, database reused', database),
    ):
        wall, cpu, said = start(folder, options)
        print(f'{name}: {wall:.1f} s, of CPU {cpu:.1f} s ({said})', flush=True)


if __name__ == '__main__':
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
