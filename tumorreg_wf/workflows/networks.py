"""Nodes that run a network."""

from __future__ import annotations

from nipype.pipeline import engine as pe

from tumorreg_wf.weights import Weights


def network_node(
    interface: type, weights: Weights, *, device: str, omp_nthreads: int, name: str
) -> pe.Node:
    """Make the node of an interface of :mod:`tumorreg_wf.interfaces.torch`.

    Parameters
    ----------
    interface : its class.
    weights : from :func:`tumorreg_wf.weights.find_weights`.
    device : torch device.
    omp_nthreads : CPU threads of torch, and processors that Nipype keeps for the node.
    name : name of the node.
    """
    return pe.Node(
        interface(
            weights=str(weights.path),
            weights_sha256=weights.sha256,
            device=device,
            num_threads=omp_nthreads,
        ),
        name=name,
        n_procs=omp_nthreads,
        mem_gb=2,
    )
