"""What a user installs: version, data files, commands, and an import that does nothing else."""

import ast
import configparser
import re
import subprocess
import sys
import zlib
from importlib.metadata import entry_points, packages_distributions, requires, version
from pathlib import Path

import pytest

import tumorreg_wf

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'tumorreg_wf'
COMMANDS = {'tumorreg', 'tumorreg-evaluate', 'tumorreg-simulate', 'tumorreg-train'}


def data_patterns() -> list[str]:
    """Return the package_data patterns of setup.cfg, relative to the package."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    return setup['options.package_data']['tumorreg_wf'].split()


def installed_commands():
    """Return the console scripts that point into this package."""
    scripts = entry_points(group='console_scripts')
    return {script.name: script for script in scripts if script.value.startswith('tumorreg_wf.')}


def imported_modules() -> set[str]:
    """Return the top-level names of all third-party modules the package imports."""
    names = set()
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split('.')[0])
    return names - set(sys.stdlib_module_names) - {'tumorreg_wf'}


def test_version_is_the_one_installed():
    assert version('tumorreg') == tumorreg_wf.__version__


def test_every_data_file_is_packaged():
    files = {
        path
        for path in PACKAGE.rglob('*')
        if path.is_file() and path.suffix != '.py' and '__pycache__' not in path.parts
    }
    packaged = {path for pattern in data_patterns() for path in PACKAGE.glob(pattern)}
    assert files - packaged == set()


@pytest.mark.parametrize('pattern', data_patterns())
def test_every_data_pattern_is_used(pattern):
    assert any(PACKAGE.glob(pattern))


def test_every_folder_of_modules_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob('*.py')}
    assert {folder for folder in folders if not (folder / '__init__.py').is_file()} == set()


def test_every_import_is_a_declared_requirement():
    declared = {re.match(r'[\w.-]+', line)[0].lower() for line in requires('tumorreg')}
    providers = packages_distributions()
    undeclared = {
        module
        for module in imported_modules()
        # a module compiled as a whole is nowhere listed; it has the name of its distribution
        if declared.isdisjoint(name.lower() for name in providers.get(module, [module]))
    }
    assert undeclared == set()


def test_the_commands_are_installed():
    assert set(installed_commands()) == COMMANDS


@pytest.mark.parametrize('command', sorted(COMMANDS))
def test_a_command_resolves(command):
    assert callable(installed_commands()[command].load())


def test_import_loads_nothing_heavy():
    program = 'import sys, tumorreg_wf; print(*sys.modules)'
    loaded = subprocess.check_output([sys.executable, '-c', program], text=True).split()
    assert 'tumorreg_wf' in loaded
    assert {'torch', 'nipype', 'bids', 'nibabel', 'numpy'}.isdisjoint(loaded)


def test_citation_and_image_name_this_version():
    assert f'\nversion: {tumorreg_wf.__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    label = f'org.opencontainers.image.version="{tumorreg_wf.__version__}"'
    assert label in (ROOT / 'Dockerfile').read_text()


def test_weights_fit_into_40_mb_of_a_wheel():
    paths = (PACKAGE / 'data' / 'weights').glob('*.safetensors')
    assert 0 < sum(len(zlib.compress(path.read_bytes())) for path in paths) <= 40e6
