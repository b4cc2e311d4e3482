"""Where derivatives go and how they are called."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import cast

import nibabel as nb
from nipype.interfaces.base import File, isdefined

from tumorreg_wf.files import check_whole, write_aside
from tumorreg_wf.images import reorient_like

# niworkflows lists all TemplateFlow templates when it is imported: seconds of indexing, and a
# cache folder in HOME. A home with nothing in it spares both.
_imported = 'templateflow' in sys.modules
_user_home = os.environ.get('TEMPLATEFLOW_HOME')
with tempfile.TemporaryDirectory() as _no_templates:
    Path(_no_templates, 'tpl-none').mkdir()
    os.environ['TEMPLATEFLOW_HOME'] = _no_templates
    try:
        import templateflow
        from niworkflows.interfaces import bids as _niworkflows
    finally:
        del os.environ['TEMPLATEFLOW_HOME']
        if _user_home is not None:
            os.environ['TEMPLATEFLOW_HOME'] = _user_home


class _Templates:
    """Names of TemplateFlow's templates, listed when somebody asks."""

    def __contains__(self, name: object) -> bool:
        return name in templateflow.api.templates()


# the rest of the process, a pipeline around this one, finds the user's templates
if not _imported:
    templateflow.conf._cache.config = type(templateflow.conf._cache.config)()
    templateflow.conf._cache.__post_init__()
    templateflow.conf._cache.__dict__.pop('layout', None)
    for _sink in (_niworkflows.DerivativesDataSink, _niworkflows.PrepareDerivative):
        _sink._standard_spaces = _Templates()

_spec = json.loads((files('tumorreg_wf') / 'data' / 'io_spec.json').read_text())


class _DerivativesDataSinkInputSpec(_niworkflows.DerivativesDataSink.input_spec):
    grid = File(desc='image whose grid in_file is on; axes are stored in the same order')


class DerivativesDataSink(_niworkflows.DerivativesDataSink):
    """Store a file under its BIDS name; the patterns are in ``data/io_spec.json``.

    Entities of the source T1w (subject, session, acquisition, run...) are kept. Masks are written
    as uint8, segmentations as int16, probabilities and T1w as float32. The header's codes and
    units are completed; stored voxel values of the right type are copied as they are. Each file is
    read to its end before it gets its name, so that no reader ever sees a part of one.
    """

    input_spec = _DerivativesDataSinkInputSpec
    out_path_base = ''
    _config_entities = frozenset(entity['name'] for entity in _spec['entities'])
    _config_entities_dict = _spec['entities']
    _file_patterns = tuple(_spec['default_path_patterns'])
    _default_dtypes = _niworkflows.DerivativesDataSink._default_dtypes | {'T1w': 'float32'}
    # spaces that NIfTI has a code for (MNI); any other space is 'aligned to another image'
    _standard_spaces = frozenset(
        {
            'MNI152NLin2009aSym',
            'MNI152NLin2009cSym',
            'MNI152NLin2009cAsym',
            'MNI152NLin6Asym',
        }
    )

    def _run_interface(self, runtime):
        out_dir = Path(runtime.cwd)
        if isdefined(self.inputs.base_directory):
            out_dir = Path(self.inputs.base_directory).absolute()
        given = self.inputs.base_directory, self.inputs.in_file
        with tempfile.TemporaryDirectory(prefix='stored-', dir=runtime.cwd) as stored:
            self.inputs.base_directory = stored
            if isdefined(self.inputs.grid):
                self.inputs.in_file = [
                    self._on_grid(path, Path(runtime.cwd) / f'turned{number}')
                    for number, path in enumerate(self.inputs.in_file)
                ]
            try:
                runtime = super()._run_interface(runtime)
            finally:
                self.inputs.base_directory, self.inputs.in_file = given
            for source in sorted(path for path in Path(stored).rglob('*') if path.is_file()):
                check_whole(source)
                target = out_dir / source.relative_to(stored)
                target.parent.mkdir(parents=True, exist_ok=True)
                with write_aside(target) as part:
                    shutil.copyfile(source, part)
        for name in ('out_file', 'out_meta'):
            if name in self._results:
                self._results[name] = _moved(self._results[name], stored, out_dir)
        return runtime

    def _on_grid(self, path: str, folder: Path) -> str:
        """Write an image with its axes in the order of the grid's."""
        image = nb.Nifti1Image.from_filename(path)
        grid = cast('nb.spatialimages.SpatialImage', nb.load(self.inputs.grid))
        turned = reorient_like(image, grid)
        if turned is image:
            return path
        folder.mkdir(exist_ok=True)
        out_file = folder / Path(path).name
        turned.to_filename(out_file)
        return str(out_file)


def _moved(paths, old: str, new: Path):
    """Name files, one or a list, by the folder they have come to."""
    if isinstance(paths, list):
        return [_moved(path, old, new) for path in paths]
    return str(new / Path(paths).relative_to(old))
