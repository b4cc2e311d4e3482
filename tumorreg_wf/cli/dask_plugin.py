"""Dask as a plugin of Nipype, which brings none."""

from __future__ import annotations

from distributed import Client
from nipype.pipeline.plugins.base import DistributedPluginBase
from nipype.pipeline.plugins.multiproc import run_node


class DaskPlugin(DistributedPluginBase):
    """Run nodes on the workers of a Dask scheduler.

    ``plugin_args`` may hold ``address`` or ``scheduler_file`` of a scheduler that runs; without
    either, workers are started on this machine, as many as ``n_procs``.
    """

    def __init__(self, plugin_args: dict | None = None) -> None:
        super().__init__(plugin_args=plugin_args)
        known = {
            key: self.plugin_args[key]
            for key in ('address', 'scheduler_file')
            if key in self.plugin_args
        }
        if not known:
            known = {'n_workers': self.plugin_args.get('n_procs', 1), 'threads_per_worker': 1}
        self._client = Client(**known)
        self._futures: dict = {}

    def _submit_job(self, node, updatehash=False):
        self._taskid = getattr(self, '_taskid', 0) + 1
        # pure: what a node does is in files, which Dask knows nothing of
        self._futures[self._taskid] = self._client.submit(
            run_node, node, updatehash, self._taskid, pure=False, retries=0
        )
        return self._taskid

    def _get_result(self, taskid):
        future = self._futures[taskid]
        return future.result() if future.done() else None

    def _clear_task(self, taskid):
        del self._futures[taskid]

    def _postrun_check(self):
        self._client.close()
