"""Figures of an evaluation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

REFERENCE, FOUND = '#00c8ff', '#ff5a36'

#: Letters of a legend that an inch has room for.
LETTERS = 11

#: Rows of a panel.
MOST_ROWS = 6


class Picture(NamedTuple):
    """Slices (X, Y) of one case, axis 0 from left to right, axis 1 from back to front.

    Attributes
    ----------
    title : what is written at its left.
    rank : where it comes among the others.
    slices : (name, image, masks outlined: reference and found) from left to right.
    """

    title: str
    rank: float
    slices: Sequence[tuple[str, np.ndarray, Sequence[np.ndarray]]]


def draw_distribution(
    table: pd.DataFrame, value: str, label: str, by: str, hue: str, path: Path
) -> None:
    """Draw a dot per row of a table, and the median, by group and side by side by ``hue``.

    Parameters
    ----------
    table : a row per measurement; groups and hues come in its order.
    value, label : column drawn, and what the axis says.
    by, hue : columns of the groups and of the colours.
    path : PNG file.
    """
    groups, hues = table[by].unique(), table[hue].unique()
    wide = max(2 + 0.35 * len(groups) * (1 + len(hues)), 2 + 1.2 * len(groups), 5)
    figure = Figure(figsize=(wide, 4.5), layout='constrained')
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for number, name in enumerate(hues):
        colour = f'C{number % 10}'
        for position, group in enumerate(groups):
            values = table.loc[(table[by] == group) & (table[hue] == name), value]
            values = values[np.isfinite(values)]
            middle = position + 0.8 * ((number + 0.5) / len(hues) - 0.5)
            width = 0.3 / len(hues)
            across = middle + width * rng.uniform(-0.7, 0.7, len(values))
            axes.plot(across, values, 'o', ms=4, color=colour, alpha=0.6, markeredgewidth=0)
            if len(values):
                axes.hlines(values.median(), middle - width, middle + width, colour, lw=2)
        axes.plot([], [], 's', color=colour, label=name)
    # not every case has all hues: some lack a FLAIR
    counts = table.groupby([by, hue], observed=True).size().groupby(by, observed=True).max()
    names = [textwrap.fill(str(group), 14) for group in groups]
    axes.set_xticks(range(len(groups)), [
        f'{name}\nn = {counts[group]}' for name, group in zip(names, groups, strict=True)
    ])  # fmt: skip
    axes.set_ylabel(label)
    axes.grid(axis='y', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    longest = max(len(str(name)) for name in hues) + 4
    columns = max(1, min(len(hues), int(wide * LETTERS / longest)))
    figure.legend(loc='outside upper center', ncols=columns, frameon=False)
    figure.savefig(path, dpi=110)


def draw_pairs(table: pd.DataFrame, value: str, label: str, by: str, path: Path) -> None:
    """Draw a line per participant from group to group, and the median of each group.

    Parameters
    ----------
    table : a row per participant (``participant_id``) and group; groups come in its order.
    value, label : column drawn, and what the axis says.
    by : column of the groups.
    path : PNG file.
    """
    groups = list(table[by].unique())
    wide = table.pivot(index='participant_id', columns=by, values=value)[groups]
    figure = Figure(figsize=(2 + 1.2 * len(groups), 4.5), layout='constrained')
    axes = figure.subplots()
    axes.plot(groups, wide.to_numpy().T, 'o-', ms=3, lw=0.8, color='0.6', alpha=0.7)
    places = np.arange(len(groups))
    axes.hlines(wide.median(), places - 0.25, places + 0.25, 'C3', lw=3, label='median')
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.set_title(f'n = {len(wide)}', fontsize=10)
    axes.grid(axis='y', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_gain(
    table: pd.DataFrame, value: str, label: str, by: str, baseline: str, path: Path
) -> None:
    """Draw how much each group gains over a baseline, participant by participant, by volume.

    Parameters
    ----------
    table : a row per participant (``participant_id``) and group, with ``tumor_ml``.
    value, label : column drawn, and what the axis says.
    by : column of the groups.
    baseline : group that is taken off the others.
    path : PNG file.
    """
    wide = table.pivot(index=['participant_id', 'tumor_ml'], columns=by, values=value)
    volumes = wide.index.get_level_values('tumor_ml')
    figure = Figure(figsize=(7.5, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.axhline(0, color='0.5', lw=0.8)
    for group in table[by].unique():
        if group != baseline:
            gain = wide[group] - wide[baseline]
            axes.plot(volumes, gain, 'o', ms=5, alpha=0.75, markeredgewidth=0, label=group)
    axes.set_xlabel('volume of the tumour, ml')
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside upper center', ncols=4, frameon=False)
    figure.savefig(path, dpi=110)


def draw_panel(pictures: Sequence[Picture], path: Path, outlined: Sequence[str]) -> None:
    """Draw pictures below each other, those of lowest rank first; all have the same columns.

    Parameters
    ----------
    pictures : at most :data:`MOST_ROWS` are drawn; none, and there is no figure.
    path : PNG file.
    outlined : what the masks are.
    """
    if not pictures:
        return
    pictures = sorted(pictures, key=lambda picture: picture.rank)[:MOST_ROWS]
    columns = len(pictures[0].slices)
    figure = Figure(figsize=(2.2 * columns + 0.4, 2.7 * len(pictures)), layout='constrained')
    figure.patch.set_facecolor('black')
    grid = figure.subplots(len(pictures), columns, squeeze=False)
    for number, (row, picture) in enumerate(zip(grid, pictures, strict=True)):
        for axes, (name, image, masks) in zip(row, picture.slices, strict=True):
            axes.imshow(image.T, cmap='gray', origin='lower', vmin=0, vmax=1)
            for mask, colour in zip(masks, (REFERENCE, FOUND), strict=False):
                if mask.any():
                    axes.contour(mask.T, levels=[0.5], colors=colour, linewidths=0.9)
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(name, color='white', fontsize=10)
        row[0].set_ylabel(picture.title, color='white', fontsize=9)
    lines = [
        Line2D([], [], color=colour, label=name)
        for name, colour in zip(outlined, (REFERENCE, FOUND), strict=False)
    ]
    figure.legend(
        handles=lines, loc='outside upper center', ncols=2, frameon=False, labelcolor='white'
    )
    figure.savefig(path, dpi=110)


def spread(pictures: Sequence[Picture]) -> list[Picture]:
    """Pick pictures evenly from the lowest rank to the highest."""
    ordered = sorted(pictures, key=lambda picture: picture.rank)
    wanted = np.linspace(0, len(ordered) - 1, min(MOST_ROWS, len(ordered)))
    return [ordered[round(index)] for index in wanted]
