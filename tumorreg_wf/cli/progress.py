"""What a run is doing, in lines for a terminal or a log file."""

from __future__ import annotations

import time
from collections import defaultdict

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.workflows.base import workflow_name

#: Workflows whose nodes only store what others made.
QUIET = ('derivatives_wf', 'reportlets_wf')


class Progress:
    """Nipype's status callback: prints a line per step and adds up times per stage.

    Attributes
    ----------
    timings : seconds by stage, by participant; of a step done in an earlier run, its time then.
    finished : participants whose every step is done.
    """

    def __init__(self, anatomies: list[Anatomy]) -> None:
        self._anatomies = {workflow_name(anatomy): anatomy for anatomy in anatomies}
        self._started = time.monotonic()
        self._failed: set[str] = set()
        self.timings: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    @property
    def finished(self) -> set[str]:
        """Participants with steps done and none failed."""
        return set(self.timings) - self._failed

    def __call__(self, node, status: str) -> None:
        """Take note that a node started, ended or failed."""
        _, workflow, *path = node.fullname.split('.')
        anatomy = self._anatomies[workflow]
        stage, step = path[0], path[-1]
        if status == 'exception':
            self._failed.add(anatomy.subject)
            self.say(f'{anatomy.label}: {stage}.{step} FAILED')
        elif status == 'end':
            result = node.result
            seconds = getattr(result.runtime, 'duration', None) if result else None
            name = stage.removesuffix('_wf').replace('_', ' ')
            self.timings[anatomy.subject][name] += seconds or 0.0
            if stage not in QUIET and seconds and seconds > 1:
                self.say(f'{anatomy.label}: {name}, {step} done ({seconds:.0f} s)')

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        print(f'[{minutes:3d}:{seconds:02d}] {text}', flush=True)
