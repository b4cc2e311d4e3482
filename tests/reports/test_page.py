"""The pages: what is in them, what is not, and what a browser makes of them."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tumorreg_wf.interfaces import figures
from tumorreg_wf.interfaces.fragments import html_table, summary_html
from tumorreg_wf.reports import Record, generate_report
from tumorreg_wf.reports.page import Part, Section, render_page

BROWSERS = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')]
CHROMIUM = next(filter(None, BROWSERS), None)


class Page(HTMLParser):
    """What a test asks of a page."""

    VOID = frozenset({'meta', 'input', 'br', 'img', 'link', 'hr'})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


def draw(*names):
    """Draw a figure of noise, with as many layers as names."""
    rng = np.random.default_rng(0)
    brain = np.ones((12, 14, 10), bool)
    mosaic = figures.Mosaic(brain, np.eye(4), n_slices=1)
    layers = [
        figures.Layer(name, mosaic.raster(rng.integers(0, 255, brain.shape, np.uint8)))
        for name in names
    ]
    outline = mosaic.contour(np.pad(np.ones((4, 4, 4), bool), ((4, 4), (5, 5), (3, 3))), '#f00')
    return figures.compose(mosaic, 'A <figure>', layers, [outline], [('#f00', 'tumour')])


@pytest.fixture
def page(tmp_path):
    """Write the report of a patient."""
    folder = tmp_path / 'sub-01' / 'figures'
    folder.mkdir(parents=True)
    tumor = {'volume_mm3': '0', 'hemisphere': 'n/a', 'midline_crossing': 'False'}
    quality = dict.fromkeys(('similarity', 'fold_fraction', 'hole_share', 'seam_contrast'), '0')
    for desc, content in {
        'summary': summary_html(tumor, [], quality, user_mask='/a/mask.nii.gz', notes=['A note']),
        'recovery': draw('before', 'after'),
        'tumor': draw('T1w'),
        'registration': draw('patient', 'template', 'edges'),
        'provenance': html_table([('T1w', 'a'), ('FLAIR', 'b')]),
    }.items():
        ending = 'svg' if content.startswith('<svg') else 'html'
        (folder / f'sub-01_desc-{desc}_T1w.{ending}').write_text(content)
    return generate_report(
        tmp_path,
        '01',
        Record(
            run='run-1',
            commands={'sub-01': 'tumorreg'},
            timings={'SyN': 1},
            methods={'sub-01': 'Tumour by a U-Net [@unet], warped by SyN [@syn].'},
        ),
    )


def test_page_is_sound(page):
    html = page.read_text(encoding='utf-8')
    found = Page(html)
    assert found.all('html') == [{'lang': 'en'}]
    assert len(found.all('title', 'h1', 'main', 'nav')) == 4
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r'h\d', tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = [attrs['id'] for _, attrs in found.tags if 'id' in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs['href'][1:] for attrs in found.all('a')} <= set(ids)
    assert {attrs['for'] for attrs in found.all('label')} == {
        attrs['id'] for attrs in found.all('input')
    }
    text = re.sub('<pre.*?</pre>', '', html, flags=re.DOTALL)
    assert not re.search(r'\{\{|\{%|%\}|Undefined|None', text)


def test_every_figure_is_inside_and_has_words(page):
    found = Page(page.read_text(encoding='utf-8'))
    pictures = found.all('svg', 'img')
    assert len(pictures) == 3
    for attrs in pictures:
        assert attrs.get('role') == 'img'
        assert attrs['aria-label'].startswith('A <figure>. Slices at z = ')
    assert len(found.all('image')) == 2 + 1 + 3
    for attrs in found.all('image'):
        kind, _, data = attrs['href'].partition(';base64,')
        assert kind == 'data:image/jpeg'
        Image.open(io.BytesIO(base64.b64decode(data))).load()


def test_nothing_comes_from_elsewhere(page):
    found = Page(page.read_text(encoding='utf-8'))
    policy = next(attrs['content'] for attrs in found.all('meta') if 'http-equiv' in attrs)
    assert policy.startswith("default-src 'none'")
    assert not found.all('link', 'iframe', 'object', 'embed')
    for tag, attrs in found.tags:
        for name in ('src', 'href', 'data', 'srcset', 'xlink:href'):
            assert attrs.get(name, '#').startswith(('#', 'data:')), (tag, attrs)
    assert not re.search(r'url\(|@import', page.read_text(encoding='utf-8'))


def test_choices(page):
    html = page.read_text(encoding='utf-8')
    kinds = [attrs['class'] for attrs in Page(html).all('input')]
    assert kinds == [
        *('show0', 'show1', 'flicker', 'outlined'),  # before, after
        'outlined',  # a single layer
        *('show0', 'show1', 'show2', 'outlined'),
    ]
    checked = [attrs['class'] for attrs in Page(html).all('input') if 'checked' in attrs]
    assert checked == ['show1', 'outlined', 'outlined', 'show2', 'outlined']


def test_titles_are_escaped(tmp_path):
    part = Part('<p>kept</p>', '<title>', '<text>')
    html = render_page(tmp_path / 'a.html', '<page>', [Section('a <b> c', [part])]).read_text()
    for text in ('&lt;title&gt;', '&lt;text&gt;', '&lt;page&gt;', 'a &lt;b&gt; c', '<p>kept</p>'):
        assert text in html
    assert '<section id="a-b-c">' in html


CHECKS = """<script>
addEventListener('load', async () => {
  const load = element => new Promise(done => {
    const picture = new Image();
    picture.onload = picture.onerror = event => done(event.type);
    picture.src = element.getAttribute('href');
  });
  const loaded = await Promise.all([...document.querySelectorAll('image')].map(load));
  const wide = document.documentElement.scrollWidth > innerWidth;
  const hidden = [], figure = document.querySelector('.figure');
  const look = what => [...figure.querySelectorAll(what)].map(e => getComputedStyle(e).visibility);
  for (const kind of ['show0', 'show1', 'outlined']) {
    figure.querySelector('.' + kind).click();
    hidden.push([look('.layer0'), look('.layer1'), look('.outlines')].flat());
  }
  figure.querySelector('.flicker').click();
  const moves = getComputedStyle(figure.querySelector('.layer1')).animationName;
  const copied = [...document.querySelectorAll('button[data-copy]')].map(button => {
    button.click();
    return [!button.hidden, getSelection().toString().trim().split('\\n')[0]];
  });
  console.error('a sign that errors are seen');
  document.body.dataset.result = JSON.stringify({ loaded, wide, hidden, moves, copied });
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')
def test_in_a_browser(page, tmp_path):
    html = page.read_text(encoding='utf-8')
    page.write_text(html.replace('</body>', f'{CHECKS}</body>'), encoding='utf-8')
    command = [
        *(CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr'),
        *(f'--user-data-dir={tmp_path / "chromium"}', '--virtual-time-budget=10000'),
        '--window-size=390,844',  # a phone
        *('--dump-dom', page.as_uri()),
    ]
    environment = {**os.environ, 'HOME': str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    result = json.loads(re.findall('data-result="([^"]*)"', done.stdout)[0].replace('&quot;', '"'))
    assert result['loaded'] == ['load'] * 6
    assert not result['wide']
    assert result['hidden'] == [
        ['visible', 'hidden', 'visible'],
        ['visible', 'visible', 'visible'],
        ['visible', 'visible', 'hidden'],
    ]
    assert result['moves'] == 'flicker'
    assert [shown for shown, _ in result['copied']] == [True, True]
    assert result['copied'][0][1].startswith('Tumour by a U-Net [@unet]')
    assert result['copied'][1][1] == '@inproceedings{unet,'
    said = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
    assert len(said) == 1 and 'a sign that errors are seen' in said[0]
