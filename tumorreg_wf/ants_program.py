"""Run one of ANTs' programs from the library inside antspyx.

``python -m tumorreg_wf.ants_program antsRegistration --help`` behaves like the program of
that name, so that stock Nipype nodes work from a pip install alone.
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType


def load_library() -> ModuleType:
    """Load antspyx's compiled ANTs without the package around it, which takes seconds."""
    package = find_spec('ants')
    if package is None or package.origin is None:
        raise ImportError('antspyx is not installed')
    library = next(Path(package.origin).parent.glob('lib.*'))
    loader = ExtensionFileLoader('ants.lib', str(library))
    module = module_from_spec(ModuleSpec('ants.lib', loader, origin=str(library)))
    loader.exec_module(module)
    return module


def main(argv: list[str] | None = None) -> int:
    """Run the program named first with the arguments that follow; its exit code comes back."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print('usage: python -m tumorreg_wf.ants_program PROGRAM [ARGUMENTS]', file=sys.stderr)
        return 2
    name, *arguments = argv
    if arguments == ['--version']:
        print(f'ANTs Version: embedded-in-antspyx-{version("antspyx")}')
        return 0
    program = getattr(load_library(), name, None) if name[:1].isalpha() else None
    if program is None:
        print(
            f'antspyx has no program {name} of ANTs. Where ANTs is installed and on PATH, its own '
            'is taken.',
            file=sys.stderr,
        )
        return 2
    return program(arguments)


if __name__ == '__main__':
    sys.exit(main())
