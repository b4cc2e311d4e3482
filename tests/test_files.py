"""Files are there as a whole or not at all; two runs keep out of each other's way."""

import gzip
import os
import stat
import subprocess
import sys

import h5py
import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import (
    check_whole,
    hold,
    read_dictionary,
    remove_parts,
    write_aside,
    write_text,
)


def test_a_file_appears_once_it_is_written(tmp_path):
    path = tmp_path / 'x.nii.gz'
    with write_aside(path) as part:
        assert part.parent == tmp_path and part.name.endswith('.nii.gz')
        part.write_text('half')
        assert not path.exists()
        part.write_text('whole')
    assert path.read_text() == 'whole'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('content', [None, '', '{', '[]', '[' * 100_000, b'\xff\xfe\x00'])
def test_a_dictionary_that_cannot_be_read_is_empty(tmp_path, content):
    path = tmp_path / 'x.json'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_dictionary(path) == {}
    path.write_text('{"Manual": true}', encoding='utf-8-sig')
    assert read_dictionary(path) == {'Manual': True}


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / 'x.tsv'
    write_text(path, 'old')
    with pytest.raises(ZeroDivisionError), write_aside(path) as part:
        part.write_text('half')
        raise ZeroDivisionError
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_as_people_know_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / 'nowhere' / 'x.tsv', 'x')
    assert caught.value.filename == str(tmp_path / 'nowhere' / 'x.tsv')


@pytest.mark.parametrize('mask', [0o022, 0o027, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / 'x', 'x')
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'x').stat().st_mode) == 0o666 & ~mask


def test_what_a_killed_run_left_is_removed(tmp_path):
    code = (
        'import os, sys; from tumorreg_wf.files import write_aside\n'
        'with write_aside(sys.argv[1]) as part: part.write_text("half"); os.kill(os.getpid(), 9)'
    )
    (tmp_path / 'anat').mkdir()
    subprocess.run([sys.executable, '-c', code, tmp_path / 'anat' / 'x.tsv'], check=False)
    (left,) = (tmp_path / 'anat').iterdir()
    assert left.name.startswith('.part-')
    remove_parts(tmp_path, '01')
    assert left.exists()  # of nobody


def test_what_a_killed_run_left_of_a_participant_is_removed(tmp_path):
    """Reports and records lie outside of its folder; those of others are being written."""
    for folder in ('sub-01/ses-a/anat', 'sub-02/anat', 'logs'):
        (tmp_path / folder).mkdir(parents=True)
    own = ['sub-01/ses-a/anat/.part-1_x.nii.gz', '.part-2_sub-01.html', 'logs/.part-3_sub-01.json']
    others = [
        'sub-02/anat/.part-4_x.tsv', '.part-5_sub-010.html', 'logs/.part-6_CITATION.md',
        'sub-01/ses-a/anat/x.tsv', 'sub-01.html',
    ]  # fmt: skip
    for name in (*own, *others):
        (tmp_path / name).touch()
    remove_parts(tmp_path, '01')
    assert not any((tmp_path / name).exists() for name in own)
    assert all((tmp_path / name).exists() for name in others)


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz'])
def test_images_cut_or_altered_are_not_whole(tmp_path, ending):
    path = tmp_path / f'x{ending}'
    data = np.random.default_rng(0).integers(0, 99, (9, 8, 7), np.int16)
    nb.Nifti1Image(data, np.eye(4)).to_filename(path)
    check_whole(path)
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(TumorregError, match='is damaged'):
            check_whole(path)
    if ending == '.nii.gz':
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(TumorregError, match='is damaged'):
            check_whole(path)
        # compressed without fault, but less than the header says
        path.write_bytes(gzip.compress(gzip.decompress(content)[:-1]))
        with pytest.raises(TumorregError, match='bytes of'):
            check_whole(path)


def test_transforms_cut_or_emptied_are_not_whole(tmp_path):
    path = tmp_path / 'x_xfm.h5'
    with h5py.File(path, 'w') as file:
        file['TransformGroup/0/TransformParameters'] = np.arange(9000.0)
    check_whole(path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-1], b'\0' * len(content), b''):
        path.write_bytes(damaged)
        with pytest.raises(TumorregError, match='is damaged'):
            check_whole(path)


def test_pictures_without_an_end_are_not_whole(tmp_path):
    path = tmp_path / 'x.svg'
    text = '<svg>text</svg>\n'
    path.write_text(text)
    check_whole(path)
    for damaged in (text[:9], '\0' * len(text)):
        path.write_text(damaged)
        with pytest.raises(TumorregError, match='is damaged'):
            check_whole(path)


@pytest.mark.parametrize('kind', ['tsv', 'json', 'html'])
@pytest.mark.parametrize('content', ['', '\0' * 20])
def test_texts_that_a_power_cut_left_empty_are_not_whole(tmp_path, content, kind):
    path = tmp_path / f'x.{kind}'
    path.write_text(content)
    with pytest.raises(TumorregError, match='is damaged'):
        check_whole(path)


HOLD = """
import sys; from pathlib import Path; from tumorreg_wf.files import hold
with hold(Path(sys.argv[1]), sys.argv[2:]):
    print('held', flush=True)
    sys.stdin.read()
"""


def test_a_participant_is_held_by_one_run(tmp_path):
    command = [sys.executable, '-c', HOLD, tmp_path, '01', '02']
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == 'held\n'
        with hold(tmp_path, ['03', '04']):
            pass
        with pytest.raises(TumorregError, match='another run is at sub-02 here'):
            with hold(tmp_path, ['03', '02']):
                pass
        other.kill()
        other.wait()
    with hold(tmp_path, ['01', '02']):
        pass
