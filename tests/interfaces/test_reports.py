"""Figures show the tumour where it is, on any grid; tables escape what they show."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import nibabel as nb
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces import figures
from tumorreg_wf.interfaces.reports import (
    MAX_ROWS,
    PlotSlices,
    RegionsTable,
    Summary,
    plot_slices,
    regions_html,
    summary_html,
)

SVG = '{http://www.w3.org/2000/svg}'
SHAPE = (40, 48, 36)
TUMOR_ROW = {
    'volume_mm3': '8500',
    'hemisphere': 'left',
    'midline_crossing': 'no',
    'n_components': '1',
    'n_regions': '3',
}


def make_images(spacing=(1, 1, 1)):
    """A brain with a bright tumour: left, anterior, superior. Axes R, A, S."""
    grid = np.indices(SHAPE).T / (np.array(SHAPE) - 1) * 2 - 1
    grid = grid.T
    brain = (grid**2).sum(0) < 0.8
    tumor = np.zeros(SHAPE, bool)
    tumor[8:14, 32:38, 20:28] = True
    t1w = brain * 100.0 + tumor * 100
    affine = nb.affines.from_matvec(np.diag(spacing), [-20, -24, -18])
    return {name: (data, affine) for name, data in zip(NAMES, (t1w, brain, tumor))}


NAMES = ('in_file', 'brain_mask', 'tumor_mask')


def save(folder, images, axes='RAS', rotation=None):
    folder.mkdir(exist_ok=True)
    paths = {}
    for name, (data, affine) in images.items():
        image = nb.Nifti1Image(np.asarray(data, np.float32), affine)
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axes)))
        if rotation is not None:
            image = nb.Nifti1Image(image.dataobj, rotation @ image.affine)
        paths[name] = folder / f'{name}.nii.gz'
        image.to_filename(paths[name])
    return paths


def draw(paths, **options):
    return plot_slices(**paths, **{'title': 'a figure', 'names': ['T1w'], **options})


def read_picture(href):
    data = base64.b64decode(href.partition('base64,')[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert('L'))


def read_points(svg, colour):
    """Points (x, y) of a contour, and the picture below (grey, no header)."""
    root = ET.fromstring(svg)
    (path,) = (p for p in root.iter(f'{SVG}path') if p.get('stroke') == colour)
    points = [pair.split(',') for pair in re.findall(r'[\d.]+,[\d.]+', path.get('d'))]
    picture = read_picture(next(root.iter(f'{SVG}image')).get('href'))
    return np.array(points, float), picture


def test_slices_cut_through_every_part():
    mask = np.zeros((50, 4, 4), bool)
    mask[3:6] = mask[40:44] = True  # two foci, nothing between them
    slices = figures.choose_slices(mask, 0, 6)
    assert len(slices) == 6
    assert all(mask[index].any() for index in slices)
    assert min(slices) < 10 and max(slices) > 35


def test_slices_of_a_single_voxel():
    mask = np.zeros((9, 9, 9), bool)
    mask[0, 4, 4] = True
    assert figures.choose_slices(mask, 0, 4) == [0, 1, 2, 3]
    assert 4 in figures.choose_slices(mask, 1, 4)


@pytest.mark.parametrize('axes', ['RAS', 'LAS', 'LPS', 'PIR'])
def test_orientation_on_disk_does_not_matter(tmp_path, axes):
    images = make_images(spacing=(1, 1, 2))
    expected = draw(save(tmp_path / 'ras', images), through='tumor')
    assert draw(save(tmp_path / 'other', images, axes), through='tumor') == expected


@pytest.mark.parametrize('spacing', [(1, 1, 1), (1, 1, 3), (0.5, 1, 1)])
def test_contour_lies_on_the_tumor_at_the_left(tmp_path, spacing):
    svg = draw(save(tmp_path / 'in', make_images(spacing), 'LPS'), through='tumor')
    points, picture = read_points(svg, figures.TUMOR)
    cell = figures.WIDTH // 6
    bright = np.argwhere(picture > 200)[:, ::-1] + (0, figures.HEADER)
    assert abs(points[:, 0].min() - bright[:, 0].min()) < 6
    assert np.abs(points[:, 1].max() - bright[:, 1].max()) < 6
    axial = points[points[:, 1] < figures.HEADER + 2 / 3 * cell]
    first = axial[axial[:, 0] < cell]
    assert first[:, 0].max() < cell / 2  # left of the patient, left of the panel
    letters = re.findall(r'text-anchor="(start|end)">([LRPA])<', svg)
    assert letters[:2] == [('start', 'L'), ('end', 'R')]


def test_oblique(tmp_path):
    turn = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.2, 0.1, 0.15))
    straight = draw(save(tmp_path / 'a', make_images()), through='tumor')
    oblique = draw(save(tmp_path / 'b', make_images(), 'LAS', turn), through='tumor')
    for points in zip(*(read_points(svg, figures.TUMOR)[0].T for svg in (straight, oblique))):
        assert np.allclose(*points)


def test_grids_are_not_mixed(tmp_path):
    paths = save(tmp_path / 'a', make_images())
    paths['tumor_mask'] = save(tmp_path / 'b', make_images(), 'LPS')['tumor_mask']
    with pytest.raises(TumorregError, match='tumor_mask.nii.gz: its shape or affine differs'):
        draw(paths)


@pytest.mark.parametrize('empty', [['tumor_mask'], ['tumor_mask', 'brain_mask']])
def test_empty_masks(tmp_path, empty):
    images = make_images()
    for name in empty:
        images[name] = (np.zeros(SHAPE), images[name][1])
    paths = save(tmp_path / 'in', images)
    svg = draw(paths, through='tumor', over_file=paths['in_file'], over_as='edges', names='ab')
    points, picture = read_points(svg, figures.TUMOR)
    assert 'no tumour' in svg
    assert points.size == 0
    assert picture.max() > 200


@pytest.mark.parametrize('over_as', ['image', 'edges', 'tissues', 'signed'])
@pytest.mark.parametrize('masked', [True, False])
def test_overlays(tmp_path, over_as, masked):
    images = make_images()
    images['over'] = (images['in_file'][0] / 100, images['in_file'][1])
    paths = save(tmp_path / 'in', images)
    over = paths.pop('over')
    names = ['below <&>', 'above']
    root = ET.fromstring(draw(paths, over_file=over, over_as=over_as, masked=masked, names=names))
    below, above = (image.get('href') for image in root.iter(f'{SVG}image'))
    assert (below == above) == (over_as == 'image')  # the same image, scaled
    assert {'below <&>', 'above'} <= {text.text for text in root.iter(f'{SVG}text')}


def test_change_is_shown_on_one_grey_scale(tmp_path):
    images = make_images()
    t1w, affine = images['in_file']
    images['after'] = (np.minimum(t1w, 100), affine)  # the tumour is gone, all else is kept
    paths = save(tmp_path / 'in', images)
    svg = draw(
        {name: paths[name] for name in NAMES},
        over_file=paths['after'],
        over_as='change',
        names=['before', 'after'],
    )
    before, after = (
        read_picture(image.get('href')).astype(int)
        for image in ET.fromstring(svg).iter(f'{SVG}image')
    )
    known = before < 150
    assert np.abs(before - after)[known].mean() < 2
    assert (before - after)[~known].mean() > 50


def test_edges_follow_the_border():
    ball = (np.indices((30, 30, 30)) - 15.0) ** 2
    ball = ball.sum(0) < 100
    edges = figures.find_edges(ball * 80.0, ball, np.ones(3))
    radius = np.sqrt(((np.argwhere(edges) - 15.0) ** 2).sum(1))
    assert edges.sum() > 500
    assert np.all((radius > 8.5) & (radius < 11.5))


def test_signed_colours():
    grey = np.full((3, 1, 1), 128, np.uint8)
    negative, zero, positive = figures.colour_signed(
        grey, np.array([-9, 0, 9.0]).reshape(3, 1, 1), 1
    )[:, 0, 0].astype(int)
    assert zero.tolist() == [128, 128, 128]
    assert negative[0] > negative[1] and positive[1] > positive[0]


def test_tissue_colours():
    grey = np.zeros((5, 1, 1), np.uint8)
    dseg = np.array([0, 1, 2, 3, 7]).reshape(5, 1, 1)
    colours = figures.colour_tissues(grey, dseg)[:, 0, 0]
    assert len(np.unique(colours, axis=0)) == 5
    assert colours[0].tolist() == [0, 0, 0]


def test_summary():
    html = summary_html(
        TUMOR_ROW,
        source_file='/data/sub-01/anat/sub-01_T1w.nii.gz',
        mask_source='mask given by the user: /data/<b>/mask.nii.gz',
        has_flair=False,
        template_name='MNI',
        notes=['touches the <border>'],
    )
    for text in ('8.5 ml', 'left', '/data/&lt;b&gt;/mask.nii.gz', 'sub-01_T1w.nii.gz', 'none'):
        assert text in html
    assert 'role="alert">touches the &lt;border&gt;<' in html
    assert 'empty' not in html


def test_summary_of_an_empty_mask():
    row = dict.fromkeys(TUMOR_ROW, 'n/a') | {'volume_mm3': '0'}
    html = summary_html(
        row, source_file='a', mask_source='U-Net', has_flair=True, template_name='MNI'
    )
    assert 'The tumour mask is empty' in html
    assert 'n/a' not in html


def make_regions(overlaps):
    return [
        {
            'index': str(index),
            'name': f'<region {index}>',
            'hemisphere': 'left',
            'volume_mm3': '2000',
            'tumor_mm3': str(overlap),
            'tumor_fraction': 'n/a' if overlap == 'n/a' else str(float(overlap) / 2000),
            'distance_mm': '0',
        }
        for index, overlap in enumerate(overlaps)
    ]


def test_regions():
    html = regions_html(make_regions([0, 90, 1000, 'n/a', 500]))
    assert re.findall(r'&lt;region (\d)&gt;', html) == ['2', '4', '1']
    assert '50%' in html
    assert '<region' not in html


def test_regions_are_cut():
    html = regions_html(make_regions(range(1, MAX_ROWS + 4)))
    assert html.count('&lt;region') == MAX_ROWS
    assert '3 more regions' in html


def test_no_region():
    assert 'touches no region' in regions_html(make_regions([0]))


def test_interfaces(tmp_path):
    paths = {name: str(path) for name, path in save(tmp_path / 'in', make_images()).items()}
    plot = PlotSlices(title='t', names=['T1w'], **paths)
    ET.parse(plot.run(cwd=str(tmp_path)).outputs.out_file)

    table = tmp_path / 'tumor.tsv'
    table.write_text('\t'.join(TUMOR_ROW) + '\n' + '\t'.join(TUMOR_ROW.values()) + '\n')
    summary = Summary(
        source_file='/raw/sub-01_T1w.nii.gz',
        tumor_tsv=str(table),
        mask_source='U-Net',
        has_flair=True,
        template_name='MNI',
    )
    summary_file = summary.run(cwd=str(tmp_path)).outputs.out_file
    with open(summary_file) as stream:
        assert '8.5 ml' in stream.read()

    rows = make_regions([5])
    table.write_text('\t'.join(rows[0]) + '\n' + '\t'.join(rows[0].values()) + '\n')
    regions_file = RegionsTable(in_file=str(table)).run(cwd=str(tmp_path)).outputs.out_file
    with open(regions_file) as stream:
        assert '&lt;region 0&gt;' in stream.read()
