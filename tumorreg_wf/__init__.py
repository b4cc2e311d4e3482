"""Registration of brains with tumours: find the tumour, recover the tissue, warp the atlas."""

__version__ = '0.1.0'
