"""The word that stands for the code."""

import pytest

from tumorreg_wf import __version__, provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / 'data' / 'weights').mkdir(parents=True)
    (tmp_path / 'one.py').write_text('1\n')
    monkeypatch.setattr(provenance, 'PACKAGE', tmp_path)
    monkeypatch.setattr(provenance, '_version_of', {}.get)
    yield tmp_path
    provenance.fingerprint.cache_clear()


def fingerprint():
    provenance.fingerprint.cache_clear()
    return provenance.fingerprint()


def test_it_changes_with_the_system_s_own_ants(package, tmp_path, monkeypatch):
    """Which comes before that of antspyx; a node's inputs do not show it."""
    found = [fingerprint()]
    program = tmp_path / 'bin' / 'antsRegistration'
    program.parent.mkdir()
    monkeypatch.setenv('PATH', f'{program.parent}:/usr/bin:/bin')
    monkeypatch.setattr(provenance, 'PACKAGE', package / 'data')
    for version in ('2.3.1', '2.5.4'):
        program.write_text(f'#!/bin/sh\necho "ANTs Version: {version}"\n')
        program.chmod(0o755)
        assert provenance.native_ants() == f'{version}, {program}'
        found.append(fingerprint())
    assert len(set(found)) == 3


def test_it_changes_with_the_code_and_with_programs(package, monkeypatch):
    first = fingerprint()
    assert first.startswith(__version__.replace('.', '_'))
    for path in ('data/weights/a.safetensors', '__pycache__/one.pyc'):
        (package / path).parent.mkdir(exist_ok=True)
        (package / path).write_text('other')
    assert fingerprint() == first  # weights have a hash of their own
    (package / 'one.py').write_text('2\n')
    second = fingerprint()
    monkeypatch.setattr(provenance, '_version_of', {'torch': '9'}.get)
    assert len({first, second, fingerprint()}) == 3
