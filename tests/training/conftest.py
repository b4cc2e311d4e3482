"""A small ellipsoid brain to put tumours into."""

import numpy as np
import pytest

SHAPE = (44, 50, 42)
GREY = np.array((0, 500, 700, 200), np.float32)


@pytest.fixture(scope='session')
def spacing():
    return 3.5, 3.5, 3.5


@pytest.fixture(scope='session')
def tissues():
    """CSF outside, a GM cortex, WM, and a ventricle in the middle; air around."""
    grid = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in SHAPE), indexing='ij')
    radius = np.sqrt(sum(axis**2 for axis in grid))
    labels = np.select([radius < 0.2, radius < 0.75, radius < 0.9, radius < 1], [3, 2, 1, 3], 0)
    return labels.astype(np.uint8)


@pytest.fixture(scope='session')
def t1w(tissues):
    noise = np.random.default_rng(5).normal(0, 15, SHAPE).astype(np.float32)
    return np.where(tissues > 0, GREY[tissues] + noise, 0)


@pytest.fixture(scope='session')
def labels(tissues):
    """The same brain as FreeSurfer labels: ventricle 4, WM 2, cortex 3, CSF 24."""
    inner = np.zeros(SHAPE, bool)
    inner[14:-14, 16:-16, 14:-14] = True
    table = np.array((0, 3, 2, 24))
    return np.where(inner & (tissues == 3), 4, table[tissues])
