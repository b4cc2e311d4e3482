import json
import subprocess
import sys
from pathlib import Path

import pytest
from bids import BIDSLayout

from tumorreg_wf.bids import (
    Anatomy,
    check_dataset,
    check_filters,
    check_folders,
    check_names,
    collect_anatomies,
    find_cases,
    find_misnamed,
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
        [participant],
        derivatives=[open_layout(folder, [participant]) for folder in derivatives],
        **options,
    )[participant]


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
    assert len(collect_anatomies(layout, ['02'])['02']) == 1
    # what is newer than the database is not seen
    tree('sub-03_T1w')
    layout = open_layout(root, ['03'], database)
    assert collect_anatomies(layout, ['03']) == {'03': []}


def test_a_database_of_another_dataset_is_refused(tree, tmp_path):
    database = tmp_path / 'database'
    open_layout(tree('sub-01_T1w'), ['01'], database)
    other = tree('sub-01_T1w', root='other')
    with pytest.raises(TumorregError, match='another dataset, .*bids. Give another'):
        open_layout(other, ['01'], database)


@pytest.mark.parametrize('derivatives', [False, True])
def test_a_database_of_another_program_is_refused(tree, tmp_path, derivatives):
    root, database = tree('sub-01_T1w'), tmp_path / 'database'
    BIDSLayout(root, validate=False, derivatives=derivatives, database_path=database)
    with pytest.raises(TumorregError, match='made by another program'):
        open_layout(root, ['01'], database)


def test_processes_that_start_at_once_share_a_database(tree, tmp_path):
    """As the tasks of a job array do: none sees half of an index."""
    names = [f'sub-{number:02d}_T1w' for number in range(40)]
    root, database = tree(*names), tmp_path / 'new' / 'database'
    code = (
        'import sys; from pathlib import Path\n'
        'from tumorreg_wf.bids import collect_anatomies, open_layout\n'
        'root, database, label = sys.argv[1:]\n'
        'layout = open_layout(Path(root), [label], Path(database))\n'
        'assert len(collect_anatomies(layout, [label])[label]) == 1'
    )
    running = [
        subprocess.Popen([sys.executable, '-c', code, root, database, label])
        for label in ('00', '39', '20')
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0, 0]
    assert [path.name for path in database.iterdir()] == ['layout_index.sqlite']


def test_many_participants_are_asked_for_at_once(tree, monkeypatch):
    root = tree('sub-01_T1w', 'sub-02_T1w', 'sub-02_FLAIR', 'sub-03_T1w')
    layout = open_layout(root, ['01', '02', '03'])
    named = collect_anatomies(layout, ['01', '02'])
    monkeypatch.setattr('tumorreg_wf.bids.MOST_NAMED', 1)
    assert collect_anatomies(layout, ['01', '02']) == named
    assert set(named) == {'01', '02'} and named['02'][0].flair.name == 'sub-02_FLAIR.nii.gz'


def test_only_images_of_the_head_are_indexed(tree):
    root = tree('sub-01_T1w', 'sub-01_ses-a_T1w')
    for name in ('sub-01/func/sub-01_task-x_bold.nii.gz', 'sub-01/anat/sub-01_T1w.json',
                 'sub-01/ses-a/perf/sub-01_ses-a_asl.nii.gz', 'sub-01/anat/sub-01_dseg.tsv',
                 '.git/objects/sub-01_T1w.nii.gz',
                 'out/sub-01/anat/sub-01_label-tumor_mask.nii.gz'):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    files = {path.name for path in map(Path, open_layout(root, ['01']).files)}
    assert files == {'sub-01_T1w.nii.gz', 'sub-01_ses-a_T1w.nii.gz'}


def test_participants(tree):
    root = tree('sub-01_T1w', 'sub-02_T1w')
    assert find_participants(root, []) == ['01', '02']
    assert find_participants(root, ['sub-02', '02']) == ['02']
    with pytest.raises(TumorregError, match='no participant 03'):
        find_participants(root, ['01', '03'])
    for path in ('01/../..', '../x', '', '01\n02', '<b>'):
        with pytest.raises(TumorregError, match='letters and digits alone'):
            find_participants(root, [path])


@pytest.mark.parametrize('database', [False, True])
def test_a_folder_named_almost_like_a_participants(tree, tmp_path, database):
    root = tree('sub-01_T1w')
    odd = root / 'sub-01_old' / 'anat'
    odd.mkdir(parents=True)
    for name in ('FLAIR', 'label-tumor_mask'):
        (odd / f'sub-01_{name}.nii.gz').touch()
    assert find_participants(root, []) == ['01']
    assert find_misnamed(root) == ['sub-01_old']
    layout = open_layout(root, ['01'], tmp_path / 'database' if database else None)
    (found,) = collect_anatomies(layout, ['01'])['01']
    assert found.flair is None and found.masks == []


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


def test_own_outputs_are_no_references(tree):
    root = tree('sub-01_T1w', 'sub-02_T1w')

    def put(folder, name):
        path = root / 'derivatives' / folder / name.split('_')[0] / 'anat' / f'{name}.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    for name in ('sub-01_label-tumor_mask', 'sub-02_label-tumor_mask'):
        put('a_run', name)
    put('reader', 'sub-01_label-tumor_mask')
    put('reader', 'sub-02_space-MNI_label-tumor_mask')
    own = root / 'derivatives' / 'a_run' / 'dataset_description.json'
    own.write_text(json.dumps({'GeneratedBy': [{'Name': 'tumorreg'}]}))
    one, two = find_cases(root)
    assert one.tumor_mask.parents[2].name == 'reader' and two.tumor_mask is None
    own.write_text(json.dumps({'GeneratedBy': [{'Name': 'another'}]}))
    with pytest.raises(TumorregError, match='sub-01: references in several folders'):
        find_cases(root)


def test_a_case_without_t1w(tree):
    root = tree('sub-01_T1w', 'sub-02_ses-1_T1w')
    with pytest.raises(TumorregError, match=r'sub-02_T1w\.nii\.gz: no such file'):
        find_cases(root)


class TestOddDatasets:
    def test_a_mask_of_another_run_is_not_taken(self, tree):
        root = tree(
            'sub-01_run-1_T1w', 'sub-01_run-2_T1w', 'sub-01_run-1_label-tumor_mask',
            'sub-01_run-1_desc-brain_mask',
        )  # fmt: skip
        first, second = collect(root)
        assert first.tumor_mask and first.brain_mask
        assert second.tumor_mask is None and second.brain_mask is None

    def test_a_mask_without_run_serves_every_run(self, tree):
        root = tree('sub-01_run-1_T1w', 'sub-01_run-2_T1w', 'sub-01_label-lesion_roi')
        assert [found.tumor_mask.name for found in collect(root)] == [
            'sub-01_label-lesion_roi.nii.gz'
        ] * 2

    def test_of_two_masks_that_of_the_tumor_counts(self, tree):
        root = tree('sub-01_T1w', 'sub-01_label-lesion_roi', 'sub-01_label-tumor_mask')
        (found,) = collect(root)
        assert found.tumor_mask.name == 'sub-01_label-tumor_mask.nii.gz'

    @pytest.mark.parametrize('other', ['ce-gd', 'mod-FLAIR'])
    def test_of_two_masks_that_of_no_other_image_counts(self, tree, other):
        root = tree('sub-01_T1w', f'sub-01_{other}_label-tumor_mask', 'sub-01_label-tumor_mask')
        (found,) = collect(root)
        assert found.tumor_mask.name == 'sub-01_label-tumor_mask.nii.gz'

    @pytest.mark.parametrize('name', ['chunk-1', 'foo-2', 'desc-a'])
    def test_entities_that_outputs_would_lose(self, name):
        t1w = Path(f'/x/sub-01_ses-a_{name}_T1w.nii.gz')
        with pytest.raises(TumorregError, match=f'cannot be named after {name[:-2]}-'):
            check_names([Anatomy('01', 'a', t1w)])

    @pytest.mark.parametrize(
        ('name', 'said'),
        [
            ('rec-c_acq-b', 'in another order'),
            ('acq-a_acq-b', 'each once'),
            ('run-a', 'run-a must have a number'),
            ('echo-1b', 'echo-1b must have a number'),
        ],
    )
    def test_entities_that_outputs_would_change(self, name, said):
        """Outputs of ``rec-c_acq-b`` would be named as those of ``acq-b_rec-c``."""
        with pytest.raises(TumorregError, match=said):
            check_names([Anatomy('01', None, Path(f'/x/sub-01_{name}_T1w.nii.gz'))])

    def test_an_image_outside_of_anat(self, tree):
        root = tree('sub-01_T1w')
        (root / 'sub-01' / 'sub-01_acq-b_T1w.nii.gz').touch()
        assert [found.t1w.name for found in collect(root)] == ['sub-01_T1w.nii.gz']

    def test_the_phase_is_no_flair(self, tree):
        (found,) = collect(tree('sub-01_T1w', 'sub-01_part-phase_FLAIR'))
        assert found.flair is None

    def test_acquisitions_keep_their_masks(self, tree):
        root = tree(
            'sub-01_acq-iso_T1w', 'sub-01_acq-thick_T1w', 'sub-01_acq-thick_label-tumor_mask'
        )
        iso, thick = collect(root)
        assert iso.tumor_mask is None and 'acq-thick' in thick.tumor_mask.name

    def test_sessions_have_masks_of_their_own_in_derivatives(self, tree):
        root = tree('sub-01_ses-1_T1w', 'sub-01_ses-2_T1w', 'sub-01_ses-3_T1w')
        manual = tree(
            'sub-01_ses-1_label-tumor_mask', 'sub-01_ses-2_label-tumor_mask', root='manual'
        )
        names = [
            found.tumor_mask and found.tumor_mask.name
            for found in sorted(collect(root, derivatives=[manual]), key=lambda a: a.session)
        ]
        assert names == [f'sub-01_ses-{n}_label-tumor_mask.nii.gz' for n in (1, 2)] + [None]

    def test_two_images_of_one_label(self, tree):
        """A filter may take two suffixes, which names of outputs do not have."""
        root = tree('sub-01_T1w', 'sub-01_UNIT1')
        both = collect(root, filters={'t1w': {'suffix': ['T1w', 'UNIT1']}})
        assert [one.label for one in both] == ['sub-01'] * 2
        with pytest.raises(TumorregError, match='their outputs would have one name'):
            check_names(both)

    def test_a_mask_of_one_hemisphere(self, tree):
        root = tree(
            'sub-01_T1w', 'sub-01_hemi-L_label-tumor_mask', 'sub-01_hemi-R_label-tumor_mask'
        )
        with pytest.raises(TumorregError, match='hemi-L_label-tumor_mask.*Join both'):
            check_names(collect(root))

    def test_any_value_in_a_list(self, tree):
        root = tree('sub-01_run-1_T1w', 'sub-01_run-1_FLAIR')
        (found,) = collect(root, filters={'flair': {'run': ['*']}})
        assert found.flair is not None

    def test_a_name_that_does_not_say_its_session(self, tree):
        root = tree('sub-01_ses-a_T1w')
        (root / 'sub-01/ses-a/anat/sub-01_T1w.nii.gz').touch()
        with pytest.raises(TumorregError, match='lies in ses-a, and its name must say so'):
            check_names(collect(root))

    def test_two_files_of_one_name(self, tree):
        root = tree('sub-01_T1w')
        (root / 'sub-01/anat/sub-01_T1w.nii').touch()
        with pytest.raises(
            TumorregError, match=r'sub-01_T1w\.nii.*: their outputs would have one name'
        ):
            check_names(collect(root))

    @pytest.mark.parametrize('kind', ['FLAIR', 'label-tumor_mask', 'desc-brain_mask'])
    def test_two_files_of_one_name_beside_the_t1w(self, tree, kind):
        """Which of them would be taken, nobody could say."""
        root = tree('sub-01_T1w', f'sub-01_{kind}')
        (root / f'sub-01/anat/sub-01_{kind}.nii').touch()
        with pytest.raises(TumorregError, match=r'lies beside it\. Remove one'):
            check_names(collect(root))

    def test_copies_that_were_put_aside(self, tree):
        """Folders within anat are no part of BIDS."""
        root = tree('sub-01_T1w', 'sub-01_FLAIR', 'sub-01_label-tumor_mask')
        tree('sub-01_ses-a_T1w', 'sub-01_ses-a_FLAIR')
        for anat in (root / 'sub-01/anat', root / 'sub-01/ses-a/anat'):
            aside = anat / 'backup'
            aside.mkdir()
            for path in anat.glob('*.nii.gz'):
                (aside / path.name).touch()
        found = collect(root)
        assert len(found) == 2
        check_names(found)
        for anatomy in found:
            for path in (anatomy.t1w, anatomy.flair, *anatomy.masks):
                assert path.parent.name == 'anat'

    @pytest.mark.parametrize(
        'above', ['run-3', 'sub-study', 'ses-02', 'desc-x', 'space-MNI', 'ce-gad', 'dwi', 'x(y']
    )
    def test_folders_above_are_named_as_entities_are(self, tree, above):
        """Each run has its own images, and masks; they are in a folder of such a name, too."""
        runs = [f'sub-01_run-{run}_{kind}' for run in (1, 2) for kind in ('T1w', 'FLAIR')]
        (tree(root='.') / above).mkdir()
        root = tree(*runs, 'sub-01_run-1_label-tumor_mask', root=f'{above}/bids')
        masks = tree('sub-01_run-2_label-tumor_mask', root=f'{above}/masks')
        for database in (None, root.parent / 'database'):
            layout = open_layout(root, ['01'], database)
            found = collect_anatomies(layout, ['01'], derivatives=[open_layout(masks, ['01'])])[
                '01'
            ]
            check_names(found)
            named = [
                [path.name.split('_')[1] for path in (one.t1w, one.flair, one.tumor_mask)]
                for one in found
            ]
            assert named == [['run-1'] * 3, ['run-2'] * 3]

    @pytest.mark.parametrize(
        ('place', 'name', 'said'),
        [
            ('sub-01/anat', 'sub-02_T1w', 'says sub-02, its folder sub-01'),
            ('sub-01/anat', 'sub-02_label-tumor_mask', 'says sub-02, its folder sub-01'),
            ('sub-01/anat', 'sub-02_FLAIR', 'says sub-02, its folder sub-01'),
            ('sub-01/ses-a/anat', 'sub-01_ses-b_T1w', 'says ses-b, its folder ses-a'),
        ],
    )
    def test_names_of_another_folder(self, tree, place, name, said):
        """A folder was copied and its files not renamed: outputs would be the other's."""
        root = tree('sub-01_T1w', 'sub-02_T1w')
        check_names(collect(root))
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / f'{name}.nii.gz').touch()
        with pytest.raises(TumorregError, match=f'{name}.*{said}'):
            check_names(collect(root))

    @pytest.mark.parametrize('acq', ['$(touch x)', '<b>bold<b>'])
    def test_names_that_are_none_of_bids(self, tree, acq):
        root = tree('sub-01_T1w', f'sub-01_acq-{acq}_T1w')
        with pytest.raises(TumorregError, match='no name of BIDS'):
            check_names(collect(root))

    def test_uncompressed_images(self, tree):
        root = tree()
        anat = root / 'sub-01' / 'anat'
        anat.mkdir(parents=True)
        for name in ('sub-01_T1w.nii', 'sub-01_FLAIR.nii', 'sub-01_label-tumor_mask.nii'):
            (anat / name).touch()
        (found,) = collect(root)
        assert found.flair.name == 'sub-01_FLAIR.nii'
        assert found.tumor_mask.name == 'sub-01_label-tumor_mask.nii'

    def test_what_is_no_t1w(self, tree):
        root = tree(
            'sub-01_T1w', 'sub-01_desc-preproc_T1w', 'sub-01_space-MNI_T1w', 'sub-01_part-mag_T1w',
            'sub-01_ce-gad_run-1_T1w', 'sub-01_ce-gad_FLAIR', 'sub-01_T2w', 'sub-01_inplaneT1',
        )  # fmt: skip
        (found,) = collect(root)
        assert found.t1w.name == 'sub-01_T1w.nii.gz' and found.flair is None


class TestFolders:
    def test_links_that_lead_nowhere(self, tree):
        root = tree('sub-01_T1w', 'sub-02_ses-a_T1w')
        (root / 'sub-03').symlink_to('/nowhere')
        (root / 'sub-02' / 'ses-b').symlink_to('/nowhere')
        (root / 'sub-04').write_text('a file')
        assert find_participants(root, []) == ['01', '02', '03']
        assert find_participants(root, ['03']) == ['03']
        check_folders(root, '01')
        check_folders(root, '02', ['a'])
        for label, sessions in (('02', []), ('02', ['b']), ('03', [])):
            with pytest.raises(TumorregError, match='this link leads nowhere'):
                check_folders(root, label, sessions)

    @pytest.mark.parametrize('closed', ['sub-01', 'sub-01/ses-a', 'sub-01/ses-a/anat'])
    def test_one_that_may_not_be_read(self, tree, closed, monkeypatch):
        """Who may do all is asked as if he might not."""
        root = tree('sub-01_ses-a_T1w', 'sub-02_T1w')
        monkeypatch.setattr('os.access', lambda path, mode: path != root / closed)
        check_folders(root, '02')
        with pytest.raises(TumorregError, match=f'{closed}: no permission'):
            check_folders(root, '01')

    def test_no_dataset(self, tmp_path):
        with pytest.raises(TumorregError, match='no such folder'):
            find_participants(tmp_path / 'nope', [])


class TestLinks:
    def test_the_dataset_a_participant_or_a_file(self, tree, tmp_path):
        root = tree('sub-01_T1w', 'sub-01_FLAIR', 'sub-01_label-lesion_roi')
        whole, parts, files = (tmp_path / name for name in ('whole', 'parts', 'files'))
        whole.symlink_to(root)
        for folder in (parts, files / 'sub-01' / 'anat'):
            folder.mkdir(parents=True)
        (parts / 'sub-01').symlink_to(root / 'sub-01')
        for path in (root / 'sub-01' / 'anat').iterdir():
            (files / 'sub-01' / 'anat' / path.name).symlink_to(path)
        for folder in (whole, parts, files):
            assert find_participants(folder, []) == ['01']
            (found,) = collect(folder)
            assert found.t1w.parent == folder / 'sub-01' / 'anat'  # links stay links
            assert found.flair and found.tumor_mask

    def test_equal_files_of_datalad_are_two(self, tree):
        """Files of one content are links to one object."""
        root = tree()
        anat, objects = root / 'sub-01' / 'anat', root / '.git' / 'annex' / 'objects'
        for folder in (anat, objects):
            folder.mkdir(parents=True)
        (objects / 'MD5E-s0.nii.gz').touch()
        for run in (1, 2):
            (anat / f'sub-01_run-{run}_T1w.nii.gz').symlink_to(objects / 'MD5E-s0.nii.gz')
        assert len(collect(root)) == 2

    def test_links_that_lead_round_in_circles(self, tree):
        root = tree('sub-01_T1w')
        for name in ('one', 'two'):
            (root / 'sub-01' / name).symlink_to('..')
        assert len(collect(root)) == 1


class TestFilters:
    def test_null_and_any(self, tree):
        root = tree('sub-01_T1w', 'sub-01_acq-a_T1w', 'sub-01_ce-gad_T1w')
        (found,) = collect(root, filters={'t1w': {'acquisition': None}})
        assert found.t1w.name == 'sub-01_T1w.nii.gz'
        (found,) = collect(root, filters={'t1w': {'acquisition': '*'}})
        assert found.t1w.name == 'sub-01_acq-a_T1w.nii.gz'

    def test_flair_and_masks(self, tree):
        root = tree(
            'sub-01_T1w', 'sub-01_acq-2d_FLAIR', 'sub-01_acq-3d_FLAIR',
            'sub-01_label-tumor_desc-expert_mask', 'sub-01_label-necrosis_mask',
        )  # fmt: skip
        (found,) = collect(root)
        assert found.tumor_mask is None
        (found,) = collect(
            root, filters={'flair': {'acquisition': '3d'}, 'tumor': {'desc': 'expert'}}
        )
        assert 'acq-3d' in found.flair.name and 'desc-expert' in found.tumor_mask.name
        (found,) = collect(root, filters={'tumor': {'label': 'necrosis'}})
        assert 'label-necrosis' in found.tumor_mask.name

    def test_no_t1w_with_contrast_agent(self):
        with pytest.raises(TumorregError, match='"ceagent" in the query for t1w'):
            check_filters({'t1w': {'ceagent': 'gad'}})
        check_filters({'t1w': {'ceagent': None}, 'flair': {'ceagent': 'gad'}})

    def test_sessions_are_those_of_the_option_and_of_the_filter(self, tree):
        root = tree('sub-01_ses-1_T1w', 'sub-01_ses-2_T1w')
        assert collect(root, sessions=['1'], filters={'t1w': {'session': '2'}}) == []

    def test_another_participant_is_never_taken(self, tree):
        root = tree('sub-01_T1w', 'sub-02_T1w')
        layout = open_layout(root, ['01', '02'])
        filters = {'t1w': {'subject': '02'}}
        (found,) = collect_anatomies(layout, ['01'], filters=filters)['01']
        assert found.t1w.name == 'sub-01_T1w.nii.gz'

    def test_queries_that_are_none(self, tree):
        layout = open_layout(tree('sub-01_T1w'), ['01'])
        for query in (
            'T1w', 5, ['session'], {'nonsense': 'x'}, {'return_type': 'filename'},
            {'session': {'a': 1}}, {'session': '((', 'regex_search': True}, {'session': 1.5},
            {'target': 'run'},
        ):  # fmt: skip
            with pytest.raises(TumorregError, match='--bids-filter-file'):
                collect_anatomies(layout, ['01'], filters={'t1w': query})


@pytest.mark.parametrize('content', [b'[' * 100000, b'\xff\xfe\x00', b'[]', b'5', b''])
def test_descriptions_that_make_no_sense(tree, content):
    root = tree('sub-01_T1w')
    (root / 'dataset_description.json').write_bytes(content)
    with pytest.raises(TumorregError, match=r'dataset_description\.json'):
        check_dataset(root)


def test_a_description_written_on_windows(tree):
    root = tree('sub-01_T1w')
    description = root / 'dataset_description.json'
    description.write_bytes(b'\xef\xbb\xbf' + description.read_bytes())
    check_dataset(root)
    assert len(collect(root)) == 1


def test_a_folder_pybids_cannot_read(tree):
    root = tree('sub-01_T1w')
    (root / 'dataset_description.json').write_text('[' * 100000)
    with pytest.raises(TumorregError, match='cannot be read by pybids'):
        open_layout(root, ['01'])


def test_a_folder_of_masks_without_description(tree):
    root, manual = tree('sub-01_T1w'), tree('sub-01_label-tumor_mask', root='manual')
    (manual / 'dataset_description.json').unlink()
    (found,) = collect(root, derivatives=[manual])
    assert found.tumor_mask.parent == manual / 'sub-01' / 'anat'
