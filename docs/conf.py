"""Settings of the documentation; `make docs` builds it."""

import contextlib
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import graphs  # noqa: E402

from tumorreg_wf import __version__  # noqa: E402
from tumorreg_wf.cli import evaluate, parser, simulate, train_parser  # noqa: E402
from tumorreg_wf.template import Template  # noqa: E402
from tumorreg_wf.weights import TASKS, find_weights  # noqa: E402

project = 'tumorreg'
author = 'The tumorreg developers'
project_copyright = author
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'nipype.sphinxext.apidoc']
exclude_patterns = ['_build']
myst_heading_anchors = 3
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
napoleon_use_ivar = True
napoleon_use_param = False
napoleon_custom_sections = [
    (section, 'Parameters')
    for section in ('Inputs', 'Mandatory Inputs', 'Optional Inputs', 'Outputs')
]
# names of our own in docstrings must exist; those of others are not looked up
nitpicky = True
nitpick_ignore_regex = [('py:.*', r'(?!tumorreg_wf\.).*')]

html_theme = 'furo'
html_title = f'tumorreg {__version__}'
html_show_copyright = False
html_copy_source = False

# made at build time, from the code
MADE = HERE / '_made'
COMMANDS = {
    'tumorreg': parser.get_parser,
    'tumorreg-train': train_parser.get_parser,
    'tumorreg-evaluate': evaluate.get_parser,
    'tumorreg-simulate': simulate.get_parser,
}
FILE = __file__  # workflows want files that exist; none is read
TEMPLATE = Template('TPL', FILE, FILE, (FILE,) * 3, 'A', FILE, FILE)
ARGUMENTS = {
    'init_atlas_wf': {'template': TEMPLATE},
    'init_reportlets_wf': {
        'out_dir': '/out',
        'template': TEMPLATE,
        'weights': {task: find_weights(task) for task in TASKS},
    },
}


def write_help(app):
    """Write what each command says to --help."""
    MADE.mkdir(exist_ok=True)
    for name, get_parser in COMMANDS.items():
        get = get_parser()
        get.prog = name
        with contextlib.redirect_stdout(io.StringIO()) as said:
            get.print_help()
        (MADE / f'{name}.txt').write_text(said.getvalue(), encoding='utf-8')


def draw_run(app):
    """Draw the stages of one patient, without the sinks that all of them lead to."""
    from tumorreg_wf.bids import Anatomy
    from tumorreg_wf.settings import Settings
    from tumorreg_wf.weights import TASKS, find_weights
    from tumorreg_wf.workflows.base import init_anatomy_wf

    anatomy = Anatomy('01', None, Path(FILE), Path(FILE))
    weights = {task: find_weights(task) for task in TASKS}
    workflow = init_anatomy_wf(Settings(HERE, HERE, HERE), anatomy, TEMPLATE, weights)
    sinks = ('derivatives_wf', 'reportlets_wf')
    drawing = graphs.draw_workflow(workflow, leave_out=sinks)
    (MADE / 'run.svg').write_text(drawing, encoding='utf-8')


def describe_fields(app, what, name, obj, options, lines):
    """Turn our 'field : what it is' into numpydoc's 'field', and what it is on the next line."""
    for number, line in reversed(list(enumerate(lines))):
        found = re.fullmatch(r'(\w+(?:, \w+)*) : (.+)', line)
        if found:
            lines[number : number + 1] = [found[1], f'    {found[2]}']


def mend_interface(app, what, name, obj, options, lines):
    """Take this machine's Python out of commands, and fields without a description apart."""
    for number in reversed(range(len(lines))):
        lines[number] = lines[number].replace(shlex.quote(sys.executable), 'python')
        after = lines[number + 1] if number + 1 < len(lines) else ''
        if re.match(r'\w+ : ', lines[number]) and not after.startswith(' '):
            lines.insert(number + 1, '    As in the class it is based on.')


def add_graph(app, what, name, factory, options, lines):
    """Put the graph of its workflow below the docstring of a factory."""
    short = name.rpartition('.')[2]
    if what != 'function' or not re.fullmatch('init_.*_wf', short):
        return
    required = {
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
    }
    if required <= set(ARGUMENTS.get(short, {})):
        drawing = graphs.draw_workflow(factory(**ARGUMENTS.get(short, {})))
        (MADE / f'{short}.svg').write_text(drawing, encoding='utf-8')
        lines += ['', f'.. image:: /_made/{short}.svg', f'   :alt: Nodes of {short}', '']


def setup(app):
    """Connect what is made at build time."""
    app.connect('builder-inited', write_help)
    app.connect('builder-inited', draw_run)
    app.connect('autodoc-process-docstring', describe_fields, priority=400)
    app.connect('autodoc-process-docstring', mend_interface, priority=600)
    app.connect('autodoc-process-docstring', add_graph, priority=700)
