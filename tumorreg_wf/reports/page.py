"""A page that needs no other file: what the report of a patient and of the group share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import count
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from tumorreg_wf.files import write_text


@dataclass(frozen=True)
class Part:
    """A figure or a text of a section.

    Attributes
    ----------
    content : SVG file of :func:`tumorreg_wf.interfaces.figures.compose`, or HTML fragment.
    title, text : plain text above it.
    """

    content: str
    title: str = ''
    text: str = ''


@dataclass(frozen=True)
class Section:
    """A section of a page; ``name`` is its heading, and unique."""

    name: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """What links point at."""
        return re.sub(r'\W+', '-', self.name).strip('-')


def render_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write a page; give its path. It needs no other file, no network and no script to be read."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    numbers = count(1)
    environment.filters['show'] = lambda part: show(part.content, next(numbers))
    source = (files('tumorreg_wf') / 'data' / 'report.tpl').read_text(encoding='utf-8')
    page = environment.from_string(source).render(title=title, sections=sections)
    write_text(path, page)
    return path


def show(content: str, number: int) -> str:
    """Put a figure into the page, with a choice of its layers; any other content as it is.

    Parameters
    ----------
    content : of a part.
    number : of the part, unique in the page.
    """
    if not content.startswith('<svg'):
        return content
    names = re.findall(r'<g class="layer\d" data-name="([^"]*)">', content)
    choices = [(f'show{index}', name) for index, name in enumerate(names)]
    controls = []
    if len(names) > 1:
        if len(names) == 2:
            choices.append(('flicker', 'flicker'))
        for kind, name in choices:
            checked = ' checked' if kind == f'show{len(names) - 1}' else ''
            controls.append(
                f'<input type="radio" class="{kind}" name="layer{number}" '
                f'id="{kind}-{number}"{checked}><label for="{kind}-{number}">{name}</label>'
            )
    if '<g class="outlines"><path' in content:
        controls.append(
            f'<input type="checkbox" class="outlined" id="outlined-{number}" checked>'
            f'<label for="outlined-{number}">outlines</label>'
        )
    # the picture is wider than a phone: it can be moved sideways, by keys as well
    return (
        f'<div class="figure">{"".join(controls)}<div class="picture" tabindex="0" role="group" '
        f'aria-label="Figure">{content}</div>'
        '<p class="sideways"><small>Move the picture sideways to see all of it.</small></p></div>'
    )


def copyable(text: str, name: str) -> str:
    """Show a text as it is, with a button that copies it."""
    return (
        f'<button type="button" data-copy="copy-{name}" hidden>Copy {escape(name)}</button>'
        f'<pre id="copy-{name}" tabindex="0">{escape(text)}</pre>'
    )
