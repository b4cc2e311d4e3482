"""Join segmentation weights of several folds: ensemble.py NAME OUT FOLD FOLD [FOLD ...]"""

import json
import sys
from pathlib import Path

from tumorreg_wf.models.inference import load_network, save_network
from tumorreg_wf.models.unet import SlabUNetEnsemble
from tumorreg_wf.weights import find_weights

name, out, *folds = sys.argv[1:]
weights = [find_weights('segmentation', fold) for fold in folds]
first = weights[0]
assert all((w.config, w.spacing) == (first.config, first.spacing) for w in weights), 'unlike folds'
config = {'members': len(weights), **first.config}
network = SlabUNetEnsemble(**config)
for member, one in zip(network.members, weights, strict=True):
    member.load_state_dict(load_network(one).state_dict())
Path(out).mkdir(parents=True, exist_ok=True)
save_network(
    network,
    Path(out) / 'segmentation.safetensors',
    name=name,
    task='segmentation',
    config=config,
    spacing=first.spacing,
)
card = {
    'name': name,
    'task': 'segmentation',
    'architecture': 'SlabUNetEnsemble',
    'config': config,
    'spacing': first.spacing,
    'members': [json.loads((Path(fold) / 'model_card.json').read_text()) for fold in folds],
}
(Path(out) / 'model_card.json').write_text(json.dumps(card, indent=1) + '\n')
