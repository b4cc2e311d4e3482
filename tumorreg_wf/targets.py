"""What each engine of the registration registers to unless told otherwise."""

from __future__ import annotations

#: By engine: greedy goes by tissues, which are found through the tumour; SyN by the T1w.
DEFAULT_TARGETS = {'greedy': 'original', 'syn': 'recovered-masked'}
