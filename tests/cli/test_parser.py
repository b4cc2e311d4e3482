"""Options that fMRIPrep has, too."""

import pytest

from tumorreg_wf.cli.parser import get_parser, make_settings


def settings(*options):
    opts = get_parser().parse_args(['bids', 'out', 'participant', *options])
    return make_settings(opts, 'cpu')


@pytest.mark.parametrize(
    ('given', 'gigabytes'),
    [('8000', 8), ('8000M', 8), ('8G', 8), ('8gb', 8), ('2.5G', 2.5), ('0.5T', 500)],
)
@pytest.mark.parametrize('option', ['--mem', '--mem-mb'])
def test_memory(option, given, gigabytes):
    assert settings(option, given).mem_gb == pytest.approx(gigabytes)


@pytest.mark.parametrize('given', ['8', '100M', 'much', '8 apples'])
def test_no_memory(given, capsys):
    with pytest.raises(SystemExit) as ended:
        settings('--mem', given)
    assert ended.value.code == 2
    assert '8G' in capsys.readouterr().err


@pytest.mark.parametrize('given', ['0', '-1', 'x', str(2**31)])
def test_no_seed(given, capsys):
    with pytest.raises(SystemExit) as ended:
        settings('--random-seed', given)
    assert ended.value.code == 2
    assert 'a whole number' in capsys.readouterr().err


def test_no_more_threads_than_processes():
    assert settings('--nprocs', '2', '--omp-nthreads', '8').omp_nthreads == 2
    assert settings('--participant-label', 'sub-01', '02').participants == ('01', '02')


def test_names():
    for option in ('--skip_bids_validation', '--boilerplate_only'):  # fMRIPrep takes either
        settings(option)
    assert settings('--n_cpus', '3').nprocs == 3
    found = settings('--nthreads', '3', '--output-spaces', 'anat')
    assert (found.nprocs, found.output_spaces) == (3, ('T1w',))
