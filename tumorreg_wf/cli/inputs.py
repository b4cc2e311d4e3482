"""Which images a run takes, looked at before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tumorreg_wf.bids import (
    Anatomy,
    check_folders,
    check_names,
    collect_anatomies,
    find_misnamed,
    list_some,
    open_layout,
)
from tumorreg_wf.cli.console import Console
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.failures import Failure
from tumorreg_wf.files import describe_error
from tumorreg_wf.settings import Settings


def find_input(
    settings: Settings, participants: list[str], console: Console
) -> tuple[list[Anatomy], dict[str, Failure]]:
    """Collect and check the images; participants that cannot be processed, with the reason."""
    failures: dict[str, Failure] = {}
    for participant in participants:
        try:
            check_folders(settings.bids_dir, participant, settings.sessions)
        except TumorregError as error:
            failures[participant] = Failure(str(error))
    open_ones = [label for label in participants if label not in failures]
    layout = open_layout(settings.bids_dir, open_ones, settings.bids_database_dir)
    found = collect_anatomies(
        layout,
        open_ones,
        sessions=settings.sessions,
        filters=settings.bids_filters,
        derivatives=[open_layout(folder, open_ones) for folder in settings.derivatives],
    )
    count = sum(map(len, found.values()))
    console.say(f'Participants: {len(participants)}; T1w images: {count}')
    anatomies: list[Anatomy] = []
    label = ''
    with console.live(lambda: f'checking the images: {label}'):
        for participant, own in found.items():
            checked: list[Anatomy] = []
            try:
                if not own:
                    raise TumorregError(_no_t1w(participant, settings))
                check_names(own)
                for anatomy in own:
                    label = anatomy.label
                    checked.append(_check_images(anatomy, settings))
                anatomies += checked
            except TumorregError as error:
                failures[participant] = Failure(str(error))
            except OSError as error:  # no permission, or a disk that went away
                failures[participant] = Failure(f'{describe_error(error)}.')
    if misnamed := [] if settings.participants else find_misnamed(settings.bids_dir):
        console.warn(
            f'{list_some(misnamed, 5)}: not looked at. Labels of participants are letters and '
            'digits; rename these folders if they are participants.'
        )
    _warn_of_unused(settings, found, console)
    there = {anatomy.session for own in found.values() for anatomy in own}
    if there and (missing := [session for session in settings.sessions if session not in there]):
        console.warn(f'--session-label {" ".join(missing)}: no participant has a T1w of it.')
    blind = [a.label for a in anatomies if a.flair is None and a.tumor_mask is None]
    if blind:
        console.warn(
            f'{list_some(blind, 5)}: no FLAIR. In a T1w alone the tumour is often missed; give a '
            'FLAIR, or a mask.'
        )
    return anatomies, failures


def _warn_of_unused(settings: Settings, found: dict[str, list[Anatomy]], console: Console) -> None:
    """Say of which T1w no mask of a folder is used, and which are not: a name may be misspelt."""
    anatomies = [anatomy for own in found.values() for anatomy in own]
    used = {mask for anatomy in anatomies for mask in anatomy.masks}
    for folder in settings.derivatives:
        without = [a for a in anatomies if not any(folder in mask.parents for mask in a.masks)]
        if not without:
            continue
        images = [
            path.name
            for subject in dict.fromkeys(anatomy.subject for anatomy in without)
            for path in sorted((folder / f'sub-{subject}').rglob('*.nii*'))
            if path not in used
        ]
        left = f' Not used: {list_some(images, 5)}.' if images else ''
        if inner := next(folder.glob(f'*/sub-{without[0].subject}'), None):
            left += f' Is it {inner.parent} that was meant?'
        console.warn(
            f'{folder}: no mask of it is used for {list_some([a.label for a in without], 5)}. '
            'Masks are named ..._label-tumor_mask, ..._label-lesion_roi or ..._desc-brain_mask, '
            f'with the session and run of the T1w; of two folders the first counts.{left}'
        )


def _no_t1w(participant: str, settings: Settings) -> str:
    where = f' of session {", ".join(settings.sessions)}' if settings.sessions else ''
    message = f'no T1w image (without contrast agent){where} was found.'
    others = sorted((settings.bids_dir / f'sub-{participant}').rglob('*_T1w.nii*'))
    enhanced = [path for path in others if '_ce-' in path.name]
    if others and len(enhanced) == len(others):
        message += f' {enhanced[0].name} was made with one, which its ce- says.'
    elif others and not others[0].name.endswith(('.nii', '.nii.gz')):
        message += f' The name of {others[0].name} must end in .nii.gz or .nii.'
    elif others and settings.sessions and not _in_sessions(others, settings.sessions):
        present = {part[4:] for path in others for part in path.parts if part[:4] == 'ses-'}
        message += f' There are: {", ".join(sorted(present)) or "none"}.'
    elif others:
        filtered = 'a filter leaves it out, ' if settings.bids_filters else ''
        database = settings.bids_database_dir
        newer = f'it is newer than the database {database} (delete that), ' if database else ''
        message += (
            f' {others[0].name} is not taken: {filtered}{newer}it lies outside of anat/, or its '
            'name has desc-, space- or part-, as images have that were processed.'
        )
    else:
        message += f' Its name must be sub-{participant}[_ses-..]_T1w.nii.gz, in anat/.'
    return message


def _in_sessions(paths: list[Path], sessions: tuple[str, ...]) -> bool:
    """Whether any of some files lies in one of some sessions."""
    return any(f'ses-{session}' in path.parts for path in paths for session in sessions)


def _check_images(anatomy: Anatomy, settings: Settings) -> Anatomy:
    """Read every image once: better a message now than a crash in an hour.

    Returns
    -------
    anatomy : the same, and whether it shows a whole head and its brain has to be found.
    """
    from tumorreg_wf.images import load_image, voxel_spacing
    from tumorreg_wf.intensity import is_stripped, require_content
    from tumorreg_wf.reading import check_compressed

    def load(path: Path):
        image = load_image(path)
        check_compressed(path)
        return image

    t1w = load(anatomy.t1w)
    if anatomy.flair is not None:
        require_content(load(anatomy.flair).get_fdata(dtype='float32'), anatomy.flair)
    for path in anatomy.masks:
        mask = load(path)
        if path == anatomy.brain_mask and not (mask.get_fdata(dtype='float32') >= 0.5).any():
            raise TumorregError(f'{path}: this brain mask is empty. Correct it, or leave it out.')
    data = t1w.get_fdata(dtype='float32')
    require_content(data, anatomy.t1w)
    taken_as_stripped = settings.skull_strip == 'skip' and anatomy.brain_mask is None
    whole_head = not (taken_as_stripped or is_stripped(data, voxel_spacing(t1w)))
    sought = anatomy.brain_mask is None and (whole_head or settings.skull_strip == 'force')
    return replace(anatomy, skull_strip=sought, whole_head=whole_head)
