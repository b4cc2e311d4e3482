"""Who a network learns from, and who it is judged by."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.images import bounding_box
from tumorreg_wf.training.datasets import Case, read_healthy, read_patients, read_shapes


@dataclass(frozen=True)
class Cohort:
    """Brains and shapes of tumours on one grid.

    Attributes
    ----------
    patients, healthy, simulated : cases to learn from.
    shapes : tumour label volumes that lend their shapes to holes.
    held_out : cases to be judged by, in none of the others.
    spacing : voxel edge, mm.
    """

    patients: list[Case]
    healthy: list[Case]
    simulated: list[Case]
    shapes: list[np.ndarray]
    held_out: list[Case]
    spacing: float

    def checksum(self) -> str:
        """A number that differs where any voxel or name does."""
        arrays = list(self.shapes)
        cases = [*self.patients, *self.healthy, *self.simulated, *self.held_out]
        for case in cases:
            arrays += [case.t1w, case.tumor, case.brain]
            arrays += [] if case.flair is None else [case.flair]
        total = zlib.crc32(' '.join(case.name for case in cases).encode())
        for array in arrays:
            total = zlib.crc32(np.ascontiguousarray(array).data, total)
        return f'{total:08x}'

    def facts(self) -> dict:
        """What a model card says of them."""
        return {
            'patients': [case.name for case in self.patients],
            'healthy': [case.name for case in self.healthy],
            'simulated': len(self.simulated),
            'shapes': len(self.shapes),
        }


def read_cohort(
    data: Path,
    *,
    spacing: float,
    healthy: Path | None = None,
    simulated: Path | None = None,
    shapes: Path | None = None,
    n_shapes: int | None = None,
    exclude: Sequence[str] = (),
    validate: Sequence[str] = (),
    judge_healthy: bool = True,
) -> Cohort:
    """Read datasets, and set apart the participants to be judged by.

    Parameters
    ----------
    data, healthy, simulated : BIDS datasets, see :mod:`tumorreg_wf.training.datasets`.
    spacing : voxel edge, mm.
    shapes : folder of tumour label volumes; the patients' own tumours where not given.
    n_shapes : use only the first so many.
    exclude : labels of participants of ``data`` and ``healthy`` to leave out.
    validate : labels of those to be judged by.
    judge_healthy : whether healthy brains can be judged by, too.
    """
    patients = read_patients(data, spacing=spacing, exclude=exclude)
    others = [] if healthy is None else read_healthy(healthy, spacing=spacing, exclude=exclude)
    if both := {case.name for case in patients} & {case.name for case in others}:
        raise TumorregError(
            f'{", ".join(sorted(both))}: in {data} and in {healthy}. Options name participants by '
            'label: give those of one dataset others.'
        )
    names = {f'sub-{label}' for label in validate}
    candidates = patients + others if judge_healthy else patients
    held_out = [case for case in candidates if case.name in names]
    if missing := names - {case.name for case in held_out}:
        raise TumorregError(
            f'--validate: {", ".join(sorted(missing))} cannot be judged by: left out by '
            '--exclude, or without a tumour to find.'
        )
    patients, others = (
        [case for case in cases if case.name not in names] for cases in (patients, others)
    )
    if not patients:
        raise TumorregError(f'{data}: no patients with reference labels to learn from here.')
    if shapes is None:
        lent = [case.tumor[bounding_box(case.tumor)].astype(np.uint8) for case in patients]
    else:
        lent = read_shapes(shapes, spacing=spacing, only=slice(n_shapes))
    return Cohort(
        patients,
        others,
        [] if simulated is None else read_patients(simulated, spacing=spacing),
        lent,
        held_out,
        spacing,
    )
