"""Join the results of folds and print their summary: cross_validation.py RESULTS [RESULTS ...]

Each folder of results ends with the number of its fold, as ``results/fold1``.
"""

import re
import sys
from pathlib import Path

import pandas as pd

from tumorreg_wf.evaluation.segmentation import summary_of

FOLDS = Path(__file__).parent / 'folds'

tables = []
for folder in sys.argv[1:]:
    number = int(re.findall('[0-9]+$', folder.rstrip('/'))[0])
    table = pd.read_csv(Path(folder) / 'segmentation.tsv', sep='\t', dtype={'participant_id': str})
    left_out = {f'sub-{label}' for label in (FOLDS / f'healthy-{number}.txt').read_text().split()}
    trained_on = (table['dataset'] == 'healthy') & ~table['participant_id'].isin(left_out)
    tables.append(table[~trained_on])
joined = pd.concat(tables).assign(weights='folds')
# what no fold has seen is measured by all: the mean counts
by = ['participant_id', 'dataset', 'group', 'weights', 'modalities']
print(summary_of(joined.groupby(by, as_index=False, sort=False).mean()))
