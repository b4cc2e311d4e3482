"""Errors a user can mend. The command line prints their text alone, without a traceback."""


class TumorregError(Exception):
    """Bad input, said in one message: which file, what is wrong, what to do."""


#: Exit code of a program of ours that refuses its input, which Python's own errors do not have.
REFUSED = 3
