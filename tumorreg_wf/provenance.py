"""What computed something: its code, and the programs it calls."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
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
    digest.update(f'ANTs {native_ants()}\n'.encode())
    return f'{__version__.replace(".", "_")}_{digest.hexdigest()[:8]}'


def native_ants() -> str | None:
    """Version and path of the system's own ANTs, which comes before that of antspyx."""
    program = shutil.which('antsRegistration')
    if program is None:
        return None
    answer = subprocess.run([program, '--version'], capture_output=True, text=True, check=False)
    words = re.findall(r'Version: *(\S+)', answer.stdout)
    return f'{words[0] if words else "version not told"}, {program}'


def _version_of(program: str) -> str | None:
    try:
        return version(program)
    except PackageNotFoundError:  # ANTs may be the system's own
        return None
