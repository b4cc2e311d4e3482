"""The processes that run Nipype's steps on this machine: one killed is one step lost."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait

from nipype.pipeline import plugins
from nipype.pipeline.plugins.multiproc import process_initializer

#: What is said of a step whose process was killed; ``failures`` knows what to do.
KILLED = 'RuntimeError: the process of this step was killed from outside\n'


class Workers:
    """What Nipype takes for a pool of processes; in truth each is a pool of its own.

    A pool of which a process was killed is of no use any more: all its steps are lost, and
    Nipype waits for them for good.

    Parameters
    ----------
    cwd : folder the processes work in.
    context : how processes start, as in :func:`multiprocessing.get_context`.
    """

    def __init__(self, cwd: str, context: str | None) -> None:
        self._start = partial(
            ProcessPoolExecutor,
            max_workers=1,
            mp_context=multiprocessing.get_context(context),
            initializer=initialize,
            initargs=(cwd,),
        )
        self._idle: list[tuple[ProcessPoolExecutor, Future]] = []
        self._pids: list[Future] = []

    def submit(self, run: Callable, node, updatehash: bool, taskid: int) -> Future:
        """Run a step; the answer tells also of a process that was killed."""
        fresh = not self._idle
        executor, pid = self._new() if fresh else self._idle.pop()
        answer: Future = Future()

        def take(future: Future) -> None:
            error = future.exception()
            if error is None:
                self._idle.append((executor, pid))
                answer.set_result(future.result())
                return
            self._pids.remove(pid)
            pid.add_done_callback(_kill)
            lost = isinstance(error, BrokenProcessPool)
            said = KILLED if lost else f'{type(error).__name__}: {error}\n'
            answer.set_result({'result': None, 'traceback': [said], 'taskid': taskid})

        try:
            future = executor.submit(run, node, updatehash, taskid)
        except BrokenProcessPool:
            if fresh:
                raise
            # killed while it had nothing to do
            return self.submit(run, node, updatehash, taskid)
        future.add_done_callback(take)
        return answer

    def _new(self) -> tuple[ProcessPoolExecutor, Future]:
        executor = self._start()
        self._pids.append(executor.submit(os.getpid))
        return executor, self._pids[-1]

    def shutdown(self) -> None:
        """Let the processes end."""
        for executor, _ in self._idle:
            executor.shutdown()

    def kill(self) -> None:
        """End the processes, and the programs they run, now or as soon as they have started."""
        for pid in list(self._pids):
            pid.add_done_callback(_kill)


class MultiProcPlugin(plugins.MultiProcPlugin):
    """Nipype's, which survives that processes are killed, and leaves none behind."""

    def __init__(self, plugin_args: dict | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool = Workers(self._cwd, self.plugin_args.get('mp_context'))

    def run(self, graph, config, updatehash=False):
        """Run a graph; where it is interrupted, what runs is killed."""
        gc.freeze()  # Nipype collects garbage before each step; what was imported is none
        try:
            super().run(graph, config, updatehash=updatehash)
        except BaseException:
            self.pool.kill()
            raise
        finally:
            gc.unfreeze()


def initialize(cwd: str) -> None:
    """Set up a process: it and the programs it starts end together, and with the run."""
    process_initializer(cwd)
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _kill(pid: Future) -> None:
    """Kill a process and the programs it started, which may outlive it."""
    with suppress(OSError):  # it has ended by itself
        if pid.exception() is None:
            os.killpg(pid.result(), signal.SIGKILL)
