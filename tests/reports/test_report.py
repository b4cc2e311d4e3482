"""The report shows what was stored, opens offline, and exists whatever happened."""

import re
from html import unescape

import pytest

from tumorreg_wf import __version__
from tumorreg_wf.failures import Failure
from tumorreg_wf.reports import Record, generate_report
from tumorreg_wf.reports.report import format_seconds

CRASH = """\
Node: tumorreg_wf.sub_01_wf.registration_wf.syn
Working directory: /work

Node inputs:
fixed_image = <undefined>

Traceback (most recent call last):
  File "<b>x</b>.py", line 1
RuntimeError: <script>alert(1)</script>
"""


def store(out_dir, *, session='', descs=('summary', 'recovery', 'regions', 'tumor')):
    folder = out_dir / 'sub-01' / 'figures'
    folder.mkdir(parents=True, exist_ok=True)
    for desc in descs:
        html = desc in ('summary', 'regions')
        text = f'<p>{desc} {session}</p>' if html else '<svg viewBox="0 0 9 9">\n</svg>'
        path = folder / f'sub-01{session}_desc-{desc}_T1w.{"html" if html else "svg"}'
        path.write_text(text)


def report(out_dir, **options):
    told = {name: options.pop(name) for name in ('failure', 'errors') if name in options}
    options = {
        name: {'sub-01': value} if name in ('methods', 'commands') else value
        for name, value in options.items()
    }
    defaults = {
        'run': 'run-1',
        'commands': {'sub-01': 'tumorreg in out participant'},
        'methods': {'sub-01': 'N4 was run.'},
    }
    path = generate_report(out_dir, '01', Record(**(defaults | options)), **told)
    assert path == out_dir / 'sub-01.html'
    return path.read_text(encoding='utf-8')


def sections(html):
    return re.findall(r'<section id="([\w-]+)">', html)


def test_report(tmp_path):
    store(tmp_path)
    html = report(
        tmp_path,
        timings={'N4 <bias>': 61.2, 'SyN': 100},
        methods='# Methods\nN4 (Tustison & others, <2010>)',
    )
    assert sections(html) == ['Summary', 'Tumour', 'Regions-touched', 'Methods', 'About']
    assert '<p>summary </p>' in html
    assert html.count('<svg') == 2
    assert '(Tustison &amp; others, &lt;2010&gt;)' in html
    assert '<th scope="row">N4 &lt;bias&gt;</th><td>1 min 01 s</td>' in html
    for name in ('tumorreg', 'Python', 'Nipype', 'ANTs', 'PyTorch'):
        assert f'<th scope="row">{name}</th>' in html
    assert 'mass effect' in html


def test_methods_with_versions_references_and_bibtex(tmp_path):
    html = report(tmp_path, methods='Warped by SyN [@syn].')
    methods, bibtex = (
        unescape(text) for text in re.findall(r'<pre id="copy-\w+"[^>]*>(.*?)</pre>', html, re.S)
    )
    assert methods.startswith(f'Warped by SyN [@syn]. Versions: tumorreg {__version__}, Python ')
    assert 'Avants BB, Epstein CL' in methods
    assert re.findall(r'^@\w+\{(\w+),', bibtex, re.M) == ['syn', 'ants', 'pytorch']
    assert html.count('data-copy="copy-') == 2


def test_sessions_in_order(tmp_path):
    for session in ('_ses-b', '_ses-a'):
        store(tmp_path, session=session)
    html = report(tmp_path)
    assert sections(html) == [
        *('ses-a-Summary', 'ses-a-Tumour', 'ses-a-Regions-touched'),
        *('ses-b-Summary', 'ses-b-Tumour', 'ses-b-Regions-touched'),
        *('Methods', 'About'),
    ]
    assert html.index('<p>summary _ses-a</p>') < html.index('<p>summary _ses-b</p>')
    assert html.count('N4 was run') == 1


def test_figures_of_older_versions_are_left_out(tmp_path):
    store(tmp_path, session='_ses-a')
    store(tmp_path, descs=['about', 'tumorT1w'])
    assert sections(report(tmp_path))[:3] == ['Summary', 'Tumour', 'Regions-touched']


@pytest.mark.parametrize('with_figures', [False, True])
def test_errors(tmp_path, with_figures):
    if with_figures:
        store(tmp_path, descs=['summary'])
    crash = tmp_path / 'crash-1.txt'
    crash.write_text(CRASH)
    html = report(tmp_path, errors=[crash])
    found = ['Summary'] if with_figures else []
    assert sections(html) == ['Errors', *found, 'Methods', 'About']
    assert '1 step failed' in html
    assert '<summary>tumorreg_wf.sub_01_wf.registration_wf.syn</summary>' in html
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in html
    assert '<script>alert' not in html
    assert 'fixed_image' not in html

    assert 'Errors' not in sections(report(tmp_path))  # a later run that went well


def test_a_failure_without_a_crash_file(tmp_path):
    """Nobody may take what an earlier run left for the result of the last."""
    store(tmp_path, descs=['summary'])
    html = report(tmp_path, failure=Failure('not finished, for <b>MultiProc</b> stopped early.'))
    assert sections(html) == ['Errors', 'Summary', 'Methods', 'About']
    assert 'not finished, for &lt;b&gt;MultiProc' in html and 'of an earlier run' in html
    assert 'role="alert">It failed: results are not complete' in html


def test_odd_crash_file(tmp_path):
    crash = tmp_path / 'crash-2.txt'
    crash.write_bytes(b'\xff killed')
    html = report(tmp_path, errors=[crash, crash])
    assert '2 steps failed' in html
    assert '<summary>crash-2.txt</summary>' in html
    assert 'killed' in html


def test_other_subjects_stay_out(tmp_path):
    store(tmp_path, descs=['summary'])
    other = tmp_path / 'sub-012' / 'figures'
    other.mkdir(parents=True)
    (other / 'sub-012_desc-summary_T1w.html').write_text('<p>someone else</p>')
    assert 'someone else' not in report(tmp_path)


@pytest.mark.parametrize(
    ('seconds', 'text'), [(4.24, '4.2 s'), (60, '1 min 00 s'), (3725, '62 min 05 s')]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_a_run_of_one_session_leaves_what_is_known_of_others(tmp_path):
    earlier = Record(
        'run-1',
        commands={'sub-01_ses-a': 'both', 'sub-01_ses-a_run-1': 'both', 'sub-01_ses-b': 'both'},
        methods={'sub-01_ses-a': 'N4.', 'sub-01_ses-a_run-1': 'By hand.', 'sub-01_ses-b': 'N4.'},
        files=['sub-01_ses-a_T1w.nii', 'sub-01_ses-a_run-1_T1w.nii', 'sub-01_ses-b_T1w.nii'],
    )
    for name in earlier.files:
        (tmp_path / name).write_text('whole')
    kept = earlier.without({'sub-01_ses-a'}, tmp_path)
    assert kept.files == ['sub-01_ses-a_run-1_T1w.nii', 'sub-01_ses-b_T1w.nii']
    assert set(kept.methods) == set(kept.commands) == {'sub-01_ses-a_run-1', 'sub-01_ses-b'}
    assert kept.text == 'sub-01_ses-a_run-1: By hand.\n\nsub-01_ses-b: N4.'
    assert not kept.finished
    # whose T1w is gone, with all outputs, is not missed
    (tmp_path / 'sub-01_ses-b_T1w.nii').unlink()
    assert set(earlier.without({'sub-01_ses-a'}, tmp_path).methods) == {'sub-01_ses-a_run-1'}


def test_commands_and_methods_of_all_t1w_are_there_once(tmp_path):
    store(tmp_path)
    record = Record(
        'run-1',
        commands={'sub-01_ses-a': 'first --line', 'sub-01_ses-b': 'second --line'},
        methods={'sub-01_ses-a': 'N4 was run.', 'sub-01_ses-b': 'N4 was run.'},
    )
    html = generate_report(tmp_path, '01', record).read_text(encoding='utf-8')
    assert html.count('first --line') == html.count('second --line') == 1
    assert html.count('N4 was run.') == 1


def test_methods_that_differ_say_of_which_t1w(tmp_path):
    record = Record('run-1', methods={'sub-01_ses-a': 'By hand.', 'sub-01_ses-b': 'By U-Net.'})
    assert record.text == 'sub-01_ses-a: By hand.\n\nsub-01_ses-b: By U-Net.'
