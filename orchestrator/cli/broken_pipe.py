"""The end of a command whose reader is gone, as in `perstack-orch log | head`."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

BROKEN_PIPE = 128 + signal.SIGPIPE
"""The exit code of such a command, as a shell reports it for other programs."""


def exit_on_broken_pipe(command: Callable[..., int]) -> Callable[..., int]:
    """Make a command end with `BROKEN_PIPE`; typer would use the exit code of an Expert's error."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> int:
        try:
            code = command(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # Otherwise the interpreter's own flush at exit prints an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        return code

    return guarded
