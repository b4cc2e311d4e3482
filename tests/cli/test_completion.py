"""The completion files docs/commands.md tells to make complete, in bash."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest
import shtab

PAGE = Path(__file__).parents[2] / 'docs' / 'commands.md'
COMMANDS = re.findall(r'--prefix (\w+) ([\w.]+) > \$folder/([\w-]+)', PAGE.read_text())


@pytest.mark.parametrize(
    ('command', 'words', 'completed'),
    [
        ('tumorreg', ['in', 'out', ''], {'participant', 'group'}),
        (
            'tumorreg',
            ['in', 'out', 'participant', '--skull-strip-t1w', ''],
            {'auto', 'skip', 'force'},
        ),
        ('tumorreg', ['--tumor-d'], {'--tumor-dilation'}),
        ('tumorreg-train', [''], {'segmentation', 'inpainting'}),
        ('tumorreg-evaluate', [''], {'segmentation', 'inpainting'}),
    ],
)
def test_words_are_completed(command, words, completed, tmp_path):
    ((prefix, place),) = [(prefix, place) for prefix, place, name in COMMANDS if name == command]
    module, _, function = place.rpartition('.')
    parser = getattr(importlib.import_module(module), function)()
    parser.prog = command
    script = tmp_path / command
    script.write_text(shtab.complete(parser, 'bash', root_prefix=prefix))
    asked = ' '.join(f"'{word}'" for word in [command, *words])
    program = (
        f'source {script}; COMP_WORDS=({asked}); COMP_CWORD={len(words)}; '
        f'_shtab_{prefix} 2>/dev/null; echo "${{COMPREPLY[@]}}"'
    )
    said = subprocess.check_output(['bash', '-c', program], text=True)
    assert completed <= set(said.split())


def test_every_command_has_one():
    names = ('', '-train', '-evaluate', '-simulate')
    assert {name for _, _, name in COMMANDS} == {f'tumorreg{name}' for name in names}
