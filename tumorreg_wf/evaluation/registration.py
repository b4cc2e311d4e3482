"""How well the template fits a brain with a tumour: every way to register it, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import TraitedSpec, isdefined
from nipype.pipeline import engine as pe

from tumorreg_wf.bids import REFERENCES, check_dataset, find_cases
from tumorreg_wf.errors import TumorregError
from tumorreg_wf.evaluation import reliability
from tumorreg_wf.evaluation.figures import Picture, draw_gain, draw_pairs, draw_panel, spread
from tumorreg_wf.evaluation.registration_arms import ARMS, ORACLE, Case, init_case_wf, stage_name
from tumorreg_wf.evaluation.registration_nodes import TISSUES
from tumorreg_wf.evaluation.registration_tables import (
    BASELINE,
    COLUMNS,
    compare_arms,
    summary_of,
)
from tumorreg_wf.evaluation.results import describe_weights, write_results
from tumorreg_wf.images import (
    bounding_box,
    load_image,
    require_images,
    resample,
    to_network_grid,
)
from tumorreg_wf.provenance import fingerprint
from tumorreg_wf.template import load_template
from tumorreg_wf.weights import find_weights
from tumorreg_wf.workflows.base import workflow_name
from tumorreg_wf.workflows.engines import registration_settings
from tumorreg_wf.workflows.workers import MultiProcPlugin


def evaluate_registration(
    dataset: Path,
    out_dir: Path,
    *,
    work_dir: Path,
    participants: Sequence[str] = (),
    arms: Sequence[str] = ARMS,
    settings: str = 'greedy',
    shared_affine: bool = False,
    weights: str | Path | None = None,
    tissue_weights: str | Path | None = None,
    seed: int = 1,
    device: str = 'cpu',
    nprocs: int = 1,
    omp_nthreads: int = 1,
    command: str = '',
) -> pd.DataFrame:
    """Compare ways to register the template to brains with a tumour; write tables and figures.

    Parameters
    ----------
    dataset : BIDS dataset of skull-stripped T1w with tumour masks, see
        :data:`tumorreg_wf.bids.REFERENCES`. Where the true tissues (``sub-X_dseg.nii.gz``) and
        the T1w without the tumour (``sub-X_desc-tumorfree_T1w.nii.gz``) lie beside the mask, as
        ``tumorreg-simulate`` writes them, they are used.
    out_dir : folder for the results.
    work_dir : folder for intermediate results; the same again goes on where a run stopped.
    participants : labels; all where empty.
    arms : of :data:`ARMS`.
    settings : as of :func:`tumorreg_wf.workflows.engines.registration_settings`.
    shared_affine : whether rigid and affine transform are those of the masked arm in all.
    weights, tissue_weights : of the inpainting network, and of the one that finds tissues, as
        :func:`tumorreg_wf.weights.find_weights` takes them.
    seed : of the registrations; with one thread, on a CPU, results repeat bit for bit.
    device : torch device.
    nprocs : processes at a time.
    omp_nthreads : threads of one process.
    command : noted in the results.

    Returns
    -------
    table : a row per participant, arm and region, :data:`COLUMNS`.
    """
    check_dataset(dataset)
    dataset = dataset.absolute()  # nodes run in folders of their own
    cases = find_patients(dataset, participants)
    if alone := [case.anatomy.subject for case in cases if not case.arms(arms)]:
        raise TumorregError(
            f'{dataset}: no T1w without the tumour of {", ".join(alone)}, so no {ORACLE}. '
            'Add other arms with --arms.'
        )
    chosen = {
        'inpainting': find_weights('inpainting', weights),
        'tissues': find_weights('tissues', tissue_weights),
    }
    run = {
        'command': command,
        'weights': describe_weights((one.name, one) for one in chosen.values()),
        'random_seed': seed,
        'nprocs': nprocs,
        'omp_nthreads': omp_nthreads,
        'repeats_bit_for_bit': omp_nthreads == 1 and device == 'cpu',
        'shared_affine': shared_affine,
        'settings': registration_settings(settings),
    }
    work_dir = work_dir.absolute()
    workflow = pe.Workflow(name=f'registrations_{fingerprint()}_wf')
    workflow.base_dir = str(work_dir)
    workflow.config['execution'] = {'crashdump_dir': str(work_dir / 'crash')}
    template = load_template(None, work_dir / 'templates')
    for case in cases:
        case_wf = init_case_wf(
            case,
            arms=arms,
            settings=settings,
            shared_affine=shared_affine,
            template=template,
            weights=chosen,
            device=device,
            omp_nthreads=omp_nthreads,
            random_seed=seed,
        )
        workflow.add_nodes([case_wf])
    stages = {stage_name(arm, settings, shared_affine): arm for arm in arms}
    results = _Results(cases, stages)
    plugin_args = {'n_procs': nprocs, 'raise_insufficient': False, 'mp_context': 'forkserver'}
    plugin = MultiProcPlugin(plugin_args | {'status_callback': results})
    try:
        workflow.run(plugin=plugin)
    except RuntimeError as error:  # Nipype's, after it has tried all it could
        print(str(error).splitlines()[0], flush=True)

    unfinished = [case.anatomy.subject for case in cases if case not in results.measures]
    if results.measures:
        table = results.table()
        tests = compare_arms(table)
        out_dir.mkdir(parents=True, exist_ok=True)
        write_results(
            out_dir,
            'registration',
            table,
            run=run | {'unfinished': unfinished},
            columns=COLUMNS,
            summary=summary_of(table, tests),
        )
        regions = results.regions()
        if len(regions):
            write_results(
                out_dir,
                'registration_regions',
                regions,
                run=run,
                columns=reliability.COLUMNS,
                summary=reliability.summary_of(regions),
            )
        tests.to_csv(
            out_dir / 'registration_tests.tsv',
            sep='\t',
            index=False,
            na_rep='n/a',
            float_format='%.6g',
        )
        _draw(table, results, out_dir)
    if unfinished:
        raise TumorregError(
            f'not finished: {", ".join(unfinished)}. The reasons are in {work_dir / "crash"}; the '
            'same command goes on from here.'
        )
    return table


def find_patients(dataset: Path, participants: Sequence[str] = ()) -> list[Case]:
    """Find patients, and what is known about them beside their tumour mask."""
    cases = []
    for anatomy in find_cases(dataset, participants):
        if anatomy.tumor_mask is None:
            raise TumorregError(
                f'{dataset}: no tumour mask {REFERENCES} of {anatomy.subject}. Name the others '
                'with --participant-label.'
            )
        stem = f'sub-{anatomy.subject}'
        known = [
            anatomy.tumor_mask.with_name(f'{stem}_{ending}.nii.gz')
            for ending in ('desc-tumorfree_T1w', 'dseg')
        ]
        require_images([anatomy.t1w, anatomy.tumor_mask])
        cases.append(Case(anatomy, *(path if path.exists() else None for path in known)))
    return cases


class _Results:
    """Nipype's status callback: prints what is done, and keeps measures and times.

    Attributes
    ----------
    measures : outputs of :class:`MeasureArms` of the patients that are finished.
    seconds : of the registration, by patient and arm; of an earlier run, its time then.
    """

    def __init__(self, cases: list[Case], stages: dict[str, str]) -> None:
        self._cases = {workflow_name(case.anatomy): case for case in cases}
        self._stages = stages
        self.measures: dict[Case, TraitedSpec] = {}
        self.seconds: dict[tuple[Case, str], float] = {}

    def __call__(self, node, status: str) -> None:
        """Take note that a node started, ended or failed."""
        _, name, stage, *_ = node.fullname.split('.')
        case = self._cases[name]
        subject = f'sub-{case.anatomy.subject}'
        if status == 'exception':
            print(f'{subject}: {stage} FAILED', flush=True)
        elif status == 'end' and node.name == 'register' and stage in self._stages:
            seconds = node.result.runtime.duration
            self.seconds[case, self._stages[stage]] = seconds
            print(f'{subject}: {self._stages[stage]} registered ({seconds:.0f} s)', flush=True)
        elif status == 'end' and stage.startswith('measure_'):
            self.measures[case] = node.result.outputs
            count = f'{len(self.measures)} of {len(self._cases)}'
            print(f'{subject}: finished ({count})', flush=True)

    def table(self) -> pd.DataFrame:
        """A row per patient, arm and region, patients in the order of the dataset."""
        rows = []
        for case in self._cases.values():
            if case in self.measures:
                origin = {'participant_id': f'sub-{case.anatomy.subject}'}
                for row in json.loads(Path(self.measures[case].out_file).read_text()):
                    rows.append({**origin, **row, 'seconds': self.seconds[case, row['arm']]})
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def regions(self) -> pd.DataFrame:
        """A row per patient and region of the atlas; empty where the truth is not known."""
        found = [
            pd.read_json(self.measures[case].regions).assign(
                participant_id=f'sub-{case.anatomy.subject}'
            )
            for case in self._cases.values()
            if case in self.measures and isdefined(self.measures[case].regions)
        ]
        columns = list(reliability.COLUMNS)
        return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame()


def _draw(table: pd.DataFrame, results: _Results, out_dir: Path) -> None:
    shell = table[(table['region'] == 'shell') & table['volume_ml'].gt(0)]
    far = shell[shell['distance_mm'].gt(0)]
    if len(far):
        label = 'distance to the oracle in the shell, mm'
        draw_pairs(far, 'distance_mm', label, 'arm', out_dir / 'registration_distance.png')
    if BASELINE in set(shell['arm']):
        label = f'Dice GM in the shell, minus that of {BASELINE}'
        draw_gain(shell, 'dice_gm', label, 'arm', BASELINE, out_dir / 'registration_gain.png')
    arms = list(table['arm'].unique())
    pictures = [_picture(case, outputs, arms) for case, outputs in results.measures.items()]
    named = ['white matter, reference', "the template's; left: the tumour"]
    draw_panel(spread(pictures), out_dir / 'registration_panel.png', named)


def _picture(case: Case, outputs: TraitedSpec, arms: list[str]) -> Picture:
    """Cut the axial slice with most of the tumour: white matter of the reference and each arm."""
    grid = load_image(outputs.reference)

    def upright(path: str | Path, order: int = 0) -> np.ndarray:
        image = resample(load_image(path), grid, order=order)
        return to_network_grid(image, spacing=1.0, order=order).get_fdata(dtype=np.float32)

    assert case.anatomy.tumor_mask is not None
    t1w, tumor = upright(case.anatomy.t1w, order=1), upright(case.anatomy.tumor_mask) > 0
    k = int(tumor.sum(axis=(0, 1)).argmax())
    box = bounding_box((t1w != 0).any(axis=2), margin=3)
    grey = np.clip(t1w[..., k][box] / np.percentile(t1w[t1w > 0], 99.5), 0, 1)
    white = {
        Path(path).name.removesuffix('_dseg.nii.gz'): upright(path)[..., k][box] == TISSUES['wm']
        for path in (outputs.reference, *outputs.labels)
    }
    reference = white.pop('reference.nii.gz')
    slices = [('tumour', grey, [np.zeros_like(reference), tumor[..., k][box]])]
    for arm in arms:
        there = arm in white  # a real patient has no oracle
        slices.append((arm, grey * there, [reference, white[arm]] if there else []))
    volume = tumor.sum() / 1000
    return Picture(f'sub-{case.anatomy.subject}, {volume:.0f} ml', float(volume), slices)
