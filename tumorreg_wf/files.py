"""Files that are there as a whole or not at all, and folders that one run has for itself."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tumorreg_wf.errors import TumorregError

#: What names of files begin with as long as they are written.
PART = '.part-'

#: Files of text, UTF-8.
TEXTS = ('.tsv', '.json', '.html')

#: What a file system says that knows no locks; the run then does without.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Let a file be written under another name, and give it its own once it is on the disk.

    Nobody ever reads half of it, be the disk full or the power cut.

    Parameters
    ----------
    path : of the file, new or there already.

    Yields
    ------
    part : path to write to, in the same folder and with the same ending.
    """
    path = Path(path)
    part = path.with_name(f'{PART}{uuid.uuid4().hex[:8]}_{path.name}')
    try:
        yield part
        with part.open('rb') as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        with suppress(OSError):  # not every file system can: its folder, too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if error.filename in (None, str(part)):  # a name that says nothing to anybody
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            part.unlink()


def describe_error(error: OSError) -> str:
    """Say what the system complains of: the file, where it says which, and why."""
    reason = error.strerror or str(error) or type(error).__name__
    return f'{error.filename}: {reason}' if error.filename else reason


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all."""
    with write_aside(path) as part:
        part.write_text(text, encoding='utf-8')


def read_dictionary(path: Path) -> dict:
    """Read a JSON object that may be anybody's; empty where there is none that can be read."""
    try:
        described = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def remove_parts(out_dir: Path, participant: str) -> None:
    """Delete what a run that was killed has left of a participant; no other may be at it now."""
    own = f'sub-{participant}'
    for part in (
        *(out_dir / own).rglob(f'{PART}*'),
        *(
            part
            for folder in (out_dir, out_dir / 'logs')
            for part in folder.glob(f'{PART}*_{own}.*')
        ),
    ):
        with suppress(OSError):
            part.unlink()


def unpack(path: Path, most: float = math.inf) -> int:
    """Read a gzip file to its end, where its checksum is, or to a length; give the length."""
    length = 0
    with gzip.open(path) as stream:
        while length < most and (block := stream.read(2**20)):
            length += len(block)
    return length


def check_whole(path: Path) -> None:
    """Read a file to its end.

    Raises
    ------
    TumorregError
        If it is empty, a compressed file is damaged, an image shorter than its header says, a
        transform none of HDF5, a picture without its end, or there are zeros in place of text.
    """
    import h5py
    import nibabel as nb

    try:
        length = path.stat().st_size
        if path.name.endswith('.gz'):
            length = unpack(path)
        wanted = 1
        if path.name.endswith(('.nii', '.nii.gz')):
            voxels: Any = nb.Nifti1Image.from_filename(path).dataobj
            wanted = voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize
        elif path.suffix == '.h5':
            h5py.File(path, 'r').close()  # it knows how long the file has to be
        elif path.suffix == '.svg' and not path.read_bytes().rstrip().endswith(b'</svg>'):
            raise EOFError('its end is missing')
        elif path.suffix in TEXTS and '\0' in path.read_text(encoding='utf-8'):
            raise ValueError('zeros in place of text')
        if length < wanted:
            raise EOFError(f'{length} bytes of {wanted}')
    except Exception as error:  # nibabel, gzip and zlib each have their own exceptions
        raise TumorregError(f'{path}: this file is damaged ({error}).') from None


@contextmanager
def hold(folder: Path, participants: Iterable[str]) -> Iterator[None]:
    """Keep other runs from the participants in a folder, also those on other machines.

    Each participant is one byte of a file that is locked; the system takes the lock away with
    the process, however it ends.

    Parameters
    ----------
    folder : it must exist.
    participants : labels.

    Raises
    ------
    TumorregError
        If another run is at one of them.
    """
    with (folder / '.lock').open('a+b') as stream:
        for label in participants:
            place = int(hashlib.sha256(label.encode()).hexdigest()[:12], 16)
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    break
                raise TumorregError(
                    f'{folder}: another run is at sub-{label} here. Wait until it has ended, or '
                    'leave this participant out. Two runs at once need other participants, or '
                    'an output folder and a --work-dir each.'
                ) from None
        yield
