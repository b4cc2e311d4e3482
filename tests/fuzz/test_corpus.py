"""What once came out badly comes out well; so do a few files more."""

import random
import runpy
from pathlib import Path

import pytest

FUZZ = runpy.run_path(str(Path(__file__).with_name('fuzz.py')))
TARGETS, complain = FUZZ['TARGETS'], FUZZ['complain']
KEPT = sorted(path for path in FUZZ['CORPUS'].glob('*/*'))


@pytest.mark.parametrize('path', KEPT, ids=lambda path: f'{path.parent.name}-{path.name}')
def test_what_was_found(path):
    assert complain(TARGETS[path.parent.name][0], path.read_bytes()) is None


@pytest.mark.parametrize('target', TARGETS)
def test_sound_files_are_read_and_damaged_ones_refused(target, tmp_path):
    read, sound = TARGETS[target]
    seeds, rng = list(sound()), random.Random(1)
    for content in seeds:
        read(content, tmp_path)
    for _ in range(20):
        assert complain(read, FUZZ['change'](rng.choice(seeds), rng)) is None
