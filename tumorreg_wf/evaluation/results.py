"""What an evaluation writes: a table, what was run, a summary for reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from tumorreg_wf import __version__
from tumorreg_wf.weights import Weights, find_weights

#: Statistics of a summary: (title, column, name or function for :meth:`DataFrameGroupBy.agg`).
Statistics = Sequence[tuple]


def choose_weights(task: str, sources: Iterable[str | Path | None]) -> dict[str, Weights]:
    """Find weights, each under a name of its own.

    Parameters
    ----------
    task : ``'segmentation'``, ``'inpainting'`` or ``'brain'``.
    sources : as :func:`tumorreg_wf.weights.find_weights` takes them.

    Returns
    -------
    weights : by the name in the file; where two share one, the beginning of the hash is added.
    """
    chosen: dict[str, Weights] = {}
    for source in sources:
        weights = find_weights(task, source)
        name = weights.name
        if name in chosen and chosen[name].sha256 != weights.sha256:
            name = f'{name}-{weights.sha256[:8]}'
        chosen[name] = weights
    return chosen


def describe_weights(weights: Iterable[tuple[str, Weights]]) -> list[dict]:
    """Say which weights were used, by name, for the JSON file."""
    return [
        {
            'name': name,
            'file': str(one.path),
            'sha256': one.sha256,
            'architecture': one.architecture,
            'config': one.config,
            'spacing_mm': one.spacing,
        }
        for name, one in weights
    ]


def summarise(table: pd.DataFrame, by: Sequence[str], statistics: Statistics) -> pd.DataFrame:
    """Summarise a table by groups, in the order in which they come.

    Parameters
    ----------
    table : a row per measurement.
    by : columns that make a group.
    statistics : (title, column, function) of each column of the summary.
    """
    groups = table.groupby(list(by), sort=False, observed=True)
    return groups.agg(**{title: (column, how) for title, column, how in statistics}).reset_index()


def to_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown; numbers with a precision one reads."""
    rows = [table.columns, ['---'] * len(table.columns)]
    rows += [[_format(value) for value in row] for row in table.itertuples(index=False)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows) + '\n'


def _format(value) -> str:
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return 'n/a'
    return f'{value:.4g}'


def write_results(
    out_dir: Path,
    name: str,
    table: pd.DataFrame,
    *,
    run: dict,
    columns: dict[str, str],
    summary: str,
) -> None:
    """Write ``name.tsv``, ``name.json`` and ``name.md``.

    Parameters
    ----------
    out_dir : an existing folder.
    name : stem of the files.
    table : a row per measurement.
    run : what was run: command, weights, settings.
    columns : what each column of the table means.
    summary : Markdown.
    """
    table.to_csv(out_dir / f'{name}.tsv', sep='\t', index=False, na_rep='n/a', float_format='%.6g')
    facts = {'tumorreg': __version__, **run, 'columns': columns}
    (out_dir / f'{name}.json').write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')
    (out_dir / f'{name}.md').write_text(summary, encoding='utf-8')
