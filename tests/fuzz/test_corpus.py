"""What once came out badly comes out well; so do a few files more."""

import random
import runpy
from pathlib import Path

import pytest

FUZZ = runpy.run_path(str(Path(__file__).with_name('fuzz.py')))
TARGETS, outcome = FUZZ['TARGETS'], FUZZ['outcome']
KEPT = sorted(path for path in FUZZ['CORPUS'].glob('*/*'))


@pytest.mark.parametrize('path', KEPT, ids=lambda path: f'{path.parent.name}-{path.name}')
def test_what_was_found(path):
    assert outcome(TARGETS[path.parent.name][0], path.read_bytes()) in ('read', 'refused')


@pytest.mark.parametrize('target', TARGETS)
def test_sound_files_are_read_and_damaged_ones_refused(target, tmp_path):
    read, sound = TARGETS[target]
    seeds, rng = list(sound()), random.Random(1)
    for content in seeds:
        read(content, tmp_path)
    ends = [outcome(read, FUZZ['change'](rng.choice(seeds), rng)) for _ in range(20)]
    assert {*ends} <= {'read', 'refused'}, ends
    assert 'refused' in ends


def test_what_takes_too_long_or_too_much_is_no_refusal(monkeypatch):
    """Readers make messages of any exception; not of these."""
    images, _ = TARGETS['images']
    content = next(FUZZ['sound_images']())

    def no_memory(path):
        raise MemoryError

    monkeypatch.setattr('nibabel.load', no_memory)
    assert 'too little memory' in outcome(images, content)
    monkeypatch.setattr('nibabel.load', lambda path: FUZZ['_too_slow']())
    assert 'took more than' in outcome(images, content)
