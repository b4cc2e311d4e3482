"""The group level of tumorreg: puts finished patients together, computes no image anew."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tumorreg_wf.bids import list_some
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import describe_error


def find_group(
    bids_dir: Path, out_dir: Path, participants: Sequence[str], sessions: Sequence[str]
) -> list[Path]:
    """Check the arguments of the group level; give the tables of the patients.

    Parameters
    ----------
    bids_dir : root of the dataset.
    out_dir : root of the derivatives, with the outputs of the participant level.
    participants, sessions : labels to keep; all where empty.

    Raises
    ------
    TumorregError
        If there is nothing to put together.
    """
    from tumorreg_wf.reports.group import find_tables

    for folder in (bids_dir, out_dir):
        if not folder.is_dir():
            raise TumorregError(f'{folder}: no such folder.')
    present = {path.name for root in (bids_dir, out_dir) for path in root.glob('sub-*/')}
    if missing := [label for label in participants if f'sub-{label}' not in present]:
        raise TumorregError(f'no participant {", ".join(missing)} in {bids_dir} or {out_dir}.')
    return find_tables(out_dir, participants, sessions)


def run_group(
    bids_dir: Path,
    out_dir: Path,
    participants: Sequence[str],
    sessions: Sequence[str],
    tables: Sequence[Path],
) -> int:
    """Write the table, the tumour maps and the report of a group.

    Parameters
    ----------
    bids_dir, out_dir, participants, sessions : as in :func:`find_group`; of the dataset only the
        names of its T1w are looked at.
    tables : from :func:`find_group`.

    Returns
    -------
    code : 0.

    Raises
    ------
    TumorregError
        If a table is damaged, masks do not fit each other, or nothing can be written.
    """
    from tumorreg_wf.reports import group
    from tumorreg_wf.reports.group_page import write_group_report

    table, dictionary = group.read_tables(tables)
    maps = group.map_tumors(tables)
    gaps = group.find_gaps(bids_dir, out_dir, tables, participants, sessions)
    command = shlex.join(sys.argv)
    try:
        print(f'Table: {group.write_table(table, dictionary, out_dir)}')
        written = [group.write_map(tumor_map, out_dir) for tumor_map in maps]
        for path in written:
            print(f'Map: {path}')
        group.remove_other_maps(written, out_dir)
        print(f'Report: {write_group_report(out_dir, table, maps, gaps, command)}')
    except OSError as error:
        raise TumorregError(f'{describe_error(error)}.') from None
    for what, names in gaps.items():
        print(f'tumorreg: {what}: {list_some(names, 10)}', file=sys.stderr)
    return 0
