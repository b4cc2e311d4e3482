"""What is kept of the runs of a participant, so that reports can be written anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tumorreg_wf.files import write_text


@dataclass(frozen=True)
class Record:
    """How the derivatives of a participant came about.

    Attributes
    ----------
    run : name of the last run.
    commands : line that made what there is of each T1w, by its label (``sub-X_ses-Y``).
    methods : text for a paper, without references, likewise.
    timings : seconds by stage, of the last run.
    files : what was stored, relative to the output folder.
    finished : whether the last run did.
    """

    run: str
    commands: dict[str, str] = field(default_factory=dict)
    methods: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    finished: bool = True

    @property
    def text(self) -> str:
        """Methods of all T1w: what several share is there once, with their labels."""
        return share_texts(self.methods) or 'Nothing was processed.'

    def find_lost(self, out_dir: Path) -> list[Path]:
        """Files that were stored, whole then, and are not there or empty now."""
        paths = [out_dir / name for name in self.files]
        return [path for path in paths if not path.is_file() or path.stat().st_size == 0]

    def without(self, labels: Collection[str], out_dir: Path) -> Record:
        """What is known of other T1w than some, as far as anything of them is there still.

        A run of one session leaves what another made of the others as it is.
        """
        whose: dict[str, list[str]] = {label: [] for label in self.methods}
        for name in self.files:
            named = [one for one in whose if Path(name).name.startswith(f'{one}_')]
            if named:
                whose[max(named, key=len)].append(name)
        kept = [
            label
            for label, names in whose.items()
            if label not in labels and any((out_dir / name).exists() for name in names)
        ]
        return dataclasses.replace(
            self,
            commands={label: self.commands[label] for label in kept if label in self.commands},
            methods={label: self.methods[label] for label in kept},
            files=[name for label in kept for name in whose[label]],
            finished=False,
        )


def share_texts(texts: Mapping[str, str]) -> str:
    """Put texts together: one that several share once, with their labels if it is not all's.

    Parameters
    ----------
    texts : by label, ``sub-X`` or ``sub-X_ses-Y``.
    """
    whose: dict[str, list[str]] = {}
    for label, text in texts.items():
        whose.setdefault(text, []).append(label)
    parts = [f'{", ".join(labels)}: {text}' for text, labels in whose.items()]
    return '\n\n'.join(parts if len(parts) > 1 else whose)


def record_file(out_dir: Path, participant: str) -> Path:
    """Where the record of a participant is."""
    return out_dir / 'logs' / f'sub-{participant}.json'


def write_record(out_dir: Path, participant: str, record: Record) -> None:
    """Keep the record of a participant."""
    text = json.dumps(dataclasses.asdict(record), indent=1) + '\n'
    write_text(record_file(out_dir, participant), text)


def read_record(out_dir: Path, participant: str) -> Record | None:
    """The record of a participant; None if there is none that can be read."""
    try:
        return Record(**json.loads(record_file(out_dir, participant).read_text('utf-8')))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
