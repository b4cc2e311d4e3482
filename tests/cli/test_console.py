import io
import os
import pty
import re

from tumorreg_wf.cli.console import ERASE, Console, format_time


class Terminal(io.StringIO):
    """A terminal that remembers all it was sent."""

    def isatty(self):
        return True


def test_a_file_gets_plain_lines_with_times(tmp_path):
    stream = io.StringIO()
    console = Console(tmp_path / 'run.log', stream=stream)
    with console.live(lambda: 'never shown'):
        console.say('one')
        console.detail('only with -v')
        console.warn('look')
        console.fail('broken')
    assert stream.getvalue().splitlines() == [
        '[   0:00] one', '[   0:00] WARNING: look', '[   0:00] broken',
    ]  # fmt: skip
    logged = (tmp_path / 'run.log').read_text().splitlines()
    assert [line[20:] for line in logged] == ['one', 'only with -v', 'WARNING: look', 'broken']
    assert all(re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ', line) for line in logged)


def test_names_that_are_no_text(tmp_path):
    """A byte of a file's name that is no UTF-8, on a terminal that knows ASCII alone."""
    name = b'brain\xff'.decode(errors='surrogateescape')
    stream = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    Console(tmp_path / 'run.log', stream=stream).say(f'{name}, ä')
    assert stream.buffer.getvalue() == b'[   0:00] brain\\udcff, \\xe4\n'
    assert 'brain\\udcff, ä' in (tmp_path / 'run.log').read_text(encoding='utf-8')


def test_verbose_shows_details():
    stream = io.StringIO()
    Console(verbose=1, stream=stream).detail('a step')
    assert stream.getvalue() == '[   0:00] a step\n'


def test_a_terminal_gets_one_live_line_below_the_others():
    terminal = Terminal()
    console = Console(stream=terminal)
    with console.live(lambda: 'working', every=60):
        console.say('one')
        console.warn('look')
    lines = terminal.getvalue().split(ERASE)
    assert lines[:3] == ['', '[   0:00] working', '[   0:00] one\n[   0:00] working']
    assert '\x1b[1;33mWARNING: look\x1b[0m\n' in lines[3]
    assert lines[-1] == ''  # nothing stays of it


def test_the_live_line_goes_on_by_itself_and_never_wraps(monkeypatch):
    monkeypatch.setenv('COLUMNS', '40')
    terminal, seen = Terminal(), iter(range(1000))
    console = Console(stream=terminal)
    with console.live(lambda: f'state {next(seen)} ' + 'x' * 100, every=0.001):
        while 'state 3' not in terminal.getvalue():
            pass
    assert all(len(text) < 40 for text in terminal.getvalue().split(ERASE))


def test_with_all_of_nipype_there_is_no_live_line():
    terminal = Terminal()
    with Console(verbose=2, stream=terminal).live(lambda: 'working'):
        pass
    assert terminal.getvalue() == ''


def test_a_real_terminal_is_one():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, 'w') as stream, Console(stream=stream).live(lambda: 'working'):
        assert b'working' in os.read(ours, 100)
    os.close(ours)


def test_errors_go_to_the_error_stream_and_the_log(tmp_path, capsys):
    Console(tmp_path / 'run.log').error(['tumorreg: sub-01 failed', '    to do: this'])
    said = capsys.readouterr()
    assert said.out == '' and said.err == 'tumorreg: sub-01 failed\n    to do: this\n'
    assert 'to do: this' in (tmp_path / 'run.log').read_text()


def test_times():
    assert [format_time(s) for s in (7.9, 83, 3723)] == ['0:07', '1:23', '1:02:03']
