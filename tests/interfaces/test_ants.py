"""Stock ANTs nodes on what antspyx embeds, or on native programs."""

import os
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumorreg_wf.ants_program import main
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces.ants import (
    ApplyTransforms,
    JacobianDeterminant,
    N4BiasFieldCorrection,
    Registration,
)
from tumorreg_wf.workflows.ants import ants_settings, seed_node
from tumorreg_wf.workflows.bias import init_bias_correction_wf


def test_no_program_at_all(capsys):
    assert main([]) == 2
    assert 'PROGRAM' in capsys.readouterr().err


def test_a_program_that_is_not_embedded(capsys):
    assert main(['ImageMath', '3']) == 2
    assert 'antspyx has no program ImageMath of ANTs' in capsys.readouterr().err


def test_registration_and_its_inverse(brains):
    fixed, moving = brains
    node = Registration(
        fixed_image=fixed, moving_image=moving, num_threads=1, **ants_settings('syn_sloppy')
    )
    # unseeded sampling of so small a brain goes wrong once in a while
    node.inputs.environ['ANTS_RANDOM_SEED'] = '1'
    found = node.run().outputs
    data = nb.load(fixed).get_fdata()
    before = np.corrcoef(data.ravel(), nb.load(moving).get_fdata().ravel())[0, 1]
    for image, reference, transform in (
        (moving, fixed, found.composite_transform),
        (fixed, moving, found.inverse_composite_transform),
    ):
        warped = ApplyTransforms(
            dimension=3, input_image=image, reference_image=reference, transforms=[transform]
        ).run()
        out = nb.load(warped.outputs.output_image).get_fdata()
        after = np.corrcoef(nb.load(reference).get_fdata().ravel(), out.ravel())[0, 1]
        assert after > 0.95 > before


def test_one_thread_and_a_seed_repeat_bit_for_bit(brains, tmp_path, monkeypatch):
    from nipype.pipeline import engine as pe

    fields = []
    for run in ('a', 'b'):
        (tmp_path / run).mkdir()
        monkeypatch.chdir(tmp_path / run)
        node = pe.Node(
            Registration(
                fixed_image=brains[0], moving_image=brains[1], **ants_settings('syn_sloppy')
            ),
            name='register',
            base_dir=str(tmp_path / run),
        )
        seed_node(node, 5)
        transform = node.run().outputs.composite_transform
        out = ApplyTransforms(
            dimension=3, input_image=brains[1], reference_image=brains[0], transforms=[transform]
        ).run()
        fields.append(nb.load(out.outputs.output_image).get_fdata())
    np.testing.assert_array_equal(*fields)


def test_n4_flattens_a_bias_field(brains):
    data = nb.load(brains[0]).get_fdata()
    inside = data > 0
    ramp = np.linspace(0.7, 1.4, data.shape[1])[None, :, None]
    affine = nb.load(brains[0]).affine
    nb.Nifti1Image((data * ramp).astype(np.float32), affine).to_filename('biased.nii.gz')
    nb.Nifti1Image(inside.astype(np.uint8), affine).to_filename('mask.nii.gz')
    settings = ants_settings('n4_t1w') | {'shrink_factor': 1}
    node = N4BiasFieldCorrection(input_image='biased.nii.gz', mask_image='mask.nii.gz', **settings)
    out = nb.load(node.run().outputs.output_image).get_fdata()

    def slope(image):
        ratio = (image[inside] / data[inside]) / (image[inside] / data[inside]).mean()
        return abs(np.polyfit(np.nonzero(inside)[1], ratio, 1)[0])

    assert slope(out) < 0.5 * slope(data * ramp)


def test_an_oblique_image_is_corrected_as_a_straight_one(brains):
    """The program itself takes the axes of the world for those of the voxels."""
    image = nb.load(brains[0])
    data = image.get_fdata(dtype=np.float32)
    data *= np.linspace(0.7, 1.4, data.shape[1])[None, :, None]
    turn = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.25, -0.15, 0.2))
    found = []
    for name, affine in (('straight', image.affine), ('oblique', turn @ image.affine)):
        paths = [f'{name}_{what}.nii.gz' for what in ('t1w', 'mask')]
        nb.Nifti1Image(data, affine).to_filename(paths[0])
        nb.Nifti1Image((data > 0).astype(np.uint8), affine).to_filename(paths[1])
        settings = ants_settings('n4_t1w') | {'shrink_factor': 1}
        node = N4BiasFieldCorrection(
            input_image=paths[0], mask_image=paths[1], num_threads=1, save_bias=True, **settings
        )
        outputs = node.run().outputs
        found.append([nb.load(path) for path in (outputs.output_image, outputs.bias_image)])
        for out in found[-1]:
            np.testing.assert_allclose(out.affine, affine, atol=1e-4)
    for straight, oblique in zip(*found, strict=True):
        np.testing.assert_array_equal(straight.get_fdata(), oblique.get_fdata())
    assert found[0][1].get_fdata().std() > 0.01


def test_a_mask_in_another_order_of_an_oblique_image_is_refused(brains):
    """Taken as it is, it would be that of the other side."""
    image = nb.load(brains[0])
    turn = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.25, -0.15, 0.2)) @ image.affine
    mask = nb.Nifti1Image((image.get_fdata() > 0).astype(np.uint8), turn)
    nb.Nifti1Image(image.get_fdata(dtype=np.float32), turn).to_filename('oblique.nii.gz')
    mask.as_reoriented([[0, -1], [1, 1], [2, 1]]).to_filename('turned.nii.gz')
    node = N4BiasFieldCorrection(input_image='oblique.nii.gz', mask_image='turned.nii.gz')
    with pytest.raises(TumorregError, match=r'turned\.nii\.gz: not on the grid'):
        node.run()


def test_an_image_with_a_blank_in_its_name_is_corrected(brains):
    data = nb.load(brains[0])
    for name in ('t1w copy; x.nii.gz', 't1w.nii.gz'):
        nb.Nifti1Image(data.get_fdata(dtype=np.float32), data.affine).to_filename(name)
    settings = ants_settings('n4_t1w') | {'n_iterations': [2], 'num_threads': 1}
    odd, plain = (
        nb.load(N4BiasFieldCorrection(input_image=name, **settings).run().outputs.output_image)
        for name in ('t1w copy; x.nii.gz', 't1w.nii.gz')
    )
    np.testing.assert_allclose(odd.affine, plain.affine)
    np.testing.assert_allclose(odd.get_fdata(), plain.get_fdata(), rtol=1e-3, atol=1)


def test_a_whole_head_is_corrected_without_a_step(brains, tmp_path):
    """The field is that of the brain; skin beside the brain is divided by it, too."""
    data = nb.load(brains[0]).get_fdata()
    inside = data > 0
    away = ndimage.distance_transform_edt(~inside)
    head = data + 800 * ((away > 0) & (away < 4))
    ramp = np.linspace(0.7, 1.4, data.shape[1])[None, :, None]
    affine = nb.load(brains[0]).affine
    nb.Nifti1Image((head * ramp).astype(np.float32), affine).to_filename('head.nii.gz')
    nb.Nifti1Image(inside.astype(np.uint8), affine).to_filename('mask.nii.gz')
    workflow = init_bias_correction_wf(has_flair=False, whole_head=True)
    workflow.base_dir = str(tmp_path)
    workflow.inputs.inputnode.t1w = str(tmp_path / 'head.nii.gz')
    workflow.inputs.inputnode.brain_mask = str(tmp_path / 'mask.nii.gz')
    workflow.get_node('n4_t1w').inputs.shrink_factor = 1
    workflow.run()
    out = nb.load(next(tmp_path.glob('**/scaled.nii.gz'))).get_fdata()
    ratio = out / np.maximum(head * ramp, 1)
    rims = [inside & (ndimage.distance_transform_edt(inside) < 2), (away > 0) & (away < 2)]
    for half in (slice(None, 18), slice(18, None)):  # of little and of much signal
        within, beyond = (np.median(ratio[:, half][rim[:, half]]) for rim in rims)
        assert abs(within / beyond - 1) < 0.05
    assert np.median(ratio[:, :18][rims[1][:, :18]]) > 1.1 * np.median(
        ratio[:, 18:][rims[1][:, 18:]]
    )
    assert np.median(out[inside]) == pytest.approx(np.median((head * ramp)[inside]), rel=1e-4)


def test_log_jacobian_of_a_scaling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = np.moveaxis(np.indices((12, 12, 12)), 0, -1).astype(np.float32)
    # displacement of a zoom by 1.1 about 0, one vector per voxel, as ITK stores it
    field = nb.Nifti1Image(0.1 * where[:, :, :, None, :], np.diag([-1, -1, 1, 1]))
    field.header.set_intent('vector')
    field.to_filename('warp.nii.gz')
    node = JacobianDeterminant(
        imageDimension=3, deformationField='warp.nii.gz', doLogJacobian=1, outputImage='out.nii.gz'
    )
    found = nb.load(node.run().outputs.jacobian_image).get_fdata()[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(found, 3 * np.log(1.1), atol=1e-4)


def test_a_failing_program_stops_its_node(brains, tmp_path, monkeypatch):
    """Also where its output is there already: half of it, for all one knows."""
    program = tmp_path / 'bin' / 'N4BiasFieldCorrection'
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ntouch out.nii.gz\necho no memory left >&2\necho Aborted >&2\nexit 9\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
    node = N4BiasFieldCorrection(
        input_image=brains[0], dimension=3, output_image='out.nii.gz', copy_header=False
    )
    with pytest.raises(RuntimeError, match='exit code 9: no memory left'):
        node.run()


def test_names_of_folders_reach_neither_shell_nor_brackets(brains, tmp_path, monkeypatch):
    folder = tmp_path / "a, b] $(touch hacked); <c> & 'd' ä"
    (folder / 'node').mkdir(parents=True)
    fixed, moving = (str(Path(path).rename(folder / Path(path).name)) for path in brains)
    monkeypatch.chdir(folder / 'node')
    node = Registration(
        fixed_image=fixed, moving_image=moving, num_threads=1, **ants_settings('syn_sloppy')
    )
    assert 'Mattes[ ../fixed.nii.gz, ../moving.nii.gz,' in node.cmdline
    assert 'hacked' not in node.cmdline
    warped = ApplyTransforms(
        dimension=3, input_image=moving, reference_image=fixed, transforms=['identity']
    ).run()
    out = nb.load(warped.outputs.output_image).get_fdata()
    np.testing.assert_allclose(out, nb.load(moving).get_fdata(), atol=1e-3)
    assert not list(tmp_path.rglob('hacked'))
