"""How long the group level takes with 200 patients.

    python benchmarks/group.py DERIVATIVES FOLDER [PATIENTS]

copies what the group level reads of the first patient in DERIVATIVES, an output folder of
tumorreg, to as many patients in FOLDER, and puts them together step by step.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tumorreg_wf.reports import group
from tumorreg_wf.reports.group_page import write_group_report

Result = TypeVar('Result')
READ = (
    'desc-tumor_morph.*',
    'desc-qc_morph.*',
    'space-*_label-tumor_mask.*',
    'space-*_desc-brain_mask.*',
    'space-*_T1w.*',
)


def copy_patient(derivatives: Path, folder: Path, patients: int) -> None:
    """Copy the first patient to many."""
    source = next(path for path in sorted(derivatives.glob('sub-*')) if path.is_dir())
    files = [path for pattern in READ for path in source.glob(f'anat/{source.name}_{pattern}')]
    for number in range(1, patients + 1):
        anat = folder / f'sub-{number:05d}' / 'anat'
        anat.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, anat / path.name.replace(source.name, f'sub-{number:05d}'))


def timed(name: str, step: Callable[[], Result]) -> Result:
    """Run a step; print its wall and CPU seconds."""
    wall, cpu = time.monotonic(), sum(os.times()[:2])
    result = step()
    seconds = time.monotonic() - wall, sum(os.times()[:2]) - cpu
    print(f'{name}: {seconds[0]:.1f} s, of CPU {seconds[1]:.1f} s', flush=True)
    return result


def main(derivatives: Path, folder: Path, patients: int) -> None:
    """Make the patients and print a row per step."""
    copy_patient(derivatives, folder, patients)
    tables = timed('tables found', lambda: group.find_tables(folder))
    table, dictionary = timed('tables read', lambda: group.read_tables(tables))
    timed('table written', lambda: group.write_table(table, dictionary, folder))
    maps = timed('masks summed', lambda: group.map_tumors(tables))
    timed('page written', lambda: write_group_report(folder, table, maps, {}, 'benchmark'))


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 200)
