"""The training loop: learning, judging, resuming, logging."""

import csv
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tumorreg_wf.errors import TumorregError
from tumorreg_wf.training.loop import Validation, train


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
    options = {'steps': 40, 'learning_rate': 1e-2, 'out_dir': folder} | changes  # noted every 4
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


@pytest.mark.parametrize('text', ['', 'step,sec', 'step,seconds,total,root\n', None])
def test_logs_cut_short_by_a_kill(tmp_path, killed_at, text):
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6))
    log = tmp_path / 'log.csv'
    log.write_text(log.read_text() + '8' if text is None else text)
    run(tmp_path, make_network())
    with log.open() as stream:
        steps = [int(row['step']) for row in csv.DictReader(stream)]
    assert steps == list(range(4 if text is None else 8, 41, 4))


def test_the_seed_decides(tmp_path):
    for name in 'abc':
        (tmp_path / name).mkdir()
    one = run(tmp_path / 'a', make_network(), seed=3)
    assert same(run(tmp_path / 'b', make_network(), seed=3), one)
    assert not same(run(tmp_path / 'c', make_network(), seed=4), one)


def test_checkpoint_holds_tensors_only(tmp_path):
    network = run(tmp_path, make_network())
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    assert state['step'] == 40
    for key, value in network.state_dict().items():
        assert torch.equal(state['network'][key], value)
    assert not list(tmp_path.glob('*.part'))


@pytest.fixture
def rates(monkeypatch):
    """Learning rates of the steps done."""
    rates = []

    class Adam(torch.optim.AdamW):
        def step(self, *args):
            rates.append(self.param_groups[0]['lr'])
            return super().step(*args)

    monkeypatch.setattr(torch.optim, 'AdamW', Adam)
    return rates


def test_learning_rate_rises_and_falls_along_a_half_cosine(tmp_path, rates):
    run(tmp_path, make_network())
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40)) + 0.01
    expected[:4] *= [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(rates, 1e-2 * expected)


def test_weights_decay(tmp_path):
    """Where the loss does not ask for any: the bias of nothing."""
    sizes = []
    for name, decay in (('a', 0.0), ('b', 0.5)):
        (tmp_path / name).mkdir()
        network = run(tmp_path / name, make_network(), weight_decay=decay)
        sizes.append(sum(float(values.detach().square().sum()) for values in network.parameters()))
    assert sizes[1] < sizes[0]


def test_fine_tuning_is_the_last_third(tmp_path, rates):
    run(tmp_path, make_network(), steps=12, learning_rate=2e-4, fine_tuning_rate=5e-5)
    assert rates == [2e-4] * 8 + [5e-5] * 4


def test_log_and_learning(tmp_path):
    run(tmp_path, make_network(), steps=95)
    with (tmp_path / 'log.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row['step']) for row in rows] == [*range(9, 95, 9), 95]
    totals = [float(row['total']) for row in rows]
    assert totals[-1] < 0.7 * totals[0]
    assert {'seconds', 'root'} < set(rows[0])


def test_log_goes_on(tmp_path, killed_at):
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6))
    with (tmp_path / 'log.csv').open('a') as stream:
        stream.write('8,1.0,0.1,0.1\n')  # killed between the log and the checkpoint
    run(tmp_path, make_network(), steps=40)
    lines = (tmp_path / 'log.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in lines] == ['step', *map(str, range(4, 41, 4))]


@pytest.mark.parametrize('workers', [1, 3])
def test_workers_change_nothing(tmp_path, workers):
    """Not even where the first batches take longest."""
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    threads = torch.get_num_threads()
    taken = []

    def slow(rng):
        taken.append(len(taken))
        time.sleep(0.01 * (len(taken) % 3))
        return batches(rng)

    one = run(tmp_path / 'a', make_network())
    assert same(run(tmp_path / 'b', make_network(), slow, workers=workers), one)
    assert len(taken) == 40
    assert torch.get_num_threads() == threads


def test_a_worker_that_fails_ends_the_training(tmp_path, killed_at):
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6), workers=2)


def scripted(*means):
    """A measure of two cases with these means; notes the networks it is shown."""
    shown, left = [], iter(means)

    def measure(network):
        assert not network.training
        shown.append({key: value.clone() for key, value in network.state_dict().items()})
        mean = next(left)
        return {'one': mean - 1, 'two': mean + 1}

    return measure, shown


def outcome_of(folder, network, validation, source=batches, **changes):
    options = {'steps': 20, 'learning_rate': 1e-2, 'out_dir': folder} | changes
    return train(network, source, loss, validation=validation, **options)


def test_the_best_network_is_kept(tmp_path):
    measure, shown = scripted(1, 3, 2, 3)
    network = make_network()
    outcome = outcome_of(tmp_path, network, Validation(measure, 6))
    assert outcome.validation == {'step': 12, 'mean': 3, 'figures': {'one': 2, 'two': 4}}
    assert (outcome.steps, len(shown)) == (20, 4)  # after steps 6, 12, 18 and the last
    assert all(torch.equal(value, shown[1][key]) for key, value in network.state_dict().items())
    assert not torch.equal(shown[1]['0.weight'], shown[3]['0.weight'])
    with (tmp_path / 'validation.csv').open() as stream:
        rows = [
            {key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)
        ]
    assert [row['step'] for row in rows] == [6, 12, 18, 20]
    assert rows[0] == {'step': 6, 'mean': 1, 'one': 0, 'two': 2}


def test_judging_does_not_change_the_training(tmp_path):
    """But for which network is kept."""
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    plain = run(tmp_path / 'a', make_network(), steps=20)
    network = make_network()
    outcome_of(tmp_path / 'b', network, Validation(scripted(1, 2, 3, 4)[0], 6))
    assert same(network, plain)


def test_patience(tmp_path):
    outcome = outcome_of(tmp_path, make_network(), Validation(scripted(1, 3, 3, 2, 9)[0], 4, 2))
    assert (outcome.steps, outcome.validation['step']) == (16, 8)
    # the same again does nothing more
    again = outcome_of(tmp_path, make_network(), Validation(scripted()[0], 4, 2))
    assert again == outcome


def test_the_best_network_outlives_a_kill(tmp_path, killed_at):
    means = [1, 3, 2, 2, 2]
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    whole, resumed = make_network(), make_network()
    expected = outcome_of(tmp_path / 'a', whole, Validation(scripted(*means)[0], 4))
    with pytest.raises(Killed):
        outcome_of(
            tmp_path / 'b', make_network(), Validation(scripted(*means)[0], 4), killed_at(11)
        )
    found = outcome_of(tmp_path / 'b', resumed, Validation(scripted(*means[2:])[0], 4))
    assert found.validation == expected.validation and found.losses == expected.losses
    assert same(resumed, whole)
    logs = [(tmp_path / name / 'validation.csv').read_text() for name in 'ab']
    assert logs[0] == logs[1]


def test_other_settings_are_refused(tmp_path):
    settings = {'steps': 20, 'data': 'abc', 'validate': ['1']}
    outcome_of(tmp_path, make_network(), None, settings=settings)
    outcome_of(tmp_path, make_network(), None, settings=dict(settings))
    before = (tmp_path / 'checkpoint.pt').read_bytes()
    with pytest.raises(TumorregError, match='other settings .steps 20, now 40; data abc, now abd'):
        outcome_of(
            tmp_path, make_network(), None, settings={**settings, 'steps': 40, 'data': 'abd'}
        )
    assert (tmp_path / 'checkpoint.pt').read_bytes() == before


def test_checkpoints_of_the_first_release_go_on(tmp_path, killed_at):
    """They hold the network, the optimiser and the step."""
    (tmp_path / 'a').mkdir()
    whole = run(tmp_path / 'a', make_network())
    with pytest.raises(Killed):
        run(tmp_path, make_network(), killed_at(6))
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    old = {key: state[key] for key in ('network', 'optimizer', 'step')}
    torch.save(old, tmp_path / 'checkpoint.pt')
    assert same(run(tmp_path, make_network(), settings={'steps': 40}), whole)


@pytest.mark.parametrize('content', [b'', b'garbage', b'PK\x03\x04'])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / 'checkpoint.pt').write_bytes(content)
    with pytest.raises(TumorregError, match=r'checkpoint\.pt: this file is damaged. Delete'):
        run(tmp_path, make_network())


def test_gradients_are_cut(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def look(self, *args):
        grads = [p.grad for group in self.param_groups for p in group['params']]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, 'step', look)

    def steep(rng):
        x, y = batches(rng)
        return x, 30 * y

    run(tmp_path, make_network(), steep, steps=2)
    assert norms == pytest.approx([5, 5], rel=1e-3)


def test_tensorboard(tmp_path, monkeypatch):
    """Where it is installed it is told what the CSV files are."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            assert folder == tmp_path / 'tensorboard'
            told.append(purge_step)

        def add_scalar(self, name, value, step):
            told.append((name, step))

        def close(self):
            told.append('closed')

    board = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', board)
    run(tmp_path, make_network(), steps=2, validation=Validation(scripted(1)[0], 5))
    assert told == [
        None, ('loss/total', 1), ('loss/root', 1), ('loss/total', 2), ('loss/root', 2),
        ('validation/mean', 2), ('validation/one', 2), ('validation/two', 2), 'closed',
    ]  # fmt: skip


def test_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    run(tmp_path, make_network())
    assert not (tmp_path / 'tensorboard').exists()


@pytest.mark.parametrize('terminal', [True, False])
def test_a_bar_on_a_terminal(tmp_path, monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    run(tmp_path, make_network())
    shown = capsys.readouterr().out
    assert ('[###############...............] 20/40' in shown) == ('\r' in shown) == terminal
    assert 'step 20 seconds' in shown


def test_garbage_from_a_convolution_does_not_reach_the_statistics(tmp_path):
    """Nor is a network that gives no figure the best one."""
    network = make_network()
    count = iter(range(6))
    network[0].register_forward_hook(
        lambda *inputs: inputs[2] * (float('nan') if network.training and next(count) == 2 else 1)
    )
    figures = iter([float('nan'), 1.0, 0.5, 0.4])
    validation = Validation(lambda _: {'a': next(figures)}, every=2)
    run(tmp_path, network, steps=6, validation=validation)
    assert network[1].running_mean.isfinite().all() and network[1].running_var.isfinite().all()
    best = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)['best']
    assert (best['step'], best['mean']) == (4, 1.0)


@pytest.mark.parametrize('garbage', [float('inf'), float('nan')])
def test_a_step_with_garbage_for_a_gradient_is_left_out(tmp_path, garbage):
    """As if the third of six gradients had come out of a broken convolution."""
    network = make_network()
    count = iter(range(6))

    def spoil(gradient):
        return gradient * garbage if next(count) == 2 else gradient

    network[3].weight.register_hook(spoil)
    before = [value.clone() for value in network[3].parameters()]
    run(tmp_path, network, steps=6)
    for old, new in zip(before, network[3].parameters(), strict=True):
        assert new.isfinite().all() and not torch.equal(old, new)
        assert (new - old).abs().max() < 6 * 1e-2
