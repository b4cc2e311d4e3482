"""Nipype's plugins as they are run here; imported only once Nipype is set up."""

from __future__ import annotations

from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import DistributedPluginBase, PluginBase
from nipype.pipeline.plugins.multiproc import run_node

from tumorreg_wf.workflows.workers import MultiProcPlugin


class _ToldOfLostJobs:
    """A plugin that outlives jobs which leave no result, since they were killed.

    Nipype has what it says of them as text, adds a list of lines to it, and so stops all
    participants with a TypeError.
    """

    def _report_crash(self, node, result=None):
        if result is not None and isinstance(result['traceback'], str):
            result = {**result, 'traceback': result['traceback'].splitlines(keepends=True)}
        return super()._report_crash(node, result=result)  # type: ignore[misc]


class DaskPlugin(DistributedPluginBase):
    """Run nodes on the workers of a Dask scheduler; Nipype brings no such plugin.

    ``plugin_args`` may hold ``address`` or ``scheduler_file`` of a scheduler that runs; without
    either, workers are started on this machine, as many as ``n_procs``.
    """

    def __init__(self, plugin_args: dict | None = None) -> None:
        from distributed import Client

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
        self._taskid = 0

    def _submit_job(self, node, updatehash=False):
        self._taskid += 1
        # not pure: what a node does is in files, which Dask knows nothing of
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


def make_engine(plugin: str, arguments: dict) -> PluginBase:
    """Make a plugin, by its name in ``cli.plugins.PLUGINS``, that :meth:`Workflow.run` takes."""
    own = {'Dask': DaskPlugin, 'MultiProc': MultiProcPlugin}
    kind = own.get(plugin) or getattr(plugins, f'{plugin}Plugin')
    if issubclass(kind, DistributedPluginBase):
        kind = type(f'{plugin}Plugin', (_ToldOfLostJobs, kind), {})
    return kind(plugin_args=arguments)
