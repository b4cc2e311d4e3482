"""What all interfaces share: they are listed, and say what goes in and out."""

import importlib
import inspect
import pkgutil
import re

import pytest
from nipype.interfaces.base import BaseInterface, TraitedSpec

from tumorreg_wf import interfaces


def find_classes(kind):
    """Return our public classes of a kind, by module and name."""
    modules = [
        importlib.import_module(f'{interfaces.__name__}.{module.name}')
        for module in pkgutil.iter_modules(interfaces.__path__)
    ]
    return {
        f'{module.__name__}.{name}': value
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, kind) and value.__module__ == module.__name__
    }


INTERFACES = {
    name: value for name, value in find_classes(BaseInterface).items() if '._' not in name
}
SPECS = find_classes(TraitedSpec)


def test_the_package_lists_its_interfaces():
    listed = re.findall(r':class:`~([\w.]+)`', interfaces.__doc__)
    # what all command lines share is no interface by itself
    assert set(listed) == set(INTERFACES) - {'tumorreg_wf.interfaces.commands.CheckedCommand'}
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize('name', INTERFACES)
def test_an_interface_is_documented(name):
    assert INTERFACES[name].__doc__.strip()


@pytest.mark.parametrize('name', SPECS)
def test_every_field_is_described(name):
    spec = SPECS[name]
    own = set(spec.class_traits()) - set(spec.__mro__[1].class_traits())
    assert {field for field in own if not spec.class_traits()[field].desc} == set()
