"""The training loop: learning, resuming, logging."""

import csv

import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.training.loop import train


class Killed(Exception):
    pass


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1)
    )


def batches(rng):
    x = torch.tensor(rng.standard_normal((2, 1, 8, 8)), dtype=torch.float32)
    return x, 2 * x - 1


def loss(network, x, y):
    error = (network(x) - y).square().mean()
    return {'total': error, 'root': error.sqrt()}


def run(folder, network, source=batches, **changes):
    options = {'steps': 12, 'learning_rate': 1e-2, 'out_dir': folder, 'every': 4} | changes
    train(network, source, loss, **options)
    return network


def same(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def killed_at():
    """Batches that end in an exception at the given step."""

    def source(step):
        count = iter(range(step))

        def draw(rng):
            if next(count, None) is None:
                raise Killed
            return batches(rng)

        return draw

    return source


@pytest.mark.parametrize('step', [2, 6, 8, 11])
def test_killed_and_resumed_ends_where_it_would_have_ended(tmp_path, killed_at, step):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    whole = run(tmp_path / 'a', make_network())
    with pytest.raises(Killed):
        run(tmp_path / 'b', make_network(), killed_at(step))
    assert (tmp_path / 'b' / 'checkpoint.pt').exists() == (step >= 4)
    torch.manual_seed(99)  # another process
    resumed = run(tmp_path / 'b', make_network())
    assert same(resumed, whole)
    assert not same(resumed, make_network())


def test_it_was_the_checkpoint_that_made_them_equal(tmp_path, killed_at):
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6))
    other = nn.Sequential(*make_network())
    with torch.no_grad():
        other[0].weight.zero_()
    resumed = run(tmp_path, other)
    (tmp_path / 'checkpoint.pt').unlink()
    assert same(resumed, run(tmp_path, make_network()))


def test_a_finished_run_does_nothing(tmp_path):
    whole = run(tmp_path, make_network())
    log = (tmp_path / 'log.csv').read_text()
    assert same(run(tmp_path, make_network()), whole)
    assert (tmp_path / 'log.csv').read_text() == log


def test_the_seed_decides(tmp_path):
    for name in 'abc':
        (tmp_path / name).mkdir()
    one = run(tmp_path / 'a', make_network(), seed=3)
    assert same(run(tmp_path / 'b', make_network(), seed=3), one)
    assert not same(run(tmp_path / 'c', make_network(), seed=4), one)


def test_checkpoint_holds_tensors_only(tmp_path):
    network = run(tmp_path, make_network())
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['step'] == 12
    for key, value in network.state_dict().items():
        assert torch.equal(state['network'][key], value)
    assert not list(tmp_path.glob('*.part'))


def test_learning_rate_falls_along_a_half_cosine(tmp_path, monkeypatch):
    rates = []

    class Adam(torch.optim.Adam):
        def step(self, *args):
            rates.append(self.param_groups[0]['lr'])
            return super().step(*args)

    monkeypatch.setattr(torch.optim, 'Adam', Adam)
    run(tmp_path, make_network())
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(12) / 12)) + 0.01
    np.testing.assert_allclose(rates, 1e-2 * expected)


def test_log_and_learning(tmp_path):
    run(tmp_path, make_network(), steps=90, every=40)
    with (tmp_path / 'log.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row['step']) for row in rows] == [40, 80, 90]
    totals = [float(row['total']) for row in rows]
    assert totals[-1] < 0.7 * totals[0]
    assert {'seconds', 'root'} < set(rows[0])


def test_log_goes_on(tmp_path, killed_at):
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6))
    run(tmp_path, make_network())
    lines = (tmp_path / 'log.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in lines] == ['step', '4', '8', '12']
