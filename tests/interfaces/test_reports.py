"""Figures show the tumour where it is, on any grid."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import nibabel as nb
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy.ndimage import distance_transform_edt

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.interfaces import colours, figures
from tumorreg_wf.interfaces.reports import SHOWN, PlotSlices, plot_slices

SVG = '{http://www.w3.org/2000/svg}'
SHAPE = (40, 48, 36)


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
    cell = figures.WIDTH // 5
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
    svg = draw(paths, through='tumor', over_file=paths['in_file'], over_as=['edges'], names='ab')
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
    root = ET.fromstring(
        draw(paths, over_file=over, over_as=[over_as], masked=masked, names=names)
    )
    below, above = (image.get('href') for image in root.iter(f'{SVG}image'))
    assert (below == above) == (over_as == 'image')  # the same image, scaled
    assert [layer.get('data-name') for layer in root.iter(f'{SVG}g')][:2] == names
    assert {'below <&>', 'above'} <= {text.text for text in root.iter(f'{SVG}text')}


def test_change_is_shown_on_one_grey_scale(tmp_path):
    images = make_images()
    t1w, affine = images['in_file']
    images['after'] = (np.minimum(t1w, 100), affine)  # the tumour is gone, all else is kept
    paths = save(tmp_path / 'in', images)
    svg = draw(
        {name: paths[name] for name in NAMES},
        over_file=paths['after'],
        over_as=['change'],
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
    for axis, edges in enumerate(colours.find_edges(ball * 80.0, ball, np.ones(3))):
        check_edges(edges, axis)


def check_edges(edges, axis):
    radius = np.sqrt(((np.argwhere(edges) - 15.0) ** 2).sum(1))
    assert edges.sum() > 500
    assert np.all((radius > 8.5) & (radius < 11.5))


def test_signed_colours():
    grey = np.full((3, 1, 1), 128, np.uint8)
    negative, zero, positive = colours.colour_signed(
        grey, np.array([-9, 0, 9.0]).reshape(3, 1, 1), 1
    )[:, 0, 0].astype(int)
    assert zero.tolist() == [128, 128, 128]
    assert negative[0] > negative[1] and positive[1] > positive[0]


def test_tissue_colours():
    grey = np.zeros((5, 1, 1), np.uint8)
    dseg = np.array([0, 1, 2, 3, 7]).reshape(5, 1, 1)
    painted = colours.colour_tissues(grey, dseg)[:, 0, 0]
    assert len(np.unique(painted, axis=0)) == 5
    assert painted[0].tolist() == [0, 0, 0]


def test_no_edge_fills_a_slice_along_a_border():
    half = np.zeros((20, 20, 20))
    half[10:] = 100
    edges = colours.find_edges(half, np.ones(half.shape, bool), np.ones(3))
    inner = edges[:, 3:-3, 3:-3, 3:-3]  # the frame of the array is an edge, too
    assert not inner[0].any()  # slices along the border
    assert inner[1].any() and inner[2].any()


def test_three_planes_in_a_row(tmp_path):
    svg = draw(save(tmp_path / 'in', make_images()), through='tumor', n_slices=1)
    assert re.findall(r'([xyz]) = (-?\d+) mm<', svg) == [('z', '5'), ('y', '10'), ('x', '-10')]
    points, picture = read_points(svg, figures.TUMOR)
    assert set(points[:, 0] // (figures.WIDTH / 3)) == {0, 1, 2}
    assert picture.shape[1] == figures.WIDTH


def test_close_up_of_the_tumor(tmp_path):
    paths = save(tmp_path / 'in', make_images((1, 1, 2)))
    near, far = (
        read_points(draw(paths, through='tumor', n_slices=1, margin=margin), figures.TUMOR)[0]
        for margin in (4, 60)
    )
    assert np.ptp(near[:, 1]) > 1.3 * np.ptp(far[:, 1])


@pytest.mark.parametrize('axes', ['RAS', 'LPS', 'PIR'])
def test_grid_lies_where_the_warp_puts_it(tmp_path, axes):
    images = make_images()
    shape, affine = SHAPE, images['in_file'][1]
    images['brain_mask'] = (np.ones(shape), affine)
    shift = np.zeros((*shape, 1, 3), np.float32)
    shift[..., 0] = -3  # ITK's LPS: what lies here comes from 3 mm further to the right
    field = nb.Nifti1Image(shift, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    field.as_reoriented(turn).to_filename(tmp_path / 'warp.nii.gz')
    paths = save(tmp_path / 'in', images, axes)
    svg = draw(paths, warp_file=tmp_path / 'warp.nii.gz', n_slices=1)
    (path,) = (p for p in ET.fromstring(svg).iter(f'{SVG}path') if p.get('stroke') == figures.GRID)
    lines = [
        np.array([pair.split(',') for pair in re.findall(r'[\d.]+,[\d.]+', line)], float)
        for line in path.get('d').split('M')[1:]
    ]
    axial = [line[:, 0] for line in lines if line[:, 0].max() < figures.WIDTH / 3]
    upright = np.array([x.mean() for x in axial if np.ptp(x) < 1])
    px_per_mm = (figures.WIDTH // 3 - 8) / shape[1]
    left = (figures.WIDTH // 3 - round(shape[0] * px_per_mm)) // 2
    world = (upright - left) / px_per_mm - 0.5 + affine[0, 3]
    assert len(world) == shape[0] // figures.GRID_STEP
    steps = (world + 3) / figures.GRID_STEP
    assert np.allclose(steps, np.round(steps), atol=0.01)


def test_signed_values_are_less_their_median(tmp_path):
    images = make_images()
    brain = images['brain_mask'][0]
    images['over'] = (brain * 0.7, images['in_file'][1])
    paths = save(tmp_path / 'in', images)
    over = paths.pop('over')
    svg = draw(paths, over_file=over, over_as=['signed'], names=['T1w', 'change'])
    below, above = (read_picture(i.get('href')) for i in ET.fromstring(svg).iter(f'{SVG}image'))
    assert np.abs(below.astype(int) - above).max() < 6  # no colour where all is median
    assert 'change, -0.05 to 0.05' in svg


def test_interface(tmp_path):
    paths = {name: str(path) for name, path in save(tmp_path / 'in', make_images()).items()}
    plot = PlotSlices(title='a <figure>', names=['T1w'], **paths)
    root = ET.parse(plot.run(cwd=str(tmp_path)).outputs.out_file).getroot()
    assert root.get('role') == 'img'
    assert root.get('aria-label').startswith('a <figure>. Slices at z = ')
    assert not [element for element in root.iter() if element.get('id')]


@pytest.mark.parametrize('over_as', ['image', 'change'])
def test_no_face_is_shown(tmp_path, over_as):
    """Of a whole head a rim around the brain alone."""
    images = make_images((3, 3, 3))
    t1w, affine = images['in_file']
    away = distance_transform_edt(images['brain_mask'][0] == 0, sampling=3)
    pictures = []
    for name, head in (('rim', (away > 0) & (away <= SHOWN)), ('head', away > 0)):
        seen = images | {'in_file': (t1w + 150 * head, affine)}
        paths = save(tmp_path / name, seen)
        svg = draw(paths, over_file=paths['in_file'], over_as=[over_as], names=['a', 'b'])
        pictures.append([image.get('href') for image in ET.fromstring(svg).iter(f'{SVG}image')])
    assert pictures[0] == pictures[1]
    stripped = ET.fromstring(draw(save(tmp_path / 'brain', images)))
    assert next(stripped.iter(f'{SVG}image')).get('href') != pictures[0][0]


def test_the_brain_is_outlined_with_what_is_around_it(tmp_path):
    images = make_images()
    brain, affine = images['brain_mask']
    t1w = brain * 100.0
    t1w[15:25, 18:30, 12:24] = 0  # there is no contrast without
    images['in_file'] = (
        np.pad(t1w, 12),
        nb.affines.from_matvec(np.eye(3), affine[:3, 3] - 12),
    )
    images['brain_mask'], images['tumor_mask'] = (
        (np.pad(images[name][0], 12), images['in_file'][1]) for name in NAMES[1:]
    )
    paths = save(tmp_path / 'in', images)
    svg, plain = draw(paths, outline_brain=True), draw(paths)
    points, picture = read_points(svg, figures.BRAIN)
    assert 'brain mask' in svg and 'brain mask' not in plain
    bright = np.argwhere(picture > 120)[:, ::-1] + (0, figures.HEADER)
    for side in ('min', 'max'):
        assert np.abs(getattr(points, side)(0) - getattr(bright, side)(0)).max() < 8
    around = [read_points(text, figures.TUMOR)[1] for text in (svg, plain)]
    assert (around[0] > 120).mean() < (around[1] > 120).mean()  # more of what is not brain


@pytest.mark.parametrize('names', [[], ['T1w'], ['T1w', 'FLAIR', 'more']])
def test_as_many_names_as_layers(tmp_path, names):
    files = save(tmp_path / 'in', make_images())
    with pytest.raises(TumorregError, match='names: [013] for 2 layers'):
        draw(files | {'over_file': files['in_file']}, names=names, over_as=['image'])
