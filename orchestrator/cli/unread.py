"""Commands whose reader goes away, as in `perstack-orch log | head`."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

NOBODY_READS = 128 + signal.SIGPIPE
"""The exit code of such a command, as a shell knows it of any other."""


def ends_unread(command: Callable[..., int]) -> Callable[..., int]:
    """Have a command end with that code; typer would end the process with that of an Expert's error."""

    @functools.wraps(command)
    def ended(*arguments: Any, **options: Any) -> int:
        try:
            code = command(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            # Else the interpreter's own flush at its end would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return NOBODY_READS
        return code

    return ended
