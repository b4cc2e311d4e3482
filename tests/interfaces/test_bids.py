"""Every derivative gets the name, the type and the values it should."""

import errno
import os
import subprocess
import sys

import h5py
import nibabel as nb
import numpy as np
import pytest

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.bids import DerivativesDataSink

TPL = 'MNI152NLin2009aSym'

# the table of outputs: entities, extension of the file stored, name that comes out
TABLE = [
    ({'desc': 'preproc', 'suffix': 'T1w'}, 'nii.gz', 'desc-preproc_T1w'),
    ({'desc': 'brain', 'suffix': 'mask'}, 'nii.gz', 'desc-brain_mask'),
    ({'label': 'tumor', 'suffix': 'probseg'}, 'nii.gz', 'label-tumor_probseg'),
    ({'label': 'tumor', 'suffix': 'mask'}, 'nii.gz', 'label-tumor_mask'),
    (
        {'label': 'tumor', 'desc': 'dilated', 'suffix': 'mask'},
        'nii.gz',
        'label-tumor_desc-dilated_mask',
    ),
    ({'desc': 'inpainted', 'suffix': 'T1w'}, 'nii.gz', 'desc-inpainted_T1w'),
    (
        {'from': TPL, 'to': 'T1w', 'mode': 'image', 'suffix': 'xfm'},
        'h5',
        f'from-{TPL}_to-T1w_mode-image_xfm',
    ),
    (
        {'from': 'T1w', 'to': TPL, 'mode': 'image', 'suffix': 'xfm'},
        'h5',
        f'from-T1w_to-{TPL}_mode-image_xfm',
    ),
    ({'suffix': 'dseg'}, 'nii.gz', 'dseg'),
    ({'suffix': 'dseg'}, 'tsv', 'dseg'),
    ({'label': 'GM', 'suffix': 'probseg'}, 'nii.gz', 'label-GM_probseg'),
    ({'label': 'WM', 'suffix': 'probseg'}, 'nii.gz', 'label-WM_probseg'),
    ({'label': 'CSF', 'suffix': 'probseg'}, 'nii.gz', 'label-CSF_probseg'),
    ({'desc': 'inpainted', 'suffix': 'dseg'}, 'nii.gz', 'desc-inpainted_dseg'),
    ({'atlas': 'Juelich', 'suffix': 'dseg'}, 'nii.gz', 'atlas-Juelich_dseg'),
    ({'atlas': 'Juelich', 'suffix': 'dseg'}, 'tsv', 'atlas-Juelich_dseg'),
    (
        {'atlas': 'Juelich', 'desc': 'tumor', 'suffix': 'morph'},
        'tsv',
        'atlas-Juelich_desc-tumor_morph',
    ),
    ({'desc': 'tumor', 'suffix': 'morph'}, 'tsv', 'desc-tumor_morph'),
    (
        {'space': TPL, 'desc': 'preproc', 'suffix': 'T1w'},
        'nii.gz',
        f'space-{TPL}_desc-preproc_T1w',
    ),
    (
        {'space': TPL, 'label': 'tumor', 'suffix': 'mask'},
        'nii.gz',
        f'space-{TPL}_label-tumor_mask',
    ),
    (
        {'space': TPL, 'resolution': '2', 'desc': 'preproc', 'suffix': 'T1w'},
        'nii.gz',
        f'space-{TPL}_res-2_desc-preproc_T1w',
    ),
]
SOURCES = ['sub-01/anat/sub-01', 'sub-01/ses-pre/anat/sub-01_ses-pre_acq-iso_run-02']


def store(tmp_path, source, in_file, **entities):
    sink = DerivativesDataSink(base_directory=str(tmp_path / 'out'), **entities)
    sink.inputs.in_file = in_file if isinstance(in_file, list) else str(in_file)
    sink.inputs.source_file = str(tmp_path / 'raw' / f'{source}_T1w.nii.gz')
    return sink.run(cwd=str(tmp_path)).outputs


def save(path, data, affine=None):
    nb.Nifti1Image(data, np.eye(4) if affine is None else affine).to_filename(path)
    return path


@pytest.mark.parametrize('source', SOURCES)
@pytest.mark.parametrize(('entities', 'extension', 'name'), TABLE)
def test_names(tmp_path, source, entities, extension, name):
    in_file = tmp_path / f'file.{extension}'
    if extension == 'nii.gz':
        save(in_file, np.ones((2, 3, 4), np.float32))
    elif extension == 'h5':
        h5py.File(in_file, 'w').close()
    else:
        in_file.write_bytes(b'index\tname\n')
    out_file = store(tmp_path, source, in_file, **entities).out_file
    assert out_file == str(tmp_path / 'out' / f'{source}_{name}.{extension}')


@pytest.mark.parametrize(
    ('source', 'prefix'), [(SOURCES[0], 'sub-01'), (SOURCES[1], 'sub-01_ses-pre_acq-iso_run-02')]
)
@pytest.mark.parametrize('extension', ['svg', 'html'])
def test_figures(tmp_path, source, prefix, extension):
    in_file = tmp_path / f'file.{extension}'
    in_file.write_text('<svg></svg>')
    out_file = store(
        tmp_path, source, in_file, datatype='figures', desc='recovery', suffix='T1w'
    ).out_file
    assert out_file == str(
        tmp_path / 'out' / 'sub-01' / 'figures' / f'{prefix}_desc-recovery_T1w.{extension}'
    )


def test_values_of_float_images_are_kept(tmp_path):
    data = np.random.default_rng(0).normal(1e3, 1e3, (4, 5, 6)).astype(np.float32)
    affine = nb.affines.from_matvec(np.diag([-1, -1, 2.5]), [3, 4, 5])
    in_file = save(tmp_path / 'file.nii.gz', data, affine)  # its header has no units and codes
    outputs = store(tmp_path, SOURCES[0], in_file, desc='preproc', suffix='T1w')
    image = nb.load(outputs.out_file)
    assert outputs.fixed_hdr == [True]
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asanyarray(image.dataobj), data)
    assert np.array_equal(image.affine, affine)
    assert (int(image.header['qform_code']), image.header.get_xyzt_units()[0]) == (1, 'mm')


@pytest.mark.parametrize('axes', ['RAS', 'LPS', 'PIR', 'SLA'])
def test_axes_are_stored_in_the_order_of_the_grid(tmp_path, axes):
    rng = np.random.default_rng(0)
    turn = nb.eulerangles.euler2mat(0.2, -0.1, 0.3) * [0.9, 1.1, 2.7]
    ras = nb.Nifti1Image(
        rng.normal(0, 1, (4, 5, 6)).astype(np.float32),
        nb.affines.from_matvec(turn, rng.uniform(-90, 90, 3)),
    )
    given = ras.as_reoriented(nb.orientations.axcodes2ornt(axes))
    given.to_filename(tmp_path / 'given.nii.gz')
    nb.as_closest_canonical(given).to_filename(tmp_path / 'file.nii.gz')
    found = store(
        tmp_path, SOURCES[0], tmp_path / 'file.nii.gz', grid=str(tmp_path / 'given.nii.gz'),
        desc='preproc', suffix='T1w',
    )  # fmt: skip
    image, given = nb.load(found.out_file), nb.load(tmp_path / 'given.nii.gz')
    assert np.array_equal(image.affine, given.affine)
    assert np.array_equal(np.asanyarray(image.dataobj), np.asanyarray(given.dataobj))


@pytest.mark.parametrize(
    ('suffix', 'entities', 'dtype'),
    [
        ('mask', {'label': 'tumor'}, np.uint8),
        ('dseg', {}, np.int16),
        ('probseg', {'label': 'GM'}, np.float32),
        ('T1w', {'desc': 'preproc'}, np.float32),
    ],
)
def test_types(tmp_path, suffix, entities, dtype):
    data = (np.arange(24).reshape(2, 3, 4) % 2).astype(np.float64)
    in_file = save(tmp_path / 'file.nii.gz', data)
    image = nb.load(store(tmp_path, SOURCES[0], in_file, suffix=suffix, **entities).out_file)
    assert image.get_data_dtype() == dtype
    assert np.array_equal(image.get_fdata(), data)


def test_sidecar_of_a_table(tmp_path):
    in_file = tmp_path / 'table.tsv'
    in_file.write_text('volume_mm3\n8\n')
    meta = {'volume_mm3': {'Units': 'mm^3'}}
    outputs = store(tmp_path, SOURCES[0], in_file, desc='tumor', suffix='morph', meta_dict=meta)
    assert outputs.out_meta.endswith('sub-01_desc-tumor_morph.json')


@pytest.mark.parametrize('home', [None, '/proc/no/such/home'])
def test_import_leaves_home_alone(tmp_path, home):
    environment = {k: v for k, v in os.environ.items() if k not in ('HOME', 'TEMPLATEFLOW_HOME')}
    environment |= {'HOME': home} if home else {}
    code = 'import os, tumorreg_wf.interfaces.bids; assert "TEMPLATEFLOW_HOME" not in os.environ'
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=60)


def test_the_users_templates_are_found_by_others_in_the_process(tmp_path):
    """A pipeline around this one may import it before it asks for templates."""
    (tmp_path / 'tpl-Mine').mkdir()
    (tmp_path / 'tpl-Mine' / 'tpl-Mine_res-01_T1w.nii.gz').write_bytes(b'fetched')
    code = (
        'import tumorreg_wf.interfaces.bids, templateflow.api as tf\n'
        'assert tf.templates() == ["Mine"], tf.templates()\n'
        'assert tf.get("Mine", suffix="T1w").name == "tpl-Mine_res-01_T1w.nii.gz"\n'
        'from niworkflows.interfaces.bids import DerivativesDataSink\n'
        'assert "Mine" in DerivativesDataSink._standard_spaces\n'
    )
    environment = os.environ | {'TEMPLATEFLOW_HOME': str(tmp_path)}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=60)


def test_files_of_one_name_stay_apart_on_a_grid(tmp_path):
    grid = nb.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.diag([-2.0, 2, 2, 1]))
    grid.to_filename(tmp_path / 'grid.nii.gz')
    in_files = []
    for value in (1, 2):
        (tmp_path / str(value)).mkdir()
        affine = nb.affines.from_matvec(2 * np.eye(3), [-6, 0, 0])
        image = nb.Nifti1Image(np.full((4, 5, 6), value, np.float32), affine)
        in_files.append(str(tmp_path / str(value) / 'map.nii.gz'))
        image.to_filename(in_files[-1])
    outputs = store(
        tmp_path, SOURCES[0], in_files, grid=str(tmp_path / 'grid.nii.gz'), desc='preproc',
        suffix='T1w', label=['GM', 'WM'],
    )  # fmt: skip
    values = [nb.load(path).get_fdata().max() for path in outputs.out_file]
    assert values == [1, 2]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    """What is written first lies in the folder of the node; a copy cut short is no output."""
    in_file = save(tmp_path / 'file.nii.gz', np.ones((20, 30, 40), np.float32))
    content = in_file.read_bytes()
    stored = store(tmp_path, SOURCES[0], in_file, desc='preproc', suffix='T1w').out_file
    before = open(stored, 'rb').read()

    def full(source, target):
        target.write_bytes(content[:100])
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('tumorreg_wf.interfaces.bids.shutil.copyfile', full)
    with pytest.raises(OSError, match='No space left'):
        store(tmp_path, SOURCES[0], in_file, desc='preproc', suffix='T1w')
    assert open(stored, 'rb').read() == before
    names = sorted(path.name for path in (tmp_path / 'out').rglob('*') if path.is_file())
    assert names == ['sub-01_desc-preproc_T1w.nii.gz']


def test_a_file_cut_short_is_not_stored(tmp_path):
    in_file = tmp_path / 'file.h5'
    in_file.write_bytes(b'')
    with pytest.raises(TumorregError, match='this file is damaged'):
        store(tmp_path, SOURCES[0], in_file, **{'from': TPL, 'to': 'T1w', 'suffix': 'xfm'})
    assert not list((tmp_path / 'out').rglob('*.h5'))


@pytest.mark.parametrize('mask', [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path, mask):
    in_file = save(tmp_path / 'file.nii.gz', np.ones((2, 3, 4), np.float32))
    in_file.chmod(0o600)
    before = os.umask(mask)
    try:
        meta = {'Sources': ['x']}
        store(tmp_path, SOURCES[0], in_file, desc='preproc', suffix='T1w', meta_dict=meta)
    finally:
        os.umask(before)
    modes = {p.is_dir(): p.stat().st_mode & 0o777 for p in (tmp_path / 'out').rglob('*')}
    assert modes == {True: 0o777 & ~mask, False: 0o666 & ~mask}


def test_an_image_of_another_grid_is_not_stored_as_if_it_were_on_it(tmp_path):
    image = nb.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([3, 3, 3, 1]))
    image.to_filename(tmp_path / 'file.nii.gz')
    for shape, spacing in (((4, 5, 6), 2), ((6, 7, 9), 3)):
        grid = nb.Nifti1Image(np.ones(shape, np.float32), np.diag([spacing] * 3 + [1]))
        grid = grid.as_reoriented(nb.orientations.axcodes2ornt('PIL'))
        grid.to_filename(tmp_path / 'grid.nii.gz')
        with pytest.raises(TumorregError, match=r'file\.nii\.gz: not on the grid of .*grid\.nii'):
            store(
                *(tmp_path, SOURCES[0], tmp_path / 'file.nii.gz'),
                grid=str(tmp_path / 'grid.nii.gz'), desc='preproc', suffix='T1w',
            )  # fmt: skip
