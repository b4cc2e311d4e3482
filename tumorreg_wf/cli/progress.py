"""Which participant is at which stage, what is done, and how long the rest may take."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from nipype.interfaces.base import isdefined
from nipype.interfaces.utility import IdentityInterface

from tumorreg_wf.bids import Anatomy
from tumorreg_wf.cli.console import Console
from tumorreg_wf.workflows.base import workflow_name

#: Stages (workflows, or steps outside of one) in plain words.
STAGES = {
    'conform_wf': 'reading the images',
    'coregistration_wf': 'aligning FLAIR and T1w',
    'bias_correction_wf': 'correcting the bias field',
    'intensity_wf': 'normalising the grey values',
    'segmentation_wf': 'finding the tumour',
    'inpainting_wf': 'replacing the tumour',
    'tissues_wf': 'finding the tissues',
    'registration_wf': 'registering the template',
    'atlas_wf': 'bringing labels and tissues over',
    'quality': 'measuring the quality',
    'notes': 'noting what is hard',
    'derivatives_wf': 'storing the results',
    'reportlets_wf': 'drawing the figures',
}

#: Stages that go on beside the others and are not announced.
QUIET = ('derivatives_wf', 'reportlets_wf')

#: Seconds the long steps take relative to each other; any other step takes 1.
TYPICAL = {
    'coregistration_wf.register': 25.0,
    'bias_correction_wf.n4_t1w': 18.0,
    'bias_correction_wf.n4_flair': 10.0,
    'segmentation_wf.segment': 15.0,
    'inpainting_wf.inpaint': 20.0,
    'tissues_wf.find': 8.0,
    'registration_wf.register': 45.0,
    'atlas_wf.composite_warp': 12.0,
    'atlas_wf.jacobian': 12.0,
    'atlas_wf.tables': 12.0,
    'atlas_wf.label_tissues': 8.0,
}


#: Stages that have long steps.
LONG = {step.partition('.')[0] for step in TYPICAL}


class Progress:
    """Nipype's status callback: tells of stages and participants, and adds up times.

    Parameters
    ----------
    console : where to tell it.
    workflow, anatomies : of the run.
    queued : whether steps are handed to a queue. Nipype then says that a step has started when it
        has been submitted, and so no more is told of it.

    Attributes
    ----------
    timings : seconds by stage, by participant; of a step done in an earlier run, its time then.
    failed : participants with a step that failed.
    stored : files in the output folder, by participant.
    """

    def __init__(
        self, console: Console, workflow, anatomies: list[Anatomy], *, queued: bool = False
    ) -> None:
        self._console = console
        self._queued = queued
        self._anatomies = {workflow_name(anatomy): anatomy for anatomy in anatomies}
        self._todo: dict[str, set[str]] = {anatomy.subject: set() for anatomy in anatomies}
        for name in workflow.list_node_names():
            if not isinstance(workflow.get_node(name).interface, IdentityInterface):
                self._todo[self._anatomy(name).subject].add(name)
        self._running: dict[str, float] = {}
        self._began = 0.0
        self._n_done = 0
        self.failed: set[str] = set()
        self._announced: set[tuple[str, str]] = set()
        self._measured: dict[str, list[float]] = defaultdict(list)
        self.timings: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.stored: dict[str, list[Path]] = defaultdict(list)

    @property
    def finished(self) -> set[str]:
        """Participants whose every step is done."""
        return {subject for subject, todo in self._todo.items() if not todo} - self.failed

    def __call__(self, node, status: str) -> None:
        """Take note that a node started, ended or failed."""
        name = node.fullname.partition('.')[2]
        anatomy = self._anatomy(name)
        if status == 'start':
            cached = False
            with suppress(Exception):  # Nipype looks again, and says what is wrong
                cached = all(node.is_cached())
            if not cached:
                self._start(name, anatomy)
        elif status == 'exception':
            self._fail(name, anatomy)
        elif name in self._running or anatomy.subject not in self.failed:
            self._end(name, anatomy, node)
            if name.rpartition('.')[2].startswith('ds_'):
                outputs = node.result.outputs
                self.stored[anatomy.subject] += map(Path, _listed(outputs.out_file))
                self.stored[anatomy.subject] += map(Path, _listed(outputs.out_meta))

    def _start(self, name: str, anatomy: Anatomy) -> None:
        self._running[name] = time.monotonic()
        self._began = self._began or self._running[name]
        self._todo[anatomy.subject].add(name)
        stage = _stage(name)
        if stage in QUIET:
            return
        told = (anatomy.label, stage)
        step = _step(name)
        # a stage with long steps has begun when the first of these has: others need no tumour yet
        begun = step in TYPICAL or stage not in LONG
        if begun and told not in self._announced:
            self._announced.add(told)
            what = f'{STAGES.get(stage, stage)}{" (submitted)" if self._queued else ""}'
            self._console.say(f'{anatomy.label}: {what}; {self._counts()}')
        self._console.detail(f'{anatomy.label}: {step} {self._word}')

    def _end(self, name: str, anatomy: Anatomy, node) -> None:
        seconds = getattr(getattr(node.result, 'runtime', None), 'duration', None) or 0.0
        stage = _stage(name)
        self.timings[anatomy.subject][STAGES.get(stage, stage)] += seconds
        self._todo[anatomy.subject].discard(name)
        self._n_done += 1
        if self._running.pop(name, None) is None:
            # Nipype tells of no start of those that it runs itself
            how = 'done' if node.run_without_submitting else 'was done before'
            self._console.detail(f'{anatomy.label}: {_step(name)} {how}')
        else:
            self._measured[_step(name)].append(seconds)
            self._console.detail(f'{anatomy.label}: {_step(name)} done ({seconds:.0f} s)')
        if anatomy.subject in self.finished:
            self._console.say(f'sub-{anatomy.subject}: all steps done; {self._counts()}')

    def _fail(self, name: str, anatomy: Anatomy) -> None:
        self.failed.add(anatomy.subject)
        self._running.pop(name, None)
        # the steps that need this one never run; any other counts again when it starts
        self._todo[anatomy.subject] &= self._running.keys()
        self._console.fail(f'{anatomy.label}: {stage_of(name)} FAILED ({_step(name)})')

    def status(self) -> str:
        """Say in one line what runs, what is done and what is left."""
        stages = dict.fromkeys(
            f'{self._anatomy(name).label}: {stage_of(name)}' for name in list(self._running)
        )
        quiet = tuple(STAGES[stage] for stage in QUIET)
        shown = [text for text in stages if not text.endswith(quiet)]
        shown = (shown or list(stages))[:2]
        if not shown:
            return self._counts()
        more = f' (+{len(stages) - len(shown)})' if len(stages) > len(shown) else ''
        what = f'{len(self._running)} steps {self._word}, ' if self._queued else ''
        return f'{", ".join(shown)}{more}; {what}{self._counts()}'

    @property
    def _word(self) -> str:
        return 'queued or running' if self._queued else 'running'

    def _counts(self) -> str:
        people = ''
        if len(self._todo) > 1:
            people = f'{len(self.finished)} of {len(self._todo)} participants, '
        left = self.seconds_left()
        time_left = '' if not left else f', about {_roughly(left)} left'
        total = self._n_done + sum(map(len, self._todo.values()))
        return f'{people}{self._n_done} of {total} steps done{time_left}'

    def seconds_left(self) -> float | None:
        """Estimate the time left; None as long as no long step has ended in this run.

        A step is expected to take as long as it took other participants, or else its typical time
        by the pace of the steps so far.
        """
        ended = {step: sum(times) for step, times in list(self._measured.items())}
        long = {step for step in ended if step in TYPICAL}
        if not long:
            return None
        pace = sum(ended[step] for step in long) / sum(
            TYPICAL[step] * len(self._measured[step]) for step in long
        )

        def expected(name: str) -> float:
            step = _step(name)
            if step in ended:
                return ended[step] / len(self._measured[step])
            return TYPICAL.get(step, 1.0) * pace

        now = time.monotonic()
        running = [] if self._queued else list(self._running.items())
        spent = {name: now - at for name, at in running}
        todo = [name for names in self._todo.values() for name in list(names)]
        work = sum(max(expected(name) - spent.get(name, 0.0), 0.0) for name in todo)
        # how many steps went on at a time so far
        speed = (sum(ended.values()) + sum(spent.values())) / max(now - self._began, 1.0)
        return work / max(speed, 0.1)

    def _anatomy(self, name: str) -> Anatomy:
        return self._anatomies[name.partition('.')[0]]


def _listed(paths) -> list[str]:
    if not isdefined(paths):
        return []
    return paths if isinstance(paths, list) else [paths]


def stage_of(name: str) -> str:
    """Plain words for the stage of a node, by its name from the T1w's workflow on."""
    return STAGES.get(_stage(name), _stage(name))


def _stage(name: str) -> str:
    return name.split('.')[1]


def _step(name: str) -> str:
    return name.partition('.')[2]


def _roughly(seconds: float) -> str:
    if seconds < 90:
        return f'{max(10, round(seconds, -1)):.0f} s'
    if seconds < 5400:
        return f'{seconds / 60:.0f} min'
    return f'{seconds / 3600:.1f} h'
