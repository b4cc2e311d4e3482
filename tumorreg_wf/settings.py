"""What a run is asked to do."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from tumorreg_wf.defaults import DILATION


@dataclass(frozen=True)
class Settings:
    """Settings of a run; see ``tumorreg --help`` for each.

    Paths are absolute but those of weights, which may be names. ``participants`` and
    ``sessions`` are labels without ``sub-`` and ``ses-``; no ``sessions`` means all.
    """

    bids_dir: Path
    out_dir: Path
    work_dir: Path
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    bids_filters: dict = field(default_factory=dict)
    derivatives: tuple[Path, ...] = ()
    bids_database_dir: Path | None = None
    template: str | None = None
    atlas: Path | None = None
    output_spaces: tuple[str, ...] | None = None
    skull_strip: str = 'auto'
    tumor_dilation: float = DILATION
    brain_weights: Path | None = None
    segmentation_weights: Path | None = None
    inpainting_weights: Path | None = None
    tissue_weights: Path | None = None
    registration_target: str = 'original'
    registration_settings: str = 'greedy'
    device: str = 'cpu'
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float | None = None
    plugin_file: Path | None = None
    random_seed: int | None = None
    stop_on_first_crash: bool = False

    def to_json(self) -> str:
        """Write the settings as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1, default=str) + '\n'
