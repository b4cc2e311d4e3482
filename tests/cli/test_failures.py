import pytest

from tumorreg_wf.failures import OTHERWISE, Failure, read_crash


@pytest.fixture
def crash(tmp_path):
    def write(text):
        path = tmp_path / 'crash-x.txt'
        path.write_text('Node: tumorreg_0_wf.sub_01_wf.registration_wf.register\n' + text)
        return read_crash(path)

    return write


def test_reason_of_a_program_is_what_it_said_last(crash):
    failure = crash(
        'Node inputs:\nfixed = SomeError: no reason\n'
        'Traceback (most recent call last):\n  File "x"\n'
        'nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node\n'
        'Stdout:\n\tfine\nStderr:\n\tfirst\n\tImage x cannot be read\n\nTraceback:\n'
        '\tTraceback (most recent call last):\n\tRuntimeError: subprocess exited with code 1.\n'
    )
    assert failure.reason == 'subprocess exited with code 1. Image x cannot be read'
    assert failure.node == 'sub_01_wf.registration_wf.register'
    assert failure.advice.startswith(OTHERWISE)


@pytest.mark.parametrize(
    ('reason', 'advice'),
    [
        ('RuntimeError: antsRegistration ended with exit code -9: it said nothing', '--mem'),
        ('RuntimeError: subprocess exited with code 137.', '--mem'),
        ('RuntimeError: tumorreg_wf.greedy_program ended with exit code 139: it said', 'memory'),
        ('RuntimeError: program ended with exit code -15: it said nothing', 'more time'),
        ('numpy.core._exceptions._ArrayMemoryError: Unable to allocate 3 GiB', '--mem'),
        ('OSError: [Errno 28] No space left on device', 'Free some space'),
        ('torch.OutOfMemoryError: CUDA out of memory.', '--device cpu'),
        ('OSError: Job id (12) finished or terminated, but results file', 'cluster ended the job'),
        ('ValueError: strange', 'report it'),
    ],
)
def test_advice_fits_the_reason(crash, reason, advice):
    assert advice in crash(f'Traceback (most recent call last):\n  File "x"\n{reason}\n').advice


def test_a_crash_file_without_a_traceback(crash):
    assert crash('Killed\n').reason == 'Killed'


def test_what_is_refused_says_itself_what_to_do(crash):
    failure = crash(
        'Traceback (most recent call last):\n  File "x"\n'
        'tumorreg_wf.errors.TumorregError: mask.nii.gz: no voxel reaches 0.5. '
        'A mask has 1 inside.\n'
    )
    assert failure.reason == 'mask.nii.gz: no voxel reaches 0.5. A mask has 1 inside.'
    assert failure.advice == 'The same command then goes on from there.'


def test_what_was_found_before_any_step_says_itself_what_to_do():
    assert Failure('sub-01_T1w.nii.gz: cannot be read').advice == ''


def test_an_intermediate_result_that_cannot_be_read(crash):
    """Nobody gave this file: the work folder is damaged."""
    failure = crash(
        'Traceback (most recent call last):\n  File "x"\n'
        'tumorreg_wf.errors.TumorregError: /work/tumorreg_wf/sub_01_wf/n4/a.nii.gz: not a NIfTI '
        'file.\n'
    )
    assert 'delete the work folder' in failure.advice
