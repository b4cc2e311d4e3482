import json

import pytest

from tumorreg_wf.bids import (
    check_dataset,
    collect_anatomies,
    find_cases,
    find_participants,
    open_layout,
)
from tumorreg_wf.errors import TumorregError


@pytest.fixture
def tree(tmp_path):
    """A function that makes a BIDS dataset of empty files from their names."""

    def make(*names, root='bids'):
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        (folder / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
        for name in names:
            parts = name.split('_')
            session = [part for part in parts if part.startswith('ses-')]
            path = folder.joinpath(parts[0], *session, 'anat', f'{name}.nii.gz')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return make


def collect(root, participant='01', derivatives=(), **options):
    return collect_anatomies(
        open_layout(root, [participant]),
        participant,
        derivatives=[open_layout(folder, [participant]) for folder in derivatives],
        **options,
    )


def test_contrast_enhanced_t1w_is_never_taken(tree):
    root = tree('sub-01_T1w', 'sub-01_ce-gadolinium_T1w', 'sub-01_FLAIR', 'sub-02_T1w')
    (found,) = collect(root)
    assert found.t1w.name == 'sub-01_T1w.nii.gz'
    assert found.flair.name == 'sub-01_FLAIR.nii.gz'
    assert found.tumor_mask is None and found.session is None


def test_files_of_a_session_stay_together(tree):
    root = tree(
        'sub-01_ses-a_T1w', 'sub-01_ses-b_T1w', 'sub-01_ses-b_FLAIR',
        'sub-01_ses-a_label-lesion_roi',
    )  # fmt: skip
    first, second = sorted(collect(root), key=lambda anatomy: anatomy.session)
    assert (first.session, second.session) == ('a', 'b')
    assert first.flair is None and second.flair.name == 'sub-01_ses-b_FLAIR.nii.gz'
    assert first.tumor_mask.name == 'sub-01_ses-a_label-lesion_roi.nii.gz'
    assert second.tumor_mask is None
    (only,) = collect(root, sessions=['b'])
    assert only.session == 'b'


def test_each_run_gets_its_own_mask(tree):
    root = tree(
        'sub-01_run-1_T1w', 'sub-01_run-2_T1w',
        'sub-01_run-1_label-tumor_mask', 'sub-01_run-2_label-tumor_mask',
    )  # fmt: skip
    for anatomy in collect(root):
        run = anatomy.t1w.name.split('_')[1]
        assert run in anatomy.tumor_mask.name


def test_masks_come_from_derivatives_first(tree):
    root = tree('sub-01_T1w', 'sub-01_label-lesion_roi')
    manual = tree(
        'sub-01_label-tumor_mask', 'sub-01_label-tumor_desc-dilated_mask',
        'sub-01_space-MNI152NLin2009aSym_label-tumor_mask', 'sub-01_desc-brain_mask',
        root='manual',
    )  # fmt: skip
    (found,) = collect(root, derivatives=[manual])
    assert found.tumor_mask == manual / 'sub-01/anat/sub-01_label-tumor_mask.nii.gz'
    assert found.brain_mask == manual / 'sub-01/anat/sub-01_desc-brain_mask.nii.gz'
    (found,) = collect(root)
    assert found.tumor_mask.name == 'sub-01_label-lesion_roi.nii.gz'


def test_derivatives_inside_the_dataset_are_not_searched_unasked(tree):
    root = tree('sub-01_T1w')
    inside = root / 'derivatives' / 'x' / 'sub-01' / 'anat'
    inside.mkdir(parents=True)
    (inside / 'sub-01_label-tumor_mask.nii.gz').touch()
    (inside / 'sub-01_T1w.nii.gz').touch()
    (found,) = collect(root)
    assert found.tumor_mask is None


def test_filters(tree):
    root = tree('sub-01_acq-mprage_T1w', 'sub-01_acq-se_T1w')
    (found,) = collect(root, filters={'t1w': {'acquisition': 'mprage'}})
    assert 'mprage' in found.t1w.name


def test_only_the_wanted_participants_are_indexed(tree):
    root = tree('sub-01_T1w', 'sub-02_T1w', 'sub-011_T1w')
    assert open_layout(root, ['01']).get_subjects() == ['01']


def test_a_database_is_reused_for_other_participants(tree, tmp_path):
    root = tree('sub-01_T1w', 'sub-02_T1w')
    database = tmp_path / 'database'
    open_layout(root, ['01'], database)
    layout = open_layout(root, ['02'], database)
    assert len(collect_anatomies(layout, '02')) == 1


def test_participants(tree):
    root = tree('sub-01_T1w', 'sub-02_T1w')
    assert find_participants(root, []) == ['01', '02']
    assert find_participants(root, ['sub-02', '02']) == ['02']
    with pytest.raises(TumorregError, match='no participant 03'):
        find_participants(root, ['01', '03'])


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(TumorregError, match='no such folder'):
        check_dataset(tmp_path / 'nowhere')
    with pytest.raises(TumorregError, match='dataset_description.json'):
        check_dataset(tmp_path)
    description = tmp_path / 'dataset_description.json'
    description.write_text('{not json')
    with pytest.raises(TumorregError, match='JSON'):
        check_dataset(tmp_path)
    description.write_text(json.dumps({'Name': 'x'}))
    with pytest.raises(TumorregError, match='BIDSVersion'):
        check_dataset(tmp_path)
    with pytest.raises(TumorregError, match='no participants'):
        find_participants(tmp_path, [])


def test_cases_and_their_references(tree):
    root = tree('sub-01_T1w', 'sub-01_FLAIR', 'sub-02_T1w', 'sub-03_T1w')
    for name in (
        'sub-01_label-tumor_mask', 'sub-01_label-tumor_dseg',
        'sub-02_label-tumor_desc-dilated_mask', 'sub-03_label-lesion_mask',
    ):  # fmt: skip
        path = root / 'derivatives' / 'expert' / name.split('_')[0] / 'anat' / f'{name}.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    one, two, three = find_cases(root)
    assert (one.subject, one.flair.name) == ('01', 'sub-01_FLAIR.nii.gz')
    assert one.tumor_mask.name == 'sub-01_label-tumor_dseg.nii.gz'
    assert two.tumor_mask is None and two.flair is None and three.tumor_mask is None
    (found,) = find_cases(root, ['sub-03'], label='lesion')
    assert found.tumor_mask.name == 'sub-03_label-lesion_mask.nii.gz'
