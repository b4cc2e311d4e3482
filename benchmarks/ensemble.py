"""Join segmentation weights: ensemble.py NAME OUT WEIGHTS [WEIGHTS ...]

WEIGHTS are what ``--segmentation-weights`` takes; the first sees all the slices that any other
does. Those with ``+FLAIR`` after their name are used only where there is a FLAIR.
"""

import json
import sys
from pathlib import Path

from tumorreg_wf.models.networks import load_network, save_network
from tumorreg_wf.models.unet import UNetEnsemble
from tumorreg_wf.weights import find_weights

name, out, *sources = sys.argv[1:]
weights = [find_weights('segmentation', source.removesuffix('+FLAIR')) for source in sources]
spacing = weights[0].spacing
assert all(one.spacing == spacing for one in weights), 'weights of unlike voxels'
members: list[dict] = [{'network': one.architecture, **one.config} for one in weights]
for member, source in zip(members, sources, strict=True):
    if source.endswith('+FLAIR'):
        member['needs_flair'] = True
config = {'members': members}
network = UNetEnsemble(**config)
for part, one in zip(network.members, weights, strict=True):
    part.load_state_dict(load_network(one).state_dict())
Path(out).mkdir(parents=True, exist_ok=True)
save_network(
    network,
    Path(out) / 'segmentation.safetensors',
    name=name,
    task='segmentation',
    config=config,
    spacing=spacing,
)
# the card of packaged weights is named as they are
cards = [one.path.with_name('model_card.json') for one in weights]
packaged = [one.path.with_suffix('.json') for one in weights]
cards = [card if card.exists() else other for card, other in zip(cards, packaged, strict=True)]
card = {
    'name': name,
    'task': 'segmentation',
    'architecture': 'UNetEnsemble',
    'config': config,
    'spacing': spacing,
    'members': [json.loads(path.read_text()) for path in cards],
}
(Path(out) / 'model_card.json').write_text(json.dumps(card, indent=1) + '\n')
