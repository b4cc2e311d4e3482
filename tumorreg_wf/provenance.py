"""What computed something: its code, and the programs it calls."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tumorreg_wf import __version__

#: Packages whose results may change with their version, though no input of a node does.
PROGRAMS = ('antspyx', 'nilearn', 'picsl_greedy', 'torch')

#: The packaged weights are not looked at: nodes go by their hash.
PACKAGE = Path(__file__).parent


@cache
def fingerprint() -> str:
    """Version and a word that changes with the code, its data and :data:`PROGRAMS`.

    Results of an earlier day are taken again where nothing they come from has changed; that the
    code has, their inputs do not show.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*')):
        inside = path.relative_to(PACKAGE)
        if path.is_file() and path.suffix != '.pyc' and inside.parts[:2] != ('data', 'weights'):
            digest.update(f'{inside} {path.stat().st_size}\n'.encode() + path.read_bytes())
    for program in PROGRAMS:
        digest.update(f'{program} {_version_of(program)}\n'.encode())
    return f'{__version__.replace(".", "_")}_{digest.hexdigest()[:8]}'


def _version_of(program: str) -> str | None:
    try:
        return version(program)
    except PackageNotFoundError:  # ANTs may be the system's own
        return None
