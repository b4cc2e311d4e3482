"""Derivatives: every output under its BIDS name, with a sidecar."""

from __future__ import annotations

import json
from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from tumorreg_wf import __version__
from tumorreg_wf.files import read_dictionary, write_text
from tumorreg_wf.interfaces.bids import DerivativesDataSink
from tumorreg_wf.quality import MEASURES
from tumorreg_wf.template import Template

#: Outputs on the grid of the T1w; they are stored with its order of axes.
IN_PATIENT = (
    't1w_preproc', 't1w_inpainted', 'brain_mask', 'tumor_mask', 'dilated_mask', 'tumor_probseg',
    'dseg', 'inpainted_dseg', 'atlas_dseg', 'gm_probseg', 'wm_probseg', 'csf_probseg', 'atlas',
)  # fmt: skip

#: What BIDS has no name for yet.
BIDSIGNORE = ['*.html', 'logs/', 'sub-*/figures', 'sub-*/log', '*_xfm.*', '*_morph.*']

MORPH_COLUMNS = {
    'volume_mm3': {'Description': 'Volume of the tumour mask', 'Units': 'mm^3'},
    'hemisphere': {
        'Description': 'L, R, or B where over 500 mm^3 of it, or as much, lie on either side of '
        'x = 0 in template space; n/a without a tumour'
    },
    'midline_crossing': {
        'Description': 'Over 500 mm^3 of one part of the tumour lie on either side'
    },
    'n_components': {'Description': 'Separate parts (26-connected)'},
    'n_regions': {'Description': 'Atlas regions the tumour overlaps'},
}

#: Columns of ``atlas-A_desc-tumor_morph.tsv``.
REGION_COLUMNS = {
    'index': {'Description': 'Label of the region in the segmentation'},
    'name': {'Description': 'Name of the region'},
    'hemisphere': {'Description': 'L, R, or B where it lies on both sides'},
    'volume_mm3': {'Description': 'Volume of the region within brain or tumour', 'Units': 'mm^3'},
    'tumor_mm3': {'Description': 'Volume of the region the tumour takes', 'Units': 'mm^3'},
    'tumor_fraction': {'Description': 'Part of the region the tumour takes, 0 to 1'},
    'distance_mm': {
        'Description': "Distance between the region's nearest voxel and the tumour's; 0 where "
        'they overlap',
        'Units': 'mm',
    },
    'reliability': {
        'Description': 'Part of the region, 0 to 1, where the warped atlas says of the tissue '
        'what the T1w says; what was replaced counts as 0'
    },
}


def morph_columns(template: str) -> dict[str, dict]:
    """Describe the columns of ``desc-tumor_morph.tsv``, some of which name the template."""
    spaces = {'centroid': 'the patient', f'centroid_{template}': template}
    centroids = {
        f'{name}_{axis}': {'Description': f'Centre of mass in space of {space}', 'Units': 'mm'}
        for name, space in spaces.items()
        for axis in 'xyz'
    }
    return MORPH_COLUMNS | centroids


def write_dataset_files(out_dir: Path, *, bids_dir: Path, command: str) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore``."""
    description = {
        'Name': 'tumorreg - registration of brains with tumours',
        'BIDSVersion': '1.10.0',
        'DatasetType': 'derivative',
        'GeneratedBy': [{'Name': 'tumorreg', 'Version': __version__, 'Description': command}],
        'SourceDatasets': [{'URL': bids_dir.as_uri()}],
        'DatasetLinks': {'raw': bids_dir.as_uri()},
        'HowToAcknowledge': 'See logs/CITATION.md.',
        'License': 'as the source dataset',
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in {
        'dataset_description.json': json.dumps(description, indent=1) + '\n',
        '.bidsignore': '\n'.join(BIDSIGNORE) + '\n',
    }.items():
        write_text(out_dir / name, text)


def init_derivatives_wf(
    *,
    out_dir: str,
    bids_dir: str,
    t1w: str,
    template: Template,
    std_outputs: bool = True,
    flair: str | None = None,
    user_mask: str | None = None,
    brain_mask: str | None = None,
    skull_strip: bool = False,
    skull_stripped: bool = True,
    name: str = 'derivatives_wf',
) -> Workflow:
    """Store the outputs of one T1w.

    Parameters
    ----------
    out_dir : root of the derivatives.
    bids_dir : root of the dataset, for the sidecars' Sources.
    t1w : the T1w in the dataset; lends its BIDS entities.
    template : the template registered.
    std_outputs : whether to store images in template space.
    flair : the FLAIR in the dataset, where there is one.
    user_mask : file of the tumour mask where the user gave one; then there is no probability.
    brain_mask : file of the brain mask where the user gave one.
    skull_strip : whether a network found the brain.
    skull_stripped : whether the T1w shows a brain alone.
    name : name of the workflow.

    Inputs
    ------
    t1w_preproc, t1w_inpainted, brain_mask, tumor_mask, dilated_mask, tumor_probseg
        Images in patient space, axes in any order; no ``tumor_probseg`` where ``user_mask`` is
        given.
    dseg, inpainted_dseg, atlas_dseg, gm_probseg, wm_probseg, csf_probseg, atlas
        Tissues and labels in patient space.
    dseg_lut, inpainted_dseg_lut, atlas_dseg_lut, atlas_lut
        Their look-up tables (TSV).
    std2anat_xfm, anat2std_xfm
        Composite transforms (.h5).
    regions_tsv, tumor_tsv, quality_tsv
        Tables.
    std_t1w, std_brain_mask, std_tumor_mask
        Images in template space; only where ``std_outputs``.
    """
    raw = [_bids_uri(path, bids_dir) for path in (t1w, brain_mask) if path]
    seen = user_mask or flair  # what the tumour mask was made from besides
    masked = [*raw, *([_bids_uri(seen, bids_dir)] if seen else [])]
    tpl, atlas = template.name, template.atlas_name
    lesion = {'Sources': masked, 'Type': 'Lesion', **_manual(user_mask)}
    dilated = lesion | {'Manual': False}
    plain = {'Sources': raw, 'SkullStripped': skull_stripped}
    # where a network found the brain, a given tumour is part of it
    found = masked if skull_strip and user_mask else raw
    brain = {
        'Sources': raw[1:] or found,
        'Type': 'Brain',
        **_manual(brain_mask),
    }
    filled = {
        'Sources': masked,
        'SkullStripped': skull_stripped,
        'Description': 'Tumour replaced by made-up normal tissue; mass effect remains.',
    }
    computed = {'Sources': masked, 'Manual': False}
    # what the template or the atlas says of the patient comes from their files, too
    tissues = _from_files(computed, template.source)
    regions = _from_files(computed, template.source, template.atlas_source)
    # input field: entities and metadata of its file
    outputs: dict[str, dict] = {
        't1w_preproc': {'desc': 'preproc', 'suffix': 'T1w', 'meta_dict': plain},
        'brain_mask': {'desc': 'brain', 'suffix': 'mask', 'meta_dict': brain},
        'tumor_mask': {'label': 'tumor', 'suffix': 'mask', 'meta_dict': lesion},
        'dilated_mask': {
            'label': 'tumor',
            'desc': 'dilated',
            'suffix': 'mask',
            'meta_dict': dilated,
        },
        't1w_inpainted': {'desc': 'inpainted', 'suffix': 'T1w', 'meta_dict': filled},
        'std2anat_xfm': {'from': tpl, 'to': 'T1w', 'mode': 'image', 'suffix': 'xfm'},
        'anat2std_xfm': {'from': 'T1w', 'to': tpl, 'mode': 'image', 'suffix': 'xfm'},
        'dseg': {'suffix': 'dseg', 'meta_dict': tissues},
        'inpainted_dseg': {'desc': 'inpainted', 'suffix': 'dseg', 'meta_dict': tissues},
        'atlas_dseg': {'desc': 'atlas', 'suffix': 'dseg', 'meta_dict': tissues},
        'gm_probseg': {'label': 'GM', 'suffix': 'probseg', 'meta_dict': tissues},
        'wm_probseg': {'label': 'WM', 'suffix': 'probseg', 'meta_dict': tissues},
        'csf_probseg': {'label': 'CSF', 'suffix': 'probseg', 'meta_dict': tissues},
        'dseg_lut': {'suffix': 'dseg'},
        'inpainted_dseg_lut': {'desc': 'inpainted', 'suffix': 'dseg'},
        'atlas_dseg_lut': {'desc': 'atlas', 'suffix': 'dseg'},
        'atlas_lut': {'atlas': atlas, 'suffix': 'dseg'},
        'atlas': {'atlas': atlas, 'suffix': 'dseg', 'meta_dict': regions},
        'regions_tsv': {
            'atlas': atlas,
            'desc': 'tumor',
            'suffix': 'morph',
            'meta_dict': REGION_COLUMNS,
        },
        'tumor_tsv': {'desc': 'tumor', 'suffix': 'morph', 'meta_dict': morph_columns(tpl)},
        'quality_tsv': {'desc': 'qc', 'suffix': 'morph', 'meta_dict': MEASURES},
    }
    if user_mask is None:
        outputs['tumor_probseg'] = {
            'suffix': 'probseg',
            'label': 'tumor',
            'meta_dict': computed,
        }
    if std_outputs:
        # BIDS knows the standard templates; any other is named by its file
        where = {} if template.source is None else {'SpatialReference': template.source.as_uri()}
        outputs['std_t1w'] = {
            'space': tpl,
            'desc': 'preproc',
            'suffix': 'T1w',
            'meta_dict': _from_files(plain, template.source) | where,
        }
        outputs['std_brain_mask'] = {
            'space': tpl,
            'desc': 'brain',
            'suffix': 'mask',
            'meta_dict': _from_files(brain, template.source) | where,
        }
        outputs['std_tumor_mask'] = {
            'space': tpl,
            'label': 'tumor',
            'suffix': 'mask',
            'meta_dict': _from_files(lesion, template.source) | where,
        }

    workflow = Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(fields=list(outputs)), name='inputnode')
    for field, entities in outputs.items():
        ds = _sink(f'ds_{field}', out_dir, t1w, entities)
        if field in IN_PATIENT:
            ds.inputs.grid = t1w
        workflow.connect([(inputnode, ds, [(field, 'in_file')])])
    return workflow


def _sink(name: str, out_dir: str, source_file: str, entities: dict) -> pe.Node:
    return pe.Node(
        DerivativesDataSink(
            base_directory=out_dir, source_file=source_file, compress=None, **entities
        ),
        name=name,
        mem_gb=0.5,
    )


def _from_files(metadata: dict, *paths: Path | None) -> dict:
    """Name files, those that there are, among the sources besides."""
    return metadata | {'Sources': metadata['Sources'] + [path.as_uri() for path in paths if path]}


def _manual(mask: str | None) -> dict:
    """Say whether a person drew a mask, as its sidecar does; nothing where it is silent."""
    if mask is None:
        return {'Manual': False}
    sidecar = Path(mask.removesuffix('.gz')).with_suffix('.json')
    manual = read_dictionary(sidecar).get('Manual')
    return {'Manual': manual} if isinstance(manual, bool) else {}


def _bids_uri(path: str, bids_dir: str) -> str:
    """Name a file as BIDS URI where it lies in the dataset, else by its path."""
    try:
        return f'bids:raw:{Path(path).relative_to(bids_dir).as_posix()}'
    except ValueError:
        return Path(path).as_uri()
