"""What is kept of a run of a participant, so that reports can be written anew."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from tumorreg_wf.files import write_text


@dataclass(frozen=True)
class Record:
    """How the derivatives of a participant came about.

    Attributes
    ----------
    run : name of the run.
    command : line that started it.
    methods : text for a paper, without references.
    timings : seconds by stage.
    files : what was stored, relative to the output folder.
    """

    run: str
    command: str
    methods: str = 'Nothing was processed.'
    timings: dict[str, float] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def find_lost(self, out_dir: Path) -> list[Path]:
        """Files that were stored, whole then, and are not there or empty now."""
        paths = [out_dir / name for name in self.files]
        return [path for path in paths if not path.is_file() or path.stat().st_size == 0]


def record_file(out_dir: Path, participant: str) -> Path:
    """Where the record of a participant is; it is there if the last run finished."""
    return out_dir / 'logs' / f'sub-{participant}.json'


def write_record(out_dir: Path, participant: str, record: Record) -> None:
    """Keep the record of a participant whose every file is stored."""
    text = json.dumps(dataclasses.asdict(record), indent=1) + '\n'
    write_text(record_file(out_dir, participant), text)


def read_record(out_dir: Path, participant: str) -> Record | None:
    """The record of a participant's last run; None if it did not finish."""
    try:
        return Record(**json.loads(record_file(out_dir, participant).read_text('utf-8')))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
