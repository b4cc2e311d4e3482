"""What several parts of the package take unless told otherwise."""

from __future__ import annotations

#: What each engine of the registration registers to: greedy goes by tissues, which are found
#: through the tumour; SyN by the T1w.
DEFAULT_TARGETS = {'greedy': 'original', 'syn': 'recovered-masked'}

#: A tumour is grown by this before it is replaced, mm; as in use, so in training and evaluation.
DILATION = 3.0
