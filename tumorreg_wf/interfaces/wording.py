"""A patient's tables in words: what was found, and how well it went."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

#: A lobe is named if this part of the labelled tumour is in it, and none is if less than half of
#: the tumour is labelled at all.
SMALLEST_SHARE, LABELLED = 0.2, 0.5

#: Regions a sentence names.
MOST_NAMED = 3

#: Beyond these a reader should look closer. Likeness: a warp that is a few mm off falls below.
#: Hole: in larger ones the filling is clearly less faithful (see the README).
#: Folds: a share of the brain; fewer lie next to a large tumour in most warps.
LEAST_SIMILARITY, LARGE_HOLE, VISIBLE_SEAM, MANY_FOLDS = 0.6, 0.05, 1.5, 0.001

TITLES = {
    'similarity': 'Similarity to the template',
    'fold_fraction': 'Folds of the warp',
    'hole_share': 'Brain replaced',
    'seam_contrast': 'Seam of the hole',
}


class Reading(NamedTuple):
    """One measure of quality, for people."""

    title: str
    value: str
    words: str
    closer: bool  # whether to look closer


def to_number(text: str) -> float:
    """Read a number; 0 for what is no number ('n/a')."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def format_volume(volume: float) -> str:
    """Write a volume (mm^3) in ml, with the digits that matter."""
    ml = volume / 1000
    if ml < 0.1:
        return 'less than 0.1 ml'
    return f'{ml:.1f} ml' if ml < 10 else f'{ml:.0f} ml'


def describe_tumor(tumor: Mapping[str, str], regions: Sequence[Mapping[str, str]]) -> str:
    """Say in a sentence what the tables tell about a tumour.

    Parameters
    ----------
    tumor : row of ``desc-tumor_morph.tsv``.
    regions : rows of ``atlas-<A>_desc-tumor_morph.tsv``.
    """
    volume = to_number(tumor['volume_mm3'])
    if not volume:
        return 'No tumour: the mask is empty, and nothing was replaced.'
    sides = {'L': 'Left', 'R': 'Right', 'B': 'Both hemispheres'}
    side = sides.get(tumor['hemisphere'], 'Side not known')
    place = join_words(find_lobes(regions, volume))
    if place:
        side += f' {place}' if tumor['hemisphere'] in 'LR' else f', {place}'
    parts = int(to_number(tumor['n_components']))
    crosses = tumor['midline_crossing'] == 'True'
    return ', '.join(
        [
            side,
            format_volume(volume),
            'in one part' if parts == 1 else f'in {parts} separate parts',
            'crosses the midline' if crosses else 'does not cross the midline',
            f'touches {_describe_regions(regions)}.',
        ]
    )


def _describe_regions(regions: Sequence[Mapping[str, str]]) -> str:
    touched = sort_touched(regions)
    if not touched:
        return 'no region of the atlas'
    volumes: dict[str, float] = {}
    for row in touched:
        name = name_region(row['name'])
        volumes[name] = volumes.get(name, 0) + to_number(row['tumor_mm3'])
    largest = sorted(volumes, key=lambda name: volumes[name], reverse=True)[:MOST_NAMED]
    named = join_words([f'{name} ({format_volume(volumes[name])})' for name in largest])
    if len(volumes) <= MOST_NAMED:
        return f'{named} of the atlas'
    return f'{len(touched)} regions of the atlas, most of all {named}'


def sort_touched(regions: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Give the regions that the tumour touches, largest overlap first."""
    touched = [row for row in regions if to_number(row['tumor_mm3']) > 0]
    return sorted(touched, key=lambda row: to_number(row['tumor_mm3']), reverse=True)


def find_lobes(regions: Sequence[Mapping[str, str]], volume: float) -> list[str]:
    """Find the lobes a tumour is in, largest part first; none for atlases but the default one.

    Parameters
    ----------
    regions : rows of ``atlas-<A>_desc-tumor_morph.tsv``.
    volume : of the tumour, mm^3.
    """
    known = _read_default_atlas()
    found: dict[str, float] = {}
    for row in regions:
        if row['name'] in known:
            lobe = known[row['name']]['lobe']
            found[lobe] = found.get(lobe, 0) + to_number(row['tumor_mm3'])
    total = sum(found.values())
    if total == 0 or total < LABELLED * volume:
        return []
    largest = sorted(found, key=lambda lobe: found[lobe], reverse=True)
    return [lobe for lobe in largest if found[lobe] >= SMALLEST_SHARE * total]


def name_region(name: str) -> str:
    """Write the name of a region out; 'vmPFC L 7' is 'left ventromedial prefrontal cortex'.

    Names of atlases other than the default one stay as they are.
    """
    known = _read_default_atlas()
    return known[name]['words'] if name in known else name


@cache
def _read_default_atlas() -> dict[str, dict[str, str]]:
    """Read the lobe and the written-out name of each region of the default atlas, by name."""
    table = files('tumorreg_wf') / 'data' / 'atlas-Dosenbach2010_lobes.tsv'
    lines = table.read_text(encoding='utf-8').splitlines()
    return {row['name']: row for row in csv.DictReader(lines, delimiter='\t')}


def join_words(words: Sequence[str]) -> str:
    """Join words as in speech: 'a', 'a and b', 'a, b and c'."""
    *first, last = words or ['']
    return f'{", ".join(first)} and {last}' if first else last


def describe_quality(row: Mapping[str, str]) -> list[Reading]:
    """Read the measures of quality.

    Parameters
    ----------
    row : of ``desc-qc_morph.tsv``.

    Returns
    -------
    readings : one for each measure, in the order of the table.
    """
    readers = {
        'similarity': _read_similarity,
        'fold_fraction': _read_folds,
        'hole_share': _read_hole,
        'seam_contrast': _read_seam,
    }
    readings = []
    for name, read in readers.items():
        if row[name] == 'n/a':
            seam = name == 'seam_contrast'
            words = 'There is no hole.' if seam else 'It could not be measured.'
            readings.append(Reading(TITLES[name], 'n/a', words, not seam))
        else:
            readings.append(Reading(TITLES[name], *read(float(row[name]))))
    return readings


def _read_similarity(value: float) -> tuple[str, str, bool]:
    low = value < LEAST_SIMILARITY
    words = (
        'The warped template looks little like this brain: check the registration.'
        if low
        else 'Correlation with the warped template: about 0.8 is usual, 1 is the same picture.'
    )
    return f'{value:.2f}', words, low


def _read_folds(value: float) -> tuple[str, str, bool]:
    if not value:
        return '0', 'The warp folds nowhere.', False
    large = value > MANY_FOLDS
    words = 'The warp folds in this share of the brain: labels err there.'
    return _percent(value), words if large else 'A few voxels fold, which is usual.', large


def _read_hole(value: float) -> tuple[str, str, bool]:
    if not value:
        return '0', 'Nothing was replaced.', False
    large = value > LARGE_HOLE
    words = 'Much was replaced; the filling of large holes is less faithful.'
    return _percent(value), words if large else 'This part of the brain was replaced.', large


def _read_seam(value: float) -> tuple[str, str, bool]:
    if value > VISIBLE_SEAM:
        return f'{value:.2f}', 'The edge of the hole shows: look at the filling.', True
    return f'{value:.2f}', 'No seam shows. 1 is as rough as around, below is smoother.', False


def _percent(share: float) -> str:
    return f'{100 * share:.2g} %' if share < 0.1 else f'{100 * share:.0f} %'
