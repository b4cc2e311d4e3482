"""Compare settings of the registration: engines.py DATA OUT SETTINGS [SETTINGS ...]

DATA is a dataset of tumorreg-simulate, SETTINGS are what ``tumorreg-evaluate registration
--settings`` takes. The template is registered to each brain without its tumour, one at a time,
with two threads; printed are means over participants.
"""

import sys
from pathlib import Path

import pandas as pd

from tumorreg_wf.cli.plugins import configure_nipype
from tumorreg_wf.evaluation.registration import evaluate_registration
from tumorreg_wf.evaluation.results import to_markdown

MEASURES = ['dice_csf', 'dice_gm', 'dice_wm', 'fold_fraction', 'seconds']


def main(data: str, out: str, *settings: str) -> None:
    """Evaluate each of the settings in one work folder, and print a row for it."""
    work = Path(out) / 'work'
    configure_nipype(work.absolute())
    rows = []
    for name in settings:
        table = evaluate_registration(
            Path(data),
            Path(out) / Path(name).stem,
            work_dir=work,
            arms=['oracle'],
            settings=name,
            omp_nthreads=2,
            command=' '.join(sys.argv),
        )
        whole = table[table['region'] == 'outside'][MEASURES].mean()
        rows.append({'settings': name, **whole})
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == '__main__':
    main(*sys.argv[1:])
