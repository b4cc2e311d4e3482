"""Which images and masks of a BIDS dataset belong together."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.files import read_dictionary

#: Where the reference label of a whole tumour is looked for, in a dataset.
REFERENCES = 'derivatives/*/sub-X/anat/*_label-tumor_{dseg,mask}.nii.gz'

#: Entities a FLAIR or a mask may share with a T1w, the more the better.
SHARED_ENTITIES = ('run', 'acquisition', 'reconstruction')

#: What BIDS allows after the dash of an entity.
LABEL = re.compile(r'[A-Za-z0-9+]+')

#: Names that BIDS allows. Any other would lose its entities, and outputs overwrite one another.
BIDS_NAME = re.compile(r'sub-[A-Za-z0-9+]+(_[a-z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+\.nii(\.gz)?')

#: Entities of a T1w that names of outputs keep.
KEPT = ('sub', 'ses', 'acq', 'ce', 'rec', 'run', 'echo')

#: Of these, those that are numbers.
NUMBERED = ('run', 'echo')

#: What pybids need not look at: no participant's, no anatomy, no image. Other folders at the top
#: may hold derivatives, our own among them, whose masks nobody has given.
NOT_INDEXED = (
    re.compile(r'^/(?!sub-)[^/]+(/|$)'),
    # pybids would take sub-01_old for a folder of sub-01
    re.compile(r'^/?sub-(?![A-Za-z0-9+]+(/|$))'),
    re.compile(r'^/sub-.*/(beh|dwi|eeg|fmap|func|ieeg|meg|micr|motion|mrs|nirs|perf|pet)(/|$)'),
    re.compile(r'^/sub-.*/(figures|log)(/|$)'),
    re.compile(r'^/sub-.*/[^/.]+\.(?!nii(\.gz)?$)[^/]*$'),
    # files of BIDS lie in sub-X/ses-Y/anat at most: below are copies that somebody put aside, and
    # links may lead round in circles
    re.compile(r'^/?sub-[^/]+/(ses-[^/]+/)?(?!ses-)[^/]+/[^/]+/'),
    re.compile(r'^/?([^/]+/){4}'),
)

#: What pybids knows of entities, by the names of its own files.
CONFIGS = ['bids', 'derivatives']

#: The file pybids makes in the folder of a database.
DATABASE = 'layout_index.sqlite'

#: With more participants the database is asked for all: it takes long to compare with each name.
MOST_NAMED = 100


@dataclass(frozen=True)
class Anatomy:
    """One T1w and what goes with it.

    Attributes
    ----------
    subject, session : labels; ``session`` is None where there are none.
    t1w, flair : images of one session; ``flair`` is None where there is none.
    tumor_mask, brain_mask : masks given by the user; None where there are none.
    skull_strip : whether the brain has to be found in the T1w first.
    whole_head : whether the T1w shows more than the brain.
    """

    subject: str
    session: str | None
    t1w: Path
    flair: Path | None = None
    tumor_mask: Path | None = None
    brain_mask: Path | None = None
    skull_strip: bool = False
    whole_head: bool = False

    @property
    def masks(self) -> list[Path]:
        """The masks there are."""
        return [mask for mask in (self.tumor_mask, self.brain_mask) if mask is not None]

    @property
    def label(self) -> str:
        """Name for workflows and messages, from the T1w's entities."""
        return self.t1w.name.rpartition('_')[0]


def check_dataset(bids_dir: Path) -> None:
    """Raise :class:`TumorregError` unless a folder is a BIDS dataset."""
    description = bids_dir / 'dataset_description.json'
    if not bids_dir.is_dir():
        raise TumorregError(f'{bids_dir}: no such folder.')
    if not description.is_file():
        hint = f' Did you mean {bids_dir.parent}?' if bids_dir.name.startswith('sub-') else ''
        raise TumorregError(
            f'{bids_dir}: not a BIDS dataset, it has no dataset_description.json.{hint}'
        )
    try:
        fields = json.loads(description.read_text(encoding='utf-8-sig'))
    except (ValueError, OSError, RecursionError) as error:
        raise TumorregError(f'{description}: cannot be read as JSON ({error}).') from None
    if not isinstance(fields, dict) or 'BIDSVersion' not in fields:
        raise TumorregError(f'{description}: the field BIDSVersion is missing.')


def list_some(names: Sequence[str], most: int) -> str:
    """List names for a message: the first ones, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def find_participants(bids_dir: Path, wanted: Sequence[str]) -> list[str]:
    """Labels of the participants to process: the wanted ones, or all.

    Raises
    ------
    TumorregError
        If one is not in the dataset, or is no label but perhaps a path that leads elsewhere.
    """
    labels = [label.removeprefix('sub-') for label in wanted]
    if odd := [label for label in labels if not LABEL.fullmatch(label)]:
        raise TumorregError(
            f'participant {", ".join(odd)}: a label has letters and digits alone. Check what was '
            'asked for, and names of folders.'
        )
    # to list a hundred thousand folders takes long: only where all are asked for
    missing = [label for label in labels if not _is_folder(bids_dir / f'sub-{label}')]
    if labels and not missing:
        return list(dict.fromkeys(labels))
    if not bids_dir.is_dir():
        raise TumorregError(f'{bids_dir}: no such folder.')
    present = [label for label in _list_labels(bids_dir) if LABEL.fullmatch(label)]
    if not present:
        raise TumorregError(f'{bids_dir}: no participants (sub-*) in this dataset.')
    if missing:
        raise TumorregError(
            f'{bids_dir}: no participant {", ".join(missing)} here. There are: '
            f'{list_some(present, 10)}.'
        )
    return present


def find_misnamed(bids_dir: Path) -> list[str]:
    """Names of folders of a dataset that look like a participant's, but have no label's name."""
    return [f'sub-{label}' for label in _list_labels(bids_dir) if not LABEL.fullmatch(label)]


def _list_labels(bids_dir: Path) -> list[str]:
    return sorted(path.name[len('sub-') :] for path in bids_dir.glob('sub-*') if _is_folder(path))


def _is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link that leads nowhere and should lead to one."""
    return path.is_dir() or (path.is_symlink() and not path.exists())


def check_folders(bids_dir: Path, participant: str, sessions: Sequence[str] = ()) -> None:
    """Refuse a participant whose folders cannot be looked into.

    Raises
    ------
    TumorregError
        If one may not be read, or is a link that leads nowhere; of sessions those asked for count.
    """
    top = bids_dir / f'sub-{participant}'
    below = sorted(path for form in ('*/', 'ses-*', 'ses-*/*/') for path in top.glob(form))
    for folder in (top, *below):
        named = [part[4:] for part in folder.relative_to(top).parts if part.startswith('ses-')]
        if sessions and not set(named) <= set(sessions):
            continue
        if folder.is_symlink() and not folder.exists():
            raise TumorregError(
                f'{folder}: this link leads nowhere. Mend it, or fetch what it leads to.'
            )
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise TumorregError(f'{folder}: no permission to look into this folder.')


def find_cases(
    dataset: Path, wanted: Sequence[str] = (), *, label: str = 'tumor'
) -> list[Anatomy]:
    """Find skull-stripped images and their reference labels, to learn from or to measure on.

    Parameters
    ----------
    dataset : BIDS dataset without sessions: ``sub-X/anat/sub-X_{T1w,FLAIR}.nii.gz``.
    wanted : labels of participants; all where empty.
    label : of the reference, :data:`REFERENCES`.

    Returns
    -------
    cases : one per participant, ``tumor_mask`` being the reference. What tumorreg found itself
        is none.

    Raises
    ------
    TumorregError
        If a T1w is missing, or there are references of several folders.
    """
    folders = [
        folder
        for folder in sorted(Path(dataset).glob('derivatives/*/'))
        if not is_own_output(folder)
    ]
    cases = []
    for subject in find_participants(Path(dataset), wanted):
        stem = Path(dataset) / f'sub-{subject}' / 'anat' / f'sub-{subject}'
        flair = stem.with_name(f'{stem.name}_FLAIR.nii.gz')
        references = [
            path
            for suffix in ('dseg', 'mask')
            for folder in folders
            for path in sorted(folder.glob(f'sub-{subject}/anat/*_label-{label}_{suffix}.nii.gz'))
            if '_space-' not in path.name
        ]
        if len({path.parent for path in references}) > 1:
            raise TumorregError(
                f'sub-{subject}: references in several folders, '
                f'{list_some([str(path) for path in references], 3)}. Leave one in {dataset}.'
            )
        t1w = stem.with_name(f'{stem.name}_T1w.nii.gz')
        if not t1w.is_file():
            raise TumorregError(
                f'{t1w}: no such file. Names are sub-X/anat/sub-X_T1w.nii.gz here, without '
                'sessions or other entities.'
            )
        cases.append(
            Anatomy(
                subject=subject,
                session=None,
                t1w=t1w,
                flair=flair if flair.exists() else None,
                tumor_mask=references[0] if references else None,
            )
        )
    return cases


def is_own_output(folder: Path) -> bool:
    """Whether tumorreg wrote a folder of derivatives."""
    description = read_dictionary(folder / 'dataset_description.json')
    try:
        return any(one.get('Name') == 'tumorreg' for one in description['GeneratedBy'])
    except (KeyError, TypeError, AttributeError):
        return False


def open_layout(root: Path, participants: Iterable[str], database_dir: Path | None = None):
    """Index the participants of a dataset with pybids, or reuse a database of all of it.

    Several processes may do so at once with one database.

    Parameters
    ----------
    root : of the dataset.
    participants : labels; what a database indexes are all of them.
    database_dir : folder of the database; it is made where there is none.

    Returns
    -------
    layout : :class:`bids.BIDSLayout`.

    Raises
    ------
    TumorregError
        If pybids cannot read the dataset, or the database is that of another one or another
        program's.
    """
    if database_dir is None:
        labels = '|'.join(map(re.escape, participants))
        return _index(root, [re.compile(rf'^/?sub-(?!({labels})(/|$))')])
    from bids import BIDSLayout

    if not (database_dir / DATABASE).exists():
        database_dir.mkdir(parents=True, exist_ok=True)
        # nobody may see half of an index, and of two that are made at once the last one stays
        with tempfile.TemporaryDirectory(prefix='.indexing-', dir=database_dir) as part:
            _index(root, [], Path(part)).connection_manager.session.close()
            os.replace(Path(part) / DATABASE, database_dir / DATABASE)
    try:
        layout = BIDSLayout(root, validate=False, is_derivative=False, database_path=database_dir)
    except Exception as error:  # of pybids, of SQL, of the file system
        raise TumorregError(
            f'{database_dir}: this database cannot be read ({error}). Delete it.'
        ) from None
    if Path(layout.root) != root:
        raise TumorregError(
            f'{database_dir}: the database of another dataset, {layout.root}. '
            'Give another --bids-database-dir, or delete this one.'
        )
    # what others index has other entities, and files of earlier runs among the dataset's own
    if layout.connection_manager.layout_info.config != _configs(root):
        raise TumorregError(
            f'{database_dir}: this database was made by another program, or another version of '
            'tumorreg. Give another --bids-database-dir, where it makes its own.'
        )
    return layout


def _index(root: Path, ignore: list[re.Pattern], database_dir: Path | None = None):
    from bids import BIDSLayout, BIDSLayoutIndexer

    try:
        return BIDSLayout(
            root,
            validate=False,
            is_derivative=False,
            config=_configs(root),
            database_path=database_dir,
            indexer=BIDSLayoutIndexer(
                validate=False, index_metadata=False, ignore=[*NOT_INDEXED, *ignore]
            ),
        )
    except Exception as error:  # of pybids, of SQL, of the file system
        raise TumorregError(f'{root}: this dataset cannot be read by pybids ({error}).') from None


def _configs(root: Path) -> list[dict]:
    """What pybids knows of entities, looked for in names below a dataset's root alone.

    Folders above it, as /data/run-3/bids, may have names like those of entities.
    """
    from bids.config import get_option

    paths = get_option('config_paths')
    configs = [json.loads(Path(paths[name]).read_text(encoding='utf-8')) for name in CONFIGS]
    root = Path(root).absolute()
    above = rf'^{re.escape(str(root))}(?=/).*?'
    for entity in (entity for config in configs for entity in config['entities']):
        if 'pattern' in entity:
            entity['pattern'] = above + entity['pattern']
    return configs


def collect_anatomies(
    layout,
    participants: Sequence[str],
    *,
    sessions: Sequence[str] = (),
    filters: dict | None = None,
    derivatives: Sequence = (),
) -> dict[str, list[Anatomy]]:
    """Find the images of participants and the masks that belong to each.

    Parameters
    ----------
    layout : of the dataset.
    participants : labels.
    sessions : labels to keep; all where empty.
    filters : as in a BIDS filter file: queries for ``t1w``, ``flair``, ``tumor``, ``brain``.
    derivatives : layouts that may hold masks, searched before the dataset.

    Returns
    -------
    anatomies : by participant, one per T1w. Contrast-enhanced images are never taken for T1w. A
        mask of another run, acquisition or reconstruction than the T1w's is not taken for it.

    Raises
    ------
    TumorregError
        If a filter is no query.
    """
    filters = check_filters(filters or {})
    plain: dict = {'extension': ['.nii', '.nii.gz']}
    if len(participants) <= MOST_NAMED:
        plain['subject'] = list(participants)
    if sessions:
        plain['session'] = list(sessions)

    def query(sources, name: str, **entities) -> dict[str, list]:
        """Find files by participant: a query each takes pybids as long as one for all."""
        found: dict[str, dict] = defaultdict(dict)
        for source in sources:
            files = source.get(**{**plain, **entities, **filters.get(name, {})})
            for file in sorted(files, key=_less_likely):
                # a folder is shown many times where links lead in a circle
                path = Path(file.dirname).resolve(), file.filename
                found[file.entities.get('subject')].setdefault(path, file)
        return {subject: list(files.values()) for subject, files in found.items()}

    everywhere = (*derivatives, layout)
    raw: dict = {'datatype': 'anat', **dict.fromkeys(('ceagent', 'desc', 'space', 'part'))}
    t1ws = query([layout], 't1w', suffix='T1w', **raw)
    flairs = query([layout], 'flair', suffix='FLAIR', **raw)
    tumors = query(
        everywhere, 'tumor', suffix=['mask', 'roi'], label=['tumor', 'lesion'], desc=None
    )
    brains = query(everywhere, 'brain', suffix='mask', desc='brain')
    return {
        subject: [
            Anatomy(
                subject=subject,
                session=t1w.entities.get('session'),
                t1w=Path(t1w.path),
                flair=_best_match(t1w, flairs.get(subject, [])),
                tumor_mask=_best_match(t1w, _fitting(tumors.get(subject, []), t1w)),
                brain_mask=_best_match(t1w, _fitting(brains.get(subject, []), t1w)),
            )
            for t1w in t1ws.get(subject, [])
            if not sessions or t1w.entities.get('session') in sessions
        ]
        for subject in participants
    }


def check_filters(filters: dict) -> dict[str, dict]:
    """Check the queries of a BIDS filter file, and make queries for pybids of them.

    Raises
    ------
    TumorregError
        If one is no query.
    """
    return {name: _check_filter(name, query) for name, query in filters.items()}


def _check_filter(name: str, query) -> dict:
    """Check a query of a BIDS filter file; '*' stands for any value, as in fMRIPrep."""
    from bids.layout import Config, Query

    known = {entity for config in CONFIGS for entity in Config.load(config).entities}
    if not isinstance(query, dict) or not set(query) <= known:
        raise TumorregError(
            f'--bids-filter-file: the query for {name} must be an object whose keys are entities '
            f'as pybids names them (session, acquisition, run, ...); it is {query!r:.200}.'
        )
    if name == 't1w' and query.get('ceagent') is not None:
        raise TumorregError(
            '--bids-filter-file: "ceagent" in the query for t1w: a T1w with contrast agent will '
            'not do, and is never taken.'
        )
    for value in query.values():
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, str | int | None) or not _is_value(part):
                raise TumorregError(
                    f'--bids-filter-file: {part!r:.200} in the query for {name} is no value of an '
                    'entity. Texts, numbers, null (none), "*" (any) and lists of these are.'
                )
    # whose images they are is no matter of filters
    return {
        key: Query.ANY if value in ('*', ['*']) else value
        for key, value in query.items()
        if key != 'subject'
    }


def _is_value(value) -> bool:
    """Whether a database can be asked for a value of JSON: no half of a character, 64 bits."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return not isinstance(value, int) or abs(value) < 2**63


def check_names(anatomies: Iterable[Anatomy]) -> None:
    """Refuse images of one participant whose outputs would overwrite one another, or another's.

    Raises
    ------
    TumorregError
        If the name of a T1w is not one of BIDS, has an entity that outputs do not keep, or two
        T1w have one name; if a name says another participant or session than its folder.
    """
    seen: dict[str, Path] = {}
    for anatomy in anatomies:
        t1w = anatomy.t1w
        if not BIDS_NAME.fullmatch(t1w.name):
            raise TumorregError(
                f'{t1w}: this is no name of BIDS (letters and digits alone after the dash of an '
                'entity). Rename it.'
            )
        parts = [part.split('-') for part in t1w.name.split('_')[:-1]]
        entities = [entity for entity, _ in parts]
        if unknown := [entity for entity in entities if entity not in KEPT]:
            raise TumorregError(
                f'{t1w}: outputs cannot be named after {unknown[0]}-, for a T1w may have '
                f'{", ".join(KEPT)} alone. Give the image, or a link to it, another name.'
            )
        if entities != [entity for entity in KEPT if entity in entities]:
            raise TumorregError(
                f'{t1w}: BIDS wants the entities of a name in another order, each once: '
                f'{", ".join(KEPT)}. Rename it.'
            )
        if words := [
            f'{entity}-{label}'
            for entity, label in parts
            if entity in NUMBERED and not label.isdecimal()
        ]:
            raise TumorregError(f'{t1w}: {words[0]} must have a number after the dash. Rename it.')
        other = seen.setdefault(anatomy.label, t1w)
        if other != t1w:
            raise TumorregError(
                f'{other} and {t1w}: their outputs would have one name. Remove one, or leave it '
                'out with --bids-filter-file.'
            )
        for path in (t1w, anatomy.flair, *anatomy.masks):
            if path is not None:
                _check_place(path, anatomy)
                if path != t1w and (twin := _twin(path)).exists():
                    raise TumorregError(f'{path}: {twin.name} lies beside it. Remove one of them.')
                if '_hemi-' in path.name:
                    raise TumorregError(
                        f'{path}: of one hemisphere, by its name. Join both into one image.'
                    )
        if anatomy.session is not None and '_ses-' not in t1w.name:
            raise TumorregError(
                f'{t1w}: it lies in ses-{anatomy.session}, and its name must say so. Rename it.'
            )


def _twin(path: Path) -> Path:
    """The file of the same name that is compressed if this one is not, and the other way round."""
    name = path.name
    return path.with_name(name[: -len('.gz')] if name.endswith('.gz') else f'{name}.gz')


def _check_place(path: Path, anatomy: Anatomy) -> None:
    """Check that the name of a file says the participant and the session of its folder."""
    for entity, label in (('sub', anatomy.subject), ('ses', anatomy.session)):
        named = re.search(f'(?:^|_){entity}-([A-Za-z0-9+]+)_', path.name)
        if named and named[1] != label:
            raise TumorregError(
                f'{path}: its name says {entity}-{named[1]}, its folder '
                f'{"none" if label is None else f"{entity}-{label}"}. Whose is it? Rename or move '
                'it.'
            )


def _less_likely(file) -> tuple[bool, bool]:
    """Sort key: of two masks that fit equally that of the tumour counts, and that of no image."""
    label, named = file.entities.get('label'), {'ceagent', 'modality'} & set(file.entities)
    return label == 'lesion', bool(named)


def _fitting(masks: list, t1w) -> list:
    """Masks in the T1w's space that are not expressly of another run, acquisition..."""
    return [
        mask
        for mask in masks
        if mask.entities.get('space') in (None, 'T1w', 'orig', 'anat')
        and all(mask.entities.get(key) in (None, t1w.entities.get(key)) for key in SHARED_ENTITIES)
    ]


def _best_match(t1w, candidates: list) -> Path | None:
    """Pick the file of the T1w's session that shares most entities; the first of equals."""
    same = [
        file for file in candidates if file.entities.get('session') == t1w.entities.get('session')
    ]
    if not same:
        return None

    def shared(file) -> int:
        return sum(file.entities.get(key) == t1w.entities.get(key) for key in SHARED_ENTITIES)

    return Path(max(same, key=shared).path)
