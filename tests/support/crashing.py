"""The command line, killed at one of its durable steps: `python -m tests.support.crashing N ARGUMENTS…`.

Before and after each step a counter goes up; at N the process is gone, with exit code 9 and nothing cleared up. With 0
it goes on to its end, and the last line of stderr says how many there were.
"""

import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

import orchestrator.state
import orchestrator.store.files
from orchestrator.backends import docker_engine, kubernetes_api, process, process_record
from orchestrator.broker.stream import Stream
from orchestrator.cli import main
from orchestrator.cli.stdout import Stdout
from orchestrator.store.event_log import EventLog

KILLED = 9
STEPS: tuple[tuple[Any, str], ...] = (
    (orchestrator.store.files, "_write"),
    (orchestrator.store.files, "_sync"),
    (EventLog, "_write"),
    (orchestrator.state, "made_spool"),
    (docker_engine.Engine, "create"),
    (docker_engine.Engine, "start"),
    (docker_engine.Engine, "delete"),
    (kubernetes_api.Api, "create"),
    (kubernetes_api.Api, "delete"),
    (process, "_spawn"),
    (process_record.ProcessRecords, "keep"),
    (process_record.ProcessRecords, "forget"),
    (Stream, "send"),
    (Stdout, "write"),
)
"""What is durable or seen from outside: records, events, Sandboxes, what is told to one, what is shown."""


def _counted(step: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            step()
            result = await function(*args, **kwargs)
            step()
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        step()
        result = function(*args, **kwargs)
        step()
        return result

    return called


def crash_at(target: int, arguments: list[str]) -> int:
    """Run the command line up to step `target`; give its exit code where it ends before."""
    count = itertools.count(1)
    reached = 0

    def step() -> None:
        nonlocal reached
        reached = next(count)
        if reached == target:
            os._exit(KILLED)

    for owner, name in STEPS:
        setattr(owner, name, _counted(step, getattr(owner, name)))
    code = main(arguments)
    sys.stderr.write(f"{reached}\n")
    return code


if __name__ == "__main__":
    sys.exit(crash_at(int(sys.argv[1]), sys.argv[2:]))
